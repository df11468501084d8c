"""Real servers for tests: found or installed, started on free loopback ports, stopped again."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from abc import abstractmethod
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

import pytest

BIN = Path(__file__).resolve().parents[2] / ".cache" / "servers" / "bin"
DEADLINE = 60.0  # seconds for a server to be ready, or to end

T = TypeVar("T")


class MissingServer(Exception):
    """The program of a server is not on this machine."""


class Server:
    """One server process in a folder of its own; a subclass says how it is started.

    Use it as an async context manager. The ports stay the same when it is started again.
    """

    binary: ClassVar[str]
    package: ClassVar[str] = ""
    """The Debian package that brings it."""
    module: ClassVar[str] = ""
    """Or the Go module, with its version, that `go install` builds it from."""
    requirement: ClassVar[str] = ""
    """Or the folder with a go.mod that requires the module, where `go install` refuses it."""
    ports: ClassVar[int] = 1

    def __init__(self, *flags: str) -> None:
        self.flags = flags
        self.folder = Path()
        self.port, *self.more_ports = free_ports(self.ports)
        self._process: asyncio.subprocess.Process | None = None
        self._temporary: tempfile.TemporaryDirectory[str] | None = None

    @property
    def address(self) -> str:
        """Where it listens, as `host:port`."""
        return f"127.0.0.1:{self.port}"

    @abstractmethod
    def command(self) -> list[str]:
        """Return the words that start it, the program without its folder first."""

    @abstractmethod
    async def ready(self) -> bool:
        """Tell whether it answers; may raise OSError while it does not."""

    def environment(self) -> dict[str, str]:
        """Return variables to start it with."""
        return {}

    async def start(self) -> None:
        """Start it and wait until it answers."""
        program, *words = self.command()
        with (self.folder / "log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                find(program),
                *words,
                *self.flags,
                cwd=self.folder,
                env={**os.environ, **self.environment()},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            async with asyncio.timeout(DEADLINE):
                while not await self._answers():
                    if self._process.returncode is not None:
                        raise RuntimeError(f"{program} ended:\n{self.log()[-2000:]}")
                    await asyncio.sleep(0.05)
        except BaseException:
            await self.kill()
            raise

    async def _answers(self) -> bool:
        try:
            async with asyncio.timeout(5):
                return await self.ready()
        except (OSError, TimeoutError):
            return False

    async def stop(self) -> None:
        """End it as an operator would."""
        await self._end(signal.SIGTERM)

    async def kill(self) -> None:
        """End it as a crash would."""
        await self._end(signal.SIGKILL)

    async def restart(self) -> None:
        """Stop it and start it on the same ports with the same data."""
        await self.stop()
        await self.start()

    def freeze(self) -> None:
        """Let it hang: connections stay, nothing is answered."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def log(self) -> str:
        """Return what it has printed."""
        return (self.folder / "log").read_text(errors="replace")

    async def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        self._signal(signal.SIGCONT)
        self._signal(number)
        try:
            await asyncio.wait_for(self._process.wait(), DEADLINE)
        except TimeoutError:
            self._signal(signal.SIGKILL)
            await self._process.wait()
        self._process = None

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            try:
                os.killpg(self._process.pid, number)
            except ProcessLookupError:
                return

    async def __aenter__(self) -> Self:
        self._temporary = tempfile.TemporaryDirectory(
            prefix=f"shoal-{self.binary}-", ignore_cleanup_errors=True
        )
        self.folder = Path(self._temporary.name)
        try:
            await self.start()
        except BaseException:
            self._temporary.cleanup()
            raise
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.kill()
        assert self._temporary is not None
        self._temporary.cleanup()


def find(program: str) -> str:
    """Return the path of a program; raises MissingServer."""
    places = os.pathsep.join((str(BIN), os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))
    path = shutil.which(program, path=places)
    if path is None:
        raise MissingServer(f"{program} is not on this machine: make servers")
    return path


def need(kind: type[Server]) -> None:
    """Skip the test by name if a server is missing; with CI=true that is a failure.

    SHOAL_SERVERS=no leaves all of them out, for a quick run or a second Python.
    """
    if os.environ.get("SHOAL_SERVERS") == "no":
        pytest.skip(f"{kind.binary} is left out: SHOAL_SERVERS=no")
    try:
        find(kind.binary)
    except MissingServer as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(error))


def free_ports(count: int) -> list[int]:
    """Return ports nobody listens at now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


async def listening(port: int) -> bool:
    """Tell whether somebody accepts connections at a loopback port."""
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.close()
    return True


class Background:
    """A server started once for all tests of a module, in an event loop of its own thread.

    Tests of their own loops share it: `Background(EtcdServer)` in a module-scoped fixture.
    """

    def __init__(self, server: Server) -> None:
        self.server = server
        self._runner = asyncio.Runner()

    def run(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run one of the server's methods (start, stop, restart, ...)."""
        return self._runner.run(work())

    def __enter__(self) -> Server:
        self._runner.__enter__()
        self._runner.run(self.server.__aenter__())
        return self.server

    def __exit__(self, *error: object) -> None:
        try:
            self._runner.run(self.server.__aexit__())
        finally:
            self._runner.__exit__(None, None, None)


def install(kinds: list[type[Server]]) -> int:
    """Install what is missing: Debian packages where this user may, Go modules into the cache."""
    missing = []
    for kind in kinds:
        try:
            find(kind.binary)
        except MissingServer:
            missing.append(kind)
    packages = [kind.package for kind in missing if kind.package]
    if packages and shutil.which("apt-get") and os.geteuid() == 0:
        print(f"--- installing {' '.join(packages)}")
        # Installing a server must not start it.
        env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
        subprocess.run(["apt-get", "update", "-qq"], check=True, env=env)
        subprocess.run(
            ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages],
            check=True,
            env=env,
            stdout=subprocess.DEVNULL,
        )
    for kind in missing:
        if kind.module and shutil.which("go"):
            print(f"--- building {kind.module}")
            BIN.mkdir(parents=True, exist_ok=True)
            _build(kind)
    for kind in missing:
        try:
            find(kind.binary)
        except MissingServer as error:
            print(f"--- {error} (Debian: {kind.package or 'none'})")
    return 0


def _build(kind: type[Server]) -> None:
    if not kind.requirement:
        env = {**os.environ, "GOBIN": str(BIN)}
        subprocess.run(["go", "install", kind.module], check=True, env=env)
        return
    with tempfile.TemporaryDirectory() as copy:  # Go writes the checksums it has verified
        shutil.copytree(Path(__file__).parent / kind.requirement, copy, dirs_exist_ok=True)
        built = Path(copy, "built")
        command = ["go", "build", "-mod=mod", "-trimpath", "-buildvcs=false", "-ldflags=-s -w"]
        command += ["-o", str(built), kind.module.partition("@")[0]]
        subprocess.run(command, check=True, cwd=copy)
        shutil.move(built, BIN / kind.binary)
