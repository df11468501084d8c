"""command: what all benchmarks have: a command line, rounds over their peers, a file of results."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path

from bench import _process, _report

LOOPS = ("uvloop", "asyncio")


def parser(
    module: str, about: str | None, known: Sequence[str], *, rounds: int = 3
) -> argparse.ArgumentParser:
    """Makes the command line of a benchmark; `known` are the names that --only takes.

    In these `-` and `_` are the same.
    """
    spelled = {name.replace("-", "_"): name for name in known}

    def names(text: str) -> list[str]:
        chosen = [spelled.get(name.replace("-", "_"), name) for name in text.split(",")]
        unknown = sorted(set(chosen) - set(known))
        if unknown:
            raise argparse.ArgumentTypeError(
                f"no {', '.join(unknown)}; there are {', '.join(known)}"
            )
        return chosen

    made = argparse.ArgumentParser(prog=f"python -m {module}", description=about)
    made.add_argument("--json", type=Path, metavar="FILE", help="write the results here too")
    made.add_argument("--seconds", type=positive(float), default=2.0, help="for each figure (2)")
    made.add_argument(
        "--rounds", type=positive(int), default=rounds, help=f"rounds over all ({rounds})"
    )
    made.add_argument("--only", type=names, default=list(known), metavar="NAME,NAME")
    return made


def add_loop(to: argparse.ArgumentParser) -> None:
    """Adds the choice of an event loop, for a benchmark as for its peers."""
    to.add_argument("--loop", choices=LOOPS, default=LOOPS[0], help="of programs that have one")


def positive(number: Callable[[str], float]) -> Callable[[str], float]:
    """Makes a type for arguments that takes numbers over 0 alone."""

    def read(text: str) -> float:
        value = number(text)
        if value <= 0:
            raise argparse.ArgumentTypeError(f"must be positive, and is {text}")
        return value

    read.__name__ = number.__name__  # argparse calls it so where it takes nothing of the text
    return read


def turns(names: Iterable[str], rounds: int, measure: Callable[[str], None]) -> dict[str, str]:
    """Measures all in turn, round after round; returns the last words of those that crashed.

    So a busy minute hurts all of them. One that crashed is left out from then on.
    """
    failed: dict[str, str] = {}
    for number in range(rounds):
        for name in names:
            if name in failed:
                continue
            print(f"round {number + 1}: {name}", file=sys.stderr, flush=True)
            try:
                measure(name)
            except _process.Crashed as error:
                failed[name] = str(error)
                print(f"failed: {name}: {error}", flush=True)
    return failed


def installed(packages: Iterable[str]) -> dict[str, str]:
    """Returns the versions of distributions; raises `Unavailable` with what installs one."""
    try:
        return {package: metadata.version(package) for package in packages}
    except metadata.PackageNotFoundError as error:
        source = "." if error.name == "shoal" else "-r bench/requirements.txt"
        raise _process.Unavailable(f"pip install {source}") from error


def environment(arguments: argparse.Namespace, pinning: str, **more: object) -> dict[str, object]:
    """Describes the machine, and how the run was asked for."""
    asked = {name: value for name, value in vars(arguments).items() if name not in ("json", "only")}
    return {**_report.environment(), "pinning": pinning, **asked, **more}


def write(file: Path | None, result: Mapping[str, object]) -> None:
    """Writes the results, if there is a file to write them to."""
    if file is not None:
        file.write_text(json.dumps(result, indent=2) + "\n")
