"""Module _command is what all commands share: the flags services have, and how failures end."""

from __future__ import annotations

import os
import traceback
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from importlib import import_module
from typing import Any, cast

import click
from click.shell_completion import CompletionItem

from shoal import plugins
from shoal._settings import PAIRS, SETTINGS, Setting
from shoal.cli import _exits, _output
from shoal.options import Options, OptionsError

_GIVEN = "shoal.given"
_DEBUG = "shoal.debug"
_SWITCHES = {
    f"--{name}"
    for setting in SETTINGS
    if setting.kind.switch
    for name in (setting.name, setting.name.replace("_", "-"))
}


class Command(click.Command):
    """A command that takes every flag a service takes, with dashes or underscores."""

    def __init__(self, *arguments: Any, shown: Collection[str] = (), **options: Any) -> None:
        settings = {"token_normalize_func": _dashed, "help_option_names": ["-h", "--help"]}
        options["context_settings"] = settings | options.get("context_settings", {})
        super().__init__(*arguments, **options)
        own = {name for param in self.params for name in param.opts}
        self.params += [flag for flag in _flags(shown) if not own.intersection(flag.opts)]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Let `--tls` stand for `--tls=true`: click has switches or values, services have both."""
        end = args.index("--") if "--" in args else len(args)
        valued = [f"{arg}=true" if arg in _SWITCHES else arg for arg in args[:end]]
        return super().parse_args(ctx, valued + args[end:])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Return what a word can become: flags that the help leaves out once they have begun."""
        found = super().shell_complete(ctx, incomplete)
        if incomplete.startswith("--") and len(incomplete) > 2:
            hidden = [flag for flag in self.params if getattr(flag, "hidden", False)]
            names = [flag.opts[0] for flag in hidden if flag.opts[0].startswith(incomplete)]
            found += [CompletionItem(name) for name in names]
        return found


class Group(Command, click.Group):
    """A group of such commands; a command may be a path, `module:name`, imported when needed."""

    def __init__(
        self, *arguments: Any, commands: Mapping[str, str | click.Command], **options: Any
    ) -> None:
        self._paths = commands
        super().__init__(*arguments, **options)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order in which they are learned."""
        return list(self._paths)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command of a name, None if there is none."""
        found = self._paths.get(cmd_name)
        if isinstance(found, str):
            module, _, name = found.partition(":")
            found = cast(click.Command, getattr(import_module(module), name))
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command the arguments begin with; one that is unknown is told its nearest."""
        if args and args[0] not in self._paths and not ctx.resilient_parsing:
            close = get_close_matches(args[0], self._paths, n=1)
            hint = f"did you mean {close[0]!r}?" if close else "see --help"
            raise click.UsageError(f"there is no command {args[0]!r}: {hint}", ctx)
        return super().resolve_command(ctx, args)


class Program(Group):
    """The outermost group: it turns exceptions into a sentence and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that was named."""
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except KeyboardInterrupt:
            raise SystemExit(_exits.INTERRUPTED) from None
        except Exception as error:
            if ctx.meta.get(_DEBUG):
                traceback.print_exception(error)
            failure = _exits.failure(error)
            _output.note(failure.message)
            raise SystemExit(failure.code) from error


def options(ctx: click.Context) -> Options:
    """Return what the environment and the flags of this command line say.

    Raises UsageError with the sentence for a value nobody can use.
    """
    given: dict[str, str] = ctx.meta.get(_GIVEN, {})
    quiet = Options(log_level="warning")  # for a service it is info
    try:
        return quiet.read([f"--{name}={text}" for name, text in given.items()], os.environ)
    except OptionsError as error:
        raise click.UsageError(str(error), ctx) from None


def given(ctx: click.Context) -> Mapping[str, str]:
    """Return the flags of services on this command line, by their names."""
    return cast(Mapping[str, str], ctx.meta.get(_GIVEN, {}))


def _dashed(name: str) -> str:
    return name.replace("_", "-")


def _flags(shown: Collection[str]) -> list[click.Option]:
    flags = [_flag(setting, setting.name in shown) for setting in SETTINGS]
    debug = click.Option(
        ["--debug"], is_flag=True, expose_value=False, callback=_keep_debug, hidden=not shown,
        help="Show the traceback of an error.",
    )  # fmt: skip
    return [*flags, debug]


def _flag(setting: Setting, shown: bool) -> click.Option:
    return click.Option(
        [f"--{_dashed(setting.name)}", setting.name],
        multiple=setting.kind is PAIRS,
        metavar=setting.kind.name.upper(),
        help=f"{setting.help[:1].upper()}{setting.help[1:]}.",
        hidden=not shown,
        expose_value=False,
        callback=_keep,
        shell_complete=_plugin_names if setting.name in plugins.interfaces() else None,
    )


def _plugin_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    return [name for name in plugins.names(param.name or "") if name.startswith(incomplete)]


def _keep(context: click.Context, option: click.Parameter, value: Any) -> None:
    if value:
        text = value if isinstance(value, str) else ",".join(value)
        context.meta.setdefault(_GIVEN, {})[option.name] = text


def _keep_debug(context: click.Context, option: click.Parameter, value: bool) -> None:
    if value:
        context.meta[_DEBUG] = True
