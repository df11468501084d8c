"""processes: real programs that a proof starts, signals, and surely ends."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import tempfile
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self, Unpack

import shoal
from bench.reliability._service import DOMAIN, private_registry
from shoal.client import Client
from shoal.options import Settings

ROOT = Path(__file__).resolve().parents[2]
START = 60.0  # seconds a program may take to start or end on a busy machine


class Ended(Exception):
    """A program ended, or said nothing, where it should have gone on; with its last words."""


class Process:
    """A program that prints one line of JSON when it is ready, and may print more.

    `ready` is that first line. Its standard input stays open until it is killed.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self.command = list(command)
        self.environment = dict(environment)
        self.ready: dict[str, Any] = {}
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  (closed by kill())
        self._process: asyncio.subprocess.Process | None = None

    def __repr__(self) -> str:
        return f"Process({' '.join(self.command)!r}, pid={self.pid}, status={self.status})"

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None
        return self._process.pid

    @property
    def status(self) -> int | None:
        """Its exit status, None while it runs."""
        return None if self._process is None else self._process.returncode

    @property
    def address(self) -> str:
        """Where it serves, as `host:port`, if it said so."""
        return str(self.ready["address"])

    async def start(self) -> Self:
        """Start it and wait until it is ready; raises Ended."""
        self._process = await asyncio.create_subprocess_exec(
            *self.command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=self._log,
            cwd=ROOT,
            env=self.environment,
            limit=64 << 20,
            start_new_session=True,
        )
        try:
            self.ready = await self.line()
        except BaseException:
            await self.kill()
            raise
        return self

    async def line(self, timeout: float = START) -> Any:
        """Return the next line it prints, read as JSON; raises Ended."""
        assert self._process is not None
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(timeout):
                line = await self._process.stdout.readline()
                if not line:
                    await self._process.wait()
        except TimeoutError:
            raise Ended(f"{self!r} said nothing for {timeout:g} s\n{self.log()}") from None
        if not line:
            raise Ended(f"{self!r} ended\n{self.log()}")
        return json.loads(line)

    async def say(self, word: Any) -> None:
        """Send it a line of JSON."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(word).encode() + b"\n")
        await self._process.stdin.drain()

    async def ask(self, word: Any, timeout: float = START) -> Any:
        """Send it a line of JSON and return the next one it prints."""
        await self.say(word)
        return await self.line(timeout)

    def log(self, size: int = 4000) -> str:
        """Return the last it wrote to standard error."""
        if self._log.closed:
            return ""
        end = os.lseek(self._log.fileno(), 0, os.SEEK_END)  # shared with the child: it is there
        return os.pread(self._log.fileno(), size, max(end - size, 0)).decode(errors="replace")

    def signal(self, number: signal.Signals) -> None:
        """Send it, and what it started, a signal."""
        if self._process is not None and self._process.returncode is None:
            try:
                os.killpg(self._process.pid, number)
            except ProcessLookupError:
                return

    def freeze(self) -> None:
        """Stop it without a word: connections stay, nothing is answered."""
        self.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self.signal(signal.SIGCONT)

    def terminate(self) -> None:
        """Ask it to end, as an operator does; `wait` tells when it has."""
        self.signal(signal.SIGTERM)

    async def wait(self, timeout: float = START) -> int:
        """Wait for its end and return its exit status; raises Ended."""
        assert self._process is not None
        try:
            async with asyncio.timeout(timeout):
                return await self._process.wait()
        except TimeoutError:
            raise Ended(f"{self!r} did not end within {timeout:g} s\n{self.log()}") from None

    async def stop(self, timeout: float = START) -> int:
        """Ask it to end and wait; returns the exit status."""
        self.terminate()
        return await self.wait(timeout)

    async def kill(self) -> None:
        """End it as a crash would. Without effect on one that has ended."""
        self.signal(signal.SIGKILL)
        if self._process is not None:
            await self._process.wait()

    def forget(self) -> None:
        """Give up its log."""
        self._log.close()


class Fleet:
    """Processes that find each other and nobody else; left, it has ended all of them.

    Discovery is mdns in a domain of the fleet's own, unless a program is told otherwise.
    """

    def __init__(self) -> None:
        self.domain = f"proof{uuid.uuid4().hex[:8]}"
        self.processes: list[Process] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        for process in self.processes:
            await process.kill()
            process.forget()

    def environment(self, **more: str) -> dict[str, str]:
        """Return the environment a child gets: this one's, without settings meant for others."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith("MICRO_")}
        path = os.pathsep.join(filter(None, (str(ROOT), kept.get("PYTHONPATH", ""))))
        # Buffered: a line and its end are one write then, also where several share the output.
        return {**kept, DOMAIN: self.domain, "PYTHONPATH": path, "PYTHONUNBUFFERED": "", **more}

    async def command(self, *command: str, **environment: str) -> Process:
        """Start any program that prints a line of JSON when it is ready."""
        process = Process(command, self.environment(**environment))
        self.processes.append(process)
        return await process.start()

    async def start(self, module: str, *words: str, **environment: str) -> Process:
        """Start a module of Python, as `python -m module words`."""
        return await self.command(sys.executable, "-m", module, *words, **environment)

    async def service(self, name: str = "proof", *flags: str, **environment: str) -> Process:
        """Start `_service.py` under a name; flags are a service's, `--server_grace=1` say."""
        return await self.start("bench.reliability._service", name, *flags, **environment)

    async def caller(self, service: str = "proof", **environment: str) -> Process:
        """Start `_caller.py`: a client in a process of its own that is told what to call."""
        return await self.start("bench.reliability._caller", service, **environment)

    @asynccontextmanager
    async def connect(self, **settings: Unpack[Settings]) -> AsyncIterator[Client]:
        """Give a client in this process that finds the fleet's services."""
        registry = None if "registry" in settings else private_registry(self.domain)
        if registry is not None:
            settings["registry"] = registry
        try:
            async with shoal.connect(**settings) as client:
                yield client
        finally:
            if registry is not None:
                await registry.close()


async def until(holds: Any, what: str, *, timeout: float = START, pause: float = 0.02) -> float:
    """Wait until a function (plain or async) returns something true; return the seconds it took.

    Raises Ended naming `what` after `timeout` seconds.
    """
    loop = asyncio.get_running_loop()
    started = loop.time()
    while True:
        found = holds()
        if asyncio.iscoroutine(found):
            found = await found
        if found:
            return loop.time() - started
        if loop.time() - started > timeout:
            raise Ended(f"not within {timeout:g} s: {what}")
        await asyncio.sleep(pause)


def free_port() -> int:
    """Return a loopback port nobody listens at now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


async def page(address: str, path: str, timeout: float = 10.0) -> tuple[int, str]:
    """Get a page over HTTP as a probe does: its status and body; 0 if nobody answers in time."""
    try:
        async with asyncio.timeout(timeout):
            reader, writer = await asyncio.open_connection(*address.rsplit(":", 1))
            try:
                writer.write(f"GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n".encode())
                answer = await reader.read()
            finally:
                writer.close()
    except (OSError, TimeoutError) as error:
        return 0, str(error)
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), body.decode(errors="replace")
