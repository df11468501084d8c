"""Real servers for tests: found or installed, started on free loopback ports, stopped again."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import functools
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from abc import abstractmethod
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

import pytest

BIN = Path(__file__).resolve().parents[2] / ".cache" / "servers" / "bin"
DEADLINE = 60.0  # seconds for a server to be ready, or to end
_BUILD_SECONDS = 1200
_PORTS = 12_000, 32_000  # below those that Linux and macOS give out

T = TypeVar("T")

Note = Callable[[str, object], None]
"""pytest's `record_property`: what tests of outages counted, for `--junitxml`."""


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
    """Or the Go module it is built from; `go/<binary>/go.mod` requires it in a version."""
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
        end = time.monotonic() + 5
        while self._process is not None and _runs(self._process.pid) and time.monotonic() < end:
            time.sleep(0.001)  # it stops a little later

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
        raise MissingServer(f"{program} is not on this machine: python -m tests.servers")
    return path


def need(kind: type[Server]) -> None:
    """Skip the test by name if a server is missing; with CI=true that is a failure.

    What comes as a Go module is built now, once. SHOAL_SERVERS=no leaves all servers out, for a
    quick run or a second Python.
    """
    if os.environ.get("SHOAL_SERVERS") == "no":
        pytest.skip(f"{kind.binary} is left out: SHOAL_SERVERS=no")
    why = _missing(kind)  # type: ignore[arg-type]  # mypy sees the hash of its objects
    if why and os.environ.get("CI") == "true":
        raise MissingServer(why)
    if why:
        pytest.skip(why)


@functools.cache
def _missing(kind: type[Server]) -> str:
    """Return why a server cannot be had, or nothing when it can."""
    try:
        build(kind)
        find(kind.binary)
    except MissingServer as error:
        return str(error)
    return ""


def free_ports(count: int) -> list[int]:
    """Return ports nobody listens at now, and that no system gives out by itself.

    So nobody takes one by chance while its server is down.
    """
    sockets: list[socket.socket] = []
    with contextlib.ExitStack() as stack:
        while len(sockets) < count:
            one = stack.enter_context(socket.socket())
            with contextlib.suppress(OSError):  # somebody has it
                one.bind(("127.0.0.1", random.randrange(*_PORTS)))
                sockets.append(one)
        return [one.getsockname()[1] for one in sockets]


def _runs(pid: int) -> bool:
    """Tell whether a thread of a process is not stopped yet, where the system tells that."""
    states = [Path(f"/proc/{pid}/task/{one}/stat") for one in _listed(f"/proc/{pid}/task")]
    with contextlib.suppress(OSError):
        return any(one.read_text().rpartition(")")[2].split()[0] not in "TtZ" for one in states)
    return False


def _listed(folder: str) -> list[str]:
    with contextlib.suppress(OSError):
        return os.listdir(folder)
    return []


def bindable(port: int) -> bool:
    """Tell whether a server could listen at a loopback port."""
    with socket.socket() as one, contextlib.suppress(OSError):
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.bind(("127.0.0.1", port))
        return True
    return False


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


def install(kinds: Sequence[type[Server]]) -> None:
    """Install what is missing as Debian packages, where this user may."""
    packages = [kind.package for kind in kinds if kind.package and not _there(kind)]
    if packages and shutil.which("apt-get") and os.geteuid() == 0:
        print(f"--- installing {' '.join(packages)}")
        # Installing a server must not start it.
        env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
        command = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages]
        subprocess.run(["apt-get", "update", "-qq"], check=True, env=env)
        subprocess.run(command, check=True, env=env, stdout=subprocess.DEVNULL)
    for kind in kinds:
        if kind.package and not _there(kind):
            print(f"--- {kind.binary} is not here: install Debian's {kind.package} or the like")


def build(kind: type[Server]) -> None:
    """Build a server that is a Go module and is not there; raises MissingServer."""
    if not kind.module or _there(kind) or shutil.which("go") is None:
        return
    BIN.mkdir(parents=True, exist_ok=True)
    with (BIN / f"{kind.binary}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # parallel test workers wait for the first one's build
        if not _there(kind):
            _build(kind)


def _there(kind: type[Server]) -> bool:
    try:
        find(kind.binary)
    except MissingServer:
        return False
    return True


def _build(kind: type[Server]) -> None:
    # In a copy and with -mod=mod: Go writes there the checksums it has verified.
    with tempfile.TemporaryDirectory(dir=BIN) as copy:
        shutil.copytree(Path(__file__).parent / "go" / kind.binary, copy, dirs_exist_ok=True)
        # Niced, since other tests run meanwhile.
        command = ["nice", "go", "build", "-mod=mod", "-trimpath", "-buildvcs=false"]
        command += ["-ldflags=-s -w", "-o", "built", kind.module]
        try:
            done = subprocess.run(
                command, cwd=copy, capture_output=True, text=True, timeout=_BUILD_SECONDS
            )
        except subprocess.TimeoutExpired:
            raise MissingServer(f"{kind.binary} was not built in {_BUILD_SECONDS} s") from None
        if done.returncode:
            raise MissingServer(f"{kind.binary} cannot be built: {done.stderr[-1000:]}")
        os.replace(Path(copy, "built"), BIN / kind.binary)
