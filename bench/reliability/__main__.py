"""reliability: `python -m bench.reliability` proves the promises and prints what was measured."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import os
import pkgutil
import re
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import bench.reliability as package
from bench.reliability import OFF, Report, _page

DEADLINE = 1800.0  # seconds for one promise at scale 1


def main() -> int:
    """Run what is asked for; the exit status is 1 if a promise is not kept.

    With --without it is 1 if one is kept though its mechanism is off.
    """
    arguments = parse()
    failed: list[int] = []
    for number, module in sorted(promises().items()):
        if arguments.only and number not in arguments.only:
            continue
        mode = " without its mechanism" if arguments.without else ""
        print(f"promise {number}{mode}: {module.TITLE}", flush=True)
        report = Report(number, arguments.scale, arguments.without)
        begun = time.perf_counter()
        run(report, module)
        seconds = time.perf_counter() - begun
        kept = report.passed
        only_skipped = not report.checks and bool(report.skipped)
        print(f"  {'kept' if kept else 'NOT KEPT'} ({seconds:.1f} s)", flush=True)
        if kept == arguments.without and not only_skipped:
            failed.append(number)
        if arguments.json is not None:
            _page.record(arguments.json, module, report, seconds)
    if arguments.page is not None:
        _page.write(arguments.json, arguments.page)
    for number in failed:
        done = "was kept though its mechanism was off" if arguments.without else "was not kept"
        print(f"promise {number} {done}", file=sys.stderr)
    return 1 if failed else 0


def parse() -> argparse.Namespace:
    """Read the command line."""

    def numbers(text: str) -> list[int]:
        return [int(word) for word in text.split(",")]

    parser = argparse.ArgumentParser(prog="python -m bench.reliability", description=__doc__)
    parser.add_argument("--only", type=numbers, metavar="N,N", help="these promises (all)")
    parser.add_argument("--scale", type=float, default=1.0, help="how big the run is (1)")
    parser.add_argument("--without", action="store_true", help="with each mechanism off")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the results in a file")
    parser.add_argument("--page", type=Path, metavar="FILE", help="and make this page of it")
    arguments = parser.parse_args()
    if arguments.page is not None and arguments.json is None:
        parser.error("--page is made of what --json keeps")
    return arguments


def promises() -> dict[int, ModuleType]:
    """Return the modules of the promises by number."""
    found = {}
    for info in pkgutil.iter_modules(package.__path__):
        match = re.fullmatch(r"promise_(\d\d)_\w+", info.name)
        if match:
            found[int(match[1])] = importlib.import_module(f"{package.__name__}.{info.name}")
    return found


def run(report: Report, module: ModuleType) -> None:
    """Run one proof; what it raises is a promise not kept."""
    if report.without:
        os.environ[OFF] = str(report.number)
    else:
        os.environ.pop(OFF, None)
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(_prove(report, module))
    except Exception as error:
        traceback.print_exc()
        lines = str(error).splitlines() or [""]
        report.check(f"errors of the proof ({type(error).__name__}: {lines[0]})", 1, 0, "")
    finally:
        os.environ.pop(OFF, None)


async def _prove(report: Report, module: ModuleType) -> None:
    async with asyncio.timeout(DEADLINE * max(report.scale, 0.1)):
        await module.prove(report, report.scale)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


if __name__ == "__main__":
    sys.exit(main())
