"""Go Micro peers: small programs on published Go Micro releases, built once, run by the tests.

    async with peer("v6").serve(name="greeter-1") as greeter:
        reply = await peer("v1").call("greeter-1", "Greeter.Hello", {"name": "John"})
        event = await greeter.event("message")

Every wait has a deadline and every process is gone when its block or call ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import functools
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

VERSIONS = ("v6", "v5", "v2", "v1")
"""Go Micro v6.10, v5.30, v2.9 (its RPC client and server, not its gRPC ones) and v1.18."""

COMMANDS = {"v6": "micro6", "v5": "micro5"}
"""The command lines of Go Micro itself."""

Object = dict[str, Any]

_HERE = Path(__file__).resolve().parent
_SOURCES = _HERE / "go"
_CACHE = _HERE.parent.parent / ".cache" / "interop"
_BUILD_SECONDS = 600
_LINE_LIMIT = 32 * 1024 * 1024
_ARGUMENT_LIMIT = 100_000


class Unavailable(Exception):
    """A peer cannot be built on this machine; the text is one sentence that says why."""


class PeerFailed(Exception):
    """A peer ended, or stayed silent past its deadline, where it should have answered."""


@dataclass(frozen=True, slots=True)
class Peer:
    """One version of the peer program."""

    version: str

    def serve(
        self,
        name: str,
        *,
        version: str = "latest",
        address: str = "127.0.0.1:0",
        registry: str = "mdns",
        broker: str = "http",
        transport: str = "http",
        metadata: Mapping[str, str] | None = None,
        subscribe: str = "",
        queue: str = "",
        proto: bool = False,
        id: str = "",
    ) -> contextlib.AbstractAsyncContextManager[Running]:
        """Run a server until the block ends; when the block begins it is registered and answers."""
        flags = ["--name", name, "--version", version, "--address", address]
        flags += ["--registry", registry, "--broker", broker, "--transport", transport]
        flags += _pairs(metadata)
        flags += _given("--subscribe", subscribe) + _given("--queue", queue) + _given("--id", id)
        return self._running("serve", flags + ["--proto"] * proto)

    def subscribe(
        self, topic: str, *, queue: str = "", broker: str = "http"
    ) -> contextlib.AbstractAsyncContextManager[Running]:
        """Subscribe with the broker alone until the block ends; each event is a `message`."""
        flags = ["--topic", topic, "--broker", broker, *_given("--queue", queue)]
        return self._running("subscribe", flags)

    def watch(
        self, name: str = "", *, registry: str = "mdns"
    ) -> contextlib.AbstractAsyncContextManager[Running]:
        """Watch the registry until the block ends; each event is a `change`."""
        words = ["watch", *([name] if name else []), "--registry", registry]
        return self._running("registry", words)

    def hold(
        self,
        name: str,
        *,
        id: str,
        address: str,
        version: str = "latest",
        registry: str = "mdns",
        metadata: Mapping[str, str] | None = None,
    ) -> contextlib.AbstractAsyncContextManager[Running]:
        """Keep a node registered, whatever answers at its address, until the block ends."""
        flags = ["hold", name, "--id", id, "--address", address, "--version", version]
        flags += ["--registry", registry]
        return self._running("registry", flags + _pairs(metadata))

    async def call(
        self, service: str, endpoint: str, request: object = None, **options: Any
    ) -> Object:
        """Call once: `{"ok": true, "reply": ...}` or `{"ok": false, "error": {...}, "text": ...}`.

        Options: address, registry, transport, content_type, timeout, connection_timeout, retries,
        metadata, proto, and deadline, which is this function's own.
        """
        return (await self.calls(service, endpoint, request, **options))[-1]

    async def calls(
        self,
        service: str,
        endpoint: str,
        request: object = None,
        *,
        times: int = 1,
        parallel: int = 1,
        **options: Any,
    ) -> list[Object]:
        """Call several times in turn, from one process and so from one pool of connections.

        With `parallel` so many goroutines do that at once.
        """
        with _arguments(options, [("--json", request)]) as flags:
            where = ["--service", service, "--endpoint", endpoint, "--times", str(times)]
            where += ["--parallel", str(parallel)]
            return await self._lines("call", where + flags, options)

    async def stream(
        self,
        service: str,
        endpoint: str,
        sends: Sequence[object] = (),
        *,
        open: object = None,
        count: int = 1,
        close_after: int | None = None,
        abort_after: int | None = None,
        **options: Any,
    ) -> list[Object]:
        """Open a stream as Go's generated code does, send `sends` `count` times, return every line.

        Lines are `{"item": ...}`, then `{"end": true}` with `error` and `text` if it failed and
        `closed` if `close_after` closed it; `abort_after` ends the process there, without an end.
        Options: as for `call`, and send_every, stream_timeout.
        """
        with _arguments(
            options, [("--open", open), *(("--send", item) for item in sends)]
        ) as flags:
            flags += ["--service", service, "--endpoint", endpoint, "--count", str(count)]
            flags += _given("--close-after", close_after) + _given("--abort-after", abort_after)
            return await self._lines("stream", flags, options, codes=(0, 3))

    async def publish(
        self, topic: str, event: object = None, *, times: int = 1, **options: Any
    ) -> Object:
        """Publish; options: broker, content_type, metadata, proto, linger, deadline."""
        with _arguments(options, [("--json", event)]) as flags:
            flags += ["--topic", topic, "--times", str(times)]
            return (await self._lines("publish", flags, options))[-1]

    async def get(self, name: str, *, registry: str = "mdns", deadline: float = 15) -> list[Object]:
        """Return what the registry knows of a service, one object per version; empty if nothing."""
        words = ["get", name, "--registry", registry]
        answer = (await self._lines("registry", words, {"deadline": deadline}))[-1]
        return answer.get("services") or []

    async def services(self, *, registry: str = "mdns", deadline: float = 15) -> list[Object]:
        """Return what the registry lists."""
        words = ["list", "--registry", registry]
        answer = (await self._lines("registry", words, {"deadline": deadline}))[-1]
        return answer.get("services") or []

    async def program(self) -> Path:
        """Return the built program, building it if its sources changed; raises `Unavailable`."""
        return await asyncio.to_thread(build, self.version)

    @contextlib.asynccontextmanager
    async def _running(self, command: str, flags: Sequence[str]) -> AsyncIterator[Running]:
        running = await Running.start(await self.program(), command, *flags)
        try:
            running.ready = await running.event("ready", timeout=15)
            yield running
        finally:
            await running.stop()

    async def _lines(
        self,
        command: str,
        flags: Sequence[str],
        options: Mapping[str, Any],
        codes: Sequence[int] = (0,),
    ) -> list[Object]:
        running = await Running.start(await self.program(), command, *flags)
        try:
            lines = await running.rest(timeout=float(options.get("deadline", 60)))
            if running.code not in codes or not (lines or 3 in codes):
                raise PeerFailed(f"{running} ended with {running.code}: {lines}\n{running.log}")
            return lines
        finally:
            await running.stop()


def peer(version: str) -> Peer:
    """Return the peer of a Go Micro version: one of `VERSIONS`."""
    if version not in VERSIONS:
        raise ValueError(f"there is no peer {version!r}; there are {', '.join(VERSIONS)}")
    return Peer(version)


class Running:
    """A peer process and what it has said so far."""

    def __init__(self, process: asyncio.subprocess.Process, command: str) -> None:
        self.ready: Object = {}
        self._process = process
        self._command = command
        self._events: asyncio.Queue[Object | None] = asyncio.Queue()
        self._log: deque[str] = deque(maxlen=200)
        self._readers = [
            asyncio.create_task(self._read_events()),
            asyncio.create_task(self._read_log()),
        ]

    @classmethod
    async def start(cls, program: Path, command: str, *flags: str) -> Running:
        process = await asyncio.create_subprocess_exec(
            str(program),
            command,
            *flags,
            stdin=subprocess.PIPE,  # its end is what ends a peer whose parent was killed
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            limit=_LINE_LIMIT,
            env=_environment(),
        )
        return cls(process, " ".join((program.name, command, *(flag[:80] for flag in flags))))

    def __repr__(self) -> str:
        return f"<{self._command} pid={self._process.pid} code={self.code}>"

    @property
    def address(self) -> str:
        return str(self.ready.get("address", ""))

    @property
    def id(self) -> str:
        return str(self.ready.get("id", ""))

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def code(self) -> int | None:
        """The exit code; None while it runs."""
        return self._process.returncode

    @property
    def log(self) -> str:
        """The last lines of standard error."""
        return "\n".join(self._log)

    async def event(self, kind: str = "", *, timeout: float = 5) -> Object:
        """Return the next event, or the next of a kind (`message`, `change`, `cancelled`, ...)."""
        try:
            async with asyncio.timeout(timeout):
                while (event := await self._events.get()) is not None:
                    if not kind or event.get("event") == kind:
                        return event
                    if event.get("ok") is False:
                        raise PeerFailed(f"{self} failed: {event.get('text')}\n{self.log}")
        except TimeoutError:
            said = f"{self} said no {kind or 'event'} within {timeout} s\n{self.log}"
            raise PeerFailed(said) from None
        self._events.put_nowait(None)
        raise PeerFailed(f"{self} ended before it said {kind or 'anything'}\n{self.log}")

    async def quiet(self, kind: str = "message", *, seconds: float = 0.5) -> bool:
        """Return whether no event of a kind comes for a while; one that comes is taken."""
        try:
            await self.event(kind, timeout=seconds)
        except PeerFailed:
            return True
        return False

    async def __aiter__(self) -> AsyncIterator[Object]:
        while (event := await self._events.get()) is not None:
            yield event
        self._events.put_nowait(None)

    async def rest(self, *, timeout: float) -> list[Object]:
        """Return everything it says until it ends."""
        try:
            async with asyncio.timeout(timeout):
                lines = [event async for event in self]
                await self._process.wait()
                return lines
        except TimeoutError:
            raise PeerFailed(f"{self} did not end within {timeout} s\n{self.log}") from None

    async def stop(self, *, grace: float = 5) -> None:
        """End it as an operator would (SIGTERM), or by SIGKILL when it does not end in time."""
        try:
            self._signal(signal.SIGTERM)
            async with asyncio.timeout(grace):
                await self._process.wait()
        except TimeoutError:
            pass
        finally:
            await self.kill()

    async def kill(self) -> None:
        """End it without a chance to deregister or close."""
        self._signal(signal.SIGKILL)
        await self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()
        await asyncio.gather(*self._readers, return_exceptions=True)

    def _signal(self, number: signal.Signals) -> None:
        if self.code is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def _read_events(self) -> None:
        assert self._process.stdout is not None
        try:
            while line := await self._process.stdout.readline():
                self._events.put_nowait(json.loads(line))
        finally:
            self._events.put_nowait(None)

    async def _read_log(self) -> None:
        assert self._process.stderr is not None
        while line := await self._process.stderr.readline():
            self._log.append(line.decode(errors="replace").rstrip())


@functools.cache
def unavailable(what: str) -> str:
    """Return why a program cannot be built here, or nothing when it can: for skips."""
    try:
        build(what)
    except Unavailable as error:
        return str(error)
    return ""


def build(what: str) -> Path:
    """Build a peer or a command of `COMMANDS`, unless it is built already.

    A program built elsewhere is taken instead if `SHOAL_PEER_<NAME>` names it: `SHOAL_PEER_V6`,
    `SHOAL_PEER_MICRO6`.
    """
    if given := os.environ.get(f"SHOAL_PEER_{what.upper()}"):
        return Path(given)
    folders = [what] if what in COMMANDS.values() else [what, "peer", "absent"]
    program = _CACHE / f"{what}-{_fingerprint(folders)}"
    _CACHE.mkdir(parents=True, exist_ok=True)
    with (_CACHE / f"{what}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # parallel test workers wait for the first one's build
        if not program.exists():
            _build(what, folders, program)
    return program


def _build(what: str, folders: Sequence[str], program: Path) -> None:
    if shutil.which("go") is None:
        raise Unavailable(
            f"The Go peer {what} cannot be built: Go (1.26 or newer) is not installed."
        )
    with tempfile.TemporaryDirectory(dir=_CACHE) as copy:
        for folder in folders:
            shutil.copytree(_SOURCES / folder, Path(copy) / folder)
        # In a copy and with -mod=mod: Go adds the checksum of a module that go.sum does not list,
        # once it has verified it, and never changes the files of the repository.
        built = Path(copy) / "built"
        command = ["go", "build", "-mod=mod", "-trimpath", "-buildvcs=false", "-o", str(built)]
        sources = {name: f"go-micro.dev/{version}/cmd/micro" for version, name in COMMANDS.items()}
        command.append(sources.get(what, "."))
        try:
            done = subprocess.run(
                command,
                cwd=Path(copy) / what,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                timeout=_BUILD_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            slow = f"The Go peer {what} was not built within {_BUILD_SECONDS} s."
            raise Unavailable(slow) from None
        if done.returncode:
            lines = [re.sub(r"^\S+\.go:[\d:]+ ", "", line) for line in done.stdout.splitlines()]
            lines = [line for line in dict.fromkeys(lines) if ": downloading " not in line]
            raise Unavailable(f"The Go peer {what} cannot be built: " + "\n".join(lines[-15:]))
        for old in _CACHE.glob(f"{what}-*"):
            old.unlink()
        os.replace(built, program)


def _fingerprint(folders: Sequence[str]) -> str:
    digest = hashlib.sha256()
    for folder in folders:
        for path in sorted((_SOURCES / folder).rglob("*")):
            if path.is_file():
                digest.update(f"{path.relative_to(_SOURCES)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def _environment() -> dict[str, str]:
    """Return the environment without what would configure Go Micro or add a proxy."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("MICRO_") and not name.lower().endswith("_proxy")
    }


def _pairs(metadata: Mapping[str, str] | None) -> list[str]:
    pairs = (metadata or {}).items()
    return [part for key, value in pairs for part in ("--metadata", f"{key}={value}")]


def _given(flag: str, value: object) -> list[str]:
    return [] if value is None or value == "" else [flag, str(value)]


@contextlib.contextmanager
def _arguments(
    options: Mapping[str, Any], bodies: Sequence[tuple[str, object]]
) -> Iterator[list[str]]:
    """Turn options and JSON bodies into flags; long bodies go through files."""
    unknown = options.keys() - _FLAGS.keys() - {"metadata", "proto", "deadline"}
    if unknown:
        raise TypeError(f"a peer takes no {', '.join(sorted(unknown))}")
    flags = _pairs(options.get("metadata")) + ["--proto"] * bool(options.get("proto"))
    for name, flag in _FLAGS.items():
        value = options.get(name)
        if name in _DURATIONS and isinstance(value, (int, float)):
            value = f"{value}s"
        flags += _given(flag, value)
    with contextlib.ExitStack() as files:
        for flag, body in bodies:
            text = json.dumps({} if body is None else body)
            if len(text) > _ARGUMENT_LIMIT:
                file = files.enter_context(tempfile.NamedTemporaryFile("w", suffix=".json"))
                file.write(text)
                file.flush()
                text = f"@{file.name}"
            flags += [flag, text]
        yield flags


_DURATIONS = frozenset({"timeout", "connection_timeout", "stream_timeout", "send_every", "linger"})
_FLAGS: Mapping[str, str] = {
    name: "--" + name.replace("_", "-")
    for name in (
        *sorted(_DURATIONS),
        "address",
        "registry",
        "broker",
        "transport",
        "content_type",
        "retries",
    )
}
