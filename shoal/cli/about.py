"""Module about holds the commands that tell what is installed here."""

from __future__ import annotations

import dataclasses
import platform
from importlib.metadata import PackageNotFoundError, entry_points
from importlib.metadata import version as package_version
from typing import Any

import click

from shoal import plugins as known
from shoal.broker import Guarantees
from shoal.cli import _output
from shoal.cli._command import Command
from shoal.cli.discovery import as_json

_PACKAGES = ("msgspec", "httptools", "uvloop", "click", "rich")
_SHELLS = {
    "bash": 'Add to ~/.bashrc:  eval "$(shoal completion bash)"',
    "zsh": 'Add to ~/.zshrc, below compinit:  eval "$(shoal completion zsh)"',
    "fish": "Run:  shoal completion fish > ~/.config/fish/completions/shoal.fish",
}


@click.command(cls=Command)
@click.argument("interface", required=False, type=click.Choice(known.interfaces()))
@as_json
@click.pass_context
def plugins(ctx: click.Context, interface: str | None, as_json: bool) -> None:
    """Show the plugins of every interface, what those that lack something need, and promises."""
    interfaces = [interface] if interface else known.interfaces()
    found = [_plugin(one, name) for one in interfaces for name in known.names(one)]
    if as_json:
        _output.print_json(found)
        return
    rows = [(p["interface"], p["name"], p["from"], p["problem"] or "installed") for p in found]
    _output.print_table(("interface", "name", "from", "state"), rows)
    promises = {p["name"]: p["guarantees"] for p in found if "guarantees" in p}
    if promises:
        _output.say("")
        columns = [field.name.replace("_", " ") for field in dataclasses.fields(Guarantees)]
        cells = [(name, *map(_cell, one.values())) for name, one in promises.items()]
        _output.print_table(("broker", *columns), cells)


def _cell(promise: object) -> str:
    if isinstance(promise, bool):
        return "yes" if promise else "no"
    return str(promise)


def _plugin(interface: str, name: str) -> dict[str, Any]:
    outside = {
        point.name: point.dist.name if point.dist else "an outside package"
        for point in entry_points(group=f"shoal.{interface}")
    }
    problem, built_in = "", name not in outside
    guarantees = None
    try:
        kind = known.load(interface, name)
        module: str = kind.__module__
        if promised := getattr(kind, "guarantees", None):
            guarantees = dataclasses.asdict(promised)
        built_in = built_in or module.startswith("shoal.")
    except Exception as error:  # an outsider's module may fail in any way
        problem = str(error) or type(error).__name__
    return {
        "interface": interface,
        "name": name,
        "from": "built in" if built_in else outside[name],
        "installed": not problem,
        "problem": problem,
        **({"guarantees": guarantees} if guarantees else {}),
    }


@click.command(cls=Command)
@as_json
@click.pass_context
def version(ctx: click.Context, as_json: bool) -> None:
    """Show the versions of Shoal, Python and the libraries beneath."""
    versions = {
        "shoal": shoal_version(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        **{name: _version(name) for name in _PACKAGES},
    }
    if as_json:
        _output.print_json(versions)
        return
    for name, text in versions.items():
        _output.say(f"{name:<10} {text}")


def shoal_version() -> str:
    """Return the version that is installed."""
    return _version("shoal", "from source")


def _version(name: str, otherwise: str = "not installed") -> str:
    try:
        return package_version(name)
    except PackageNotFoundError:
        return otherwise


@click.command(cls=Command)
@click.argument("shell", type=click.Choice(list(_SHELLS)))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the script that completes commands, services, endpoints and topics in a shell."""
    from click.shell_completion import ShellComplete, get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None  # click has all three
    # Not kind's own source(): for bash it starts one to ask for its version.
    script = ShellComplete.source(kind(ctx.find_root().command, {}, "shoal", "_SHOAL_COMPLETE"))
    click.echo(f"# {_SHELLS[shell]}\n{script}")
