"""Fixtures of the command line's tests: a service in a process of its own, and ways to run it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from shoal.cli import cli

ROOT = Path(__file__).parents[2]
PROGRAM = textwrap.dedent(
    '''
    import asyncio
    import sys
    from collections.abc import AsyncIterator
    from dataclasses import dataclass, field
    from typing import Any

    import msgspec

    import shoal


    @dataclass
    class Hello:
        name: str = ""
        seconds: float = 0.0


    @dataclass
    class Count:
        n: int = 0


    class Greeter:
        async def hello(self, request: Hello) -> dict[str, Any]:
            """Greet somebody by name."""
            print("asked by", request.name, flush=True)
            await asyncio.sleep(request.seconds)
            if not request.name:
                raise shoal.BadRequest("a name is needed")
            return {"greeting": f"Hello {request.name}"}

        async def echo(self, request: msgspec.Raw) -> msgspec.Raw:
            return msgspec.Raw(bytes(request))

        async def meta(self, request: Count) -> dict[str, str]:
            return dict(shoal.metadata())

        async def count(self, request: Count) -> AsyncIterator[Count]:
            """Count up."""
            for number in range(request.n):
                yield Count(number)

        async def sum(self, requests: AsyncIterator[Count]) -> AsyncIterator[Count]:
            """Tell the sum so far."""
            total = 0
            async for request in requests:
                total += request.n
                yield Count(total)


    async def heard(event: Count) -> None:
        """Take an event."""


    service = shoal.Service("greeter", address="127.0.0.1:0")
    service.init()
    service.handle(Greeter())
    service.subscribe("counts", heard)
    service.run()
    '''
)


class Running:
    """A process whose output is read line by line."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []
        self._news = threading.Condition()
        self._ended = False
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def expect(self, pattern: str) -> re.Match[str]:
        """Wait for a line in which the pattern is found."""

        def search() -> re.Match[str] | None:
            return next(filter(None, (re.search(pattern, line) for line in self.lines)), None)

        with self._news:
            self._news.wait_for(lambda: search() or self._ended, timeout=30)
            found = search()
        assert found, f"no {pattern!r} in {self.lines}"
        return found

    def end(self, number: int) -> int:
        """Send a signal and return the exit code."""
        self.process.send_signal(number)
        return self.process.wait(30)

    def close(self) -> None:
        """Leave no process behind."""
        self.process.kill()
        self.process.wait(30)
        self._reader.join(30)

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                with self._news:
                    self.lines.append(line.rstrip("\n"))
                    self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()


@dataclass(frozen=True)
class Greeter:
    """A service that runs: its name, unique on this network, and where it is."""

    name: str
    address: str
    run: Running
    record: Path
    """What is registered, as a file."""

    @property
    def flags(self) -> list[str]:
        """The flags by which a command finds this service and no other."""
        return ["--registry", "static", "--registry-address", str(self.record)]


def environment() -> dict[str, str]:
    """Return an environment in which this repository's package is found."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MICRO_")}
    return {**clean, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}


@contextmanager
def running(*command: str, cwd: Path | None = None, stdin: int | None = None) -> Iterator[Running]:
    """Run a Python program for the block; its stderr is among its lines."""
    process = subprocess.Popen(
        [sys.executable, *command],
        cwd=cwd,
        env=environment(),
        stdin=subprocess.DEVNULL if stdin is None else stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    run = Running(process)
    try:
        yield run
    finally:
        run.close()


def shoal_process(
    *arguments: str, stdin: str = "", **more: str
) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "shoal", *arguments],
        env={**environment(), **more},
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of the service the tests run."""
    path = tmp_path_factory.mktemp("program") / "greeter.py"
    path.write_text(PROGRAM)
    return path


@pytest.fixture(scope="session")
def greeter(program: Path) -> Iterator[Greeter]:
    """A service in another process, found by mdns."""
    name = f"cli-{uuid.uuid4().hex[:10]}"
    with running(str(program), "--server_name", name, "--server_metadata", "zone=b") as run:
        found = run.expect(r"Others reach it at (\S+:\d+)")
        record = program.parent / "greeter.json"
        record.write_text(shoal_process("describe", name, "--json").stdout)
        yield Greeter(name, found[1], run, record)


Invoke = Callable[..., Result]


@pytest.fixture
def invoke(monkeypatch: pytest.MonkeyPatch) -> Invoke:
    """Run the command in this process, without this process's `MICRO_*`."""
    for name in os.environ:
        if name.startswith("MICRO_"):
            monkeypatch.delenv(name)

    def run(*arguments: str, stdin: str | bytes = "", **environ: str) -> Result:
        return CliRunner().invoke(
            cli, arguments, input=stdin, env=environ, prog_name="shoal", catch_exceptions=False
        )

    return run


@pytest.fixture
def call(invoke: Invoke, greeter: Greeter) -> Invoke:
    """Run a command with the flags by which it finds the service."""
    return lambda *arguments, **more: invoke(*greeter.flags, *arguments, **more)
