"""Module project holds the commands for the program one is writing: begin it, run it."""

from __future__ import annotations

import os
import sys
from importlib.machinery import PathFinder
from pathlib import Path

import click

from shoal._settings import BY_NAME
from shoal.cli import _output
from shoal.cli._command import Command, given
from shoal.cli._exits import USAGE, Failure
from shoal.cli.discovery import as_json

_EXPECTED = "name a file, a folder with __main__.py or a module"


@click.command(cls=Command)
@click.argument("name")
@click.option(
    "--directory",
    type=click.Path(path_type=Path),
    help="Where to write it; the last part of the name if not given.",
)
@as_json
@click.pass_context
def new(ctx: click.Context, name: str, directory: Path | None, as_json: bool) -> None:
    """Write the small project a service begins with."""
    from shoal.cli.new import NewError, create

    folder = directory or Path(name.rpartition(".")[2] or name)
    try:
        written = create(name, folder)
    except NewError as error:
        raise Failure(str(error), USAGE) from None
    if as_json:
        _output.print_json([str(path) for path in written])
        return
    for path in written:
        _output.say(str(path))
    _output.say(f"\nNext: cd {folder} and read README.md")


@click.command(cls=Command)
@click.argument("program", metavar="PATH|MODULE", type=click.Path())
@click.argument("arguments", nargs=-1, metavar="[-- ARGUMENTS]")
@click.option("--no-reload", is_flag=True, help="Do not start it again when a file changes.")
@click.option(
    "--watch",
    multiple=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Another folder whose changes count.",
)
@click.pass_context
def run(
    ctx: click.Context,
    program: str,
    arguments: tuple[str, ...],
    no_reload: bool,
    watch: tuple[Path, ...],
) -> None:
    """Run a service, and start it again whenever one of its .py files changes.

    It is a file (app.py), a folder with a __main__.py, or a module (package.module). Flags of
    services given here reach it as MICRO_* variables, arguments after -- as they are.
    """
    command, folder = _program(program)
    command += arguments
    environment = os.environ | {BY_NAME[name].env: text for name, text in given(ctx).items()}
    if no_reload:
        sys.stdout.flush()
        os.execve(command[0], command, environment)
    from shoal.cli._reload import run_reloading

    raise SystemExit(run_reloading(command, environment, [folder, *watch]))


def _program(program: str) -> tuple[list[str], Path]:
    """Return the command that runs a program, and the folder its files are in."""
    path = Path(program)
    if path.is_file():
        return [sys.executable, program], path.parent
    if path.is_dir():
        if not (path / "__main__.py").is_file():
            raise Failure(f"{program} has no __main__.py: {_EXPECTED}", USAGE)
        if not (path / "__init__.py").is_file() or not all(map(str.isidentifier, path.parts)):
            return [sys.executable, program], path
        program = ".".join(path.parts)  # a package imports itself by its name
    if program.endswith(".py") or not all(map(str.isidentifier, program.split("."))):
        raise Failure(f"{program} does not exist: {_EXPECTED}", USAGE)
    found = PathFinder.find_spec(program.partition(".")[0], [str(Path.cwd()), *sys.path])
    if found is None:
        raise Failure(f"there is neither a file nor a module {program!r} here", USAGE)
    places = found.submodule_search_locations
    folder = Path(next(iter(places))) if places else Path(found.origin or ".").parent
    return [sys.executable, "-m", program], folder
