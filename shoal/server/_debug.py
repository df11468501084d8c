"""Module _debug is the handler every service serves for tools: health, statistics, log, trace.

Endpoints and shapes are Go Micro's (debug/service/handler and its proto, v1.18 to v6).
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import threading
import time
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shoal.server.rpc import RpcServer

KEPT = 1024  # log lines that can be asked for
SPANS = 256  # requests that can be asked for


def _tag(number: int) -> dict[str, object]:
    """Give a field its number in the protobuf form of the message."""
    return {"proto": number}


def _uint64(number: int) -> dict[str, object]:
    return {"proto": number, "as": "uint64"}


@dataclass
class HealthRequest:
    service: str = field(default="", metadata=_tag(1))


@dataclass
class HealthResponse:
    status: str = field(default="", metadata=_tag(1))


@dataclass
class StatsRequest:
    service: str = field(default="", metadata=_tag(1))
    state: bool = field(default=False, metadata=_tag(2))
    """Whether to tell the state too: Go's JSON refuses fields it does not know."""


@dataclass
class StatsResponse:
    timestamp: int = field(default=0, metadata=_uint64(1))
    """Unix seconds, as `started`."""
    started: int = field(default=0, metadata=_uint64(2))
    uptime: int = field(default=0, metadata=_uint64(3))
    """Seconds."""
    memory: int = field(default=0, metadata=_uint64(4))
    """Resident bytes."""
    threads: int = field(default=0, metadata=_uint64(5))
    gc: int = field(default=0, metadata=_uint64(6))
    """Go's nanoseconds in collection; Python does not measure them, so the collections."""
    requests: int = field(default=0, metadata=_uint64(7))
    errors: int = field(default=0, metadata=_uint64(8))


@dataclass
class StateResponse(StatsResponse):
    """What is asked for with `state`: Shoal's own addition to Go Micro's message."""

    ready: str = field(default="", metadata=_tag(9))
    """`ready`, or the reasons why not."""
    state: dict[str, str] = field(default_factory=dict[str, str], metadata=_tag(10))
    """Numbers of balancer, breakers, budget, pool, registration and the server itself."""


@dataclass
class LogRequest:
    service: str = field(default="", metadata=_tag(1))
    stream: bool = field(default=False, metadata=_tag(2))
    """Whether to go on with what is logged from now on."""
    count: int = field(default=0, metadata=_tag(3))
    """The last so many lines; 0 is all that are kept."""
    since: int = field(default=0, metadata=_tag(4))
    """Unix seconds."""


@dataclass
class Record:
    timestamp: int = field(default=0, metadata=_tag(1))
    metadata: dict[str, str] = field(default_factory=dict[str, str], metadata=_tag(2))
    message: str = field(default="", metadata=_tag(3))


@dataclass
class TraceRequest:
    id: str = field(default="", metadata=_tag(1))


@dataclass
class Span:
    trace: str = field(default="", metadata=_tag(1))
    id: str = field(default="", metadata=_tag(2))
    parent: str = field(default="", metadata=_tag(3))
    name: str = field(default="", metadata=_tag(4))
    started: int = field(default=0, metadata=_uint64(5))
    """Unix nanoseconds."""
    duration: int = field(default=0, metadata=_uint64(6))
    """Nanoseconds."""
    metadata: dict[str, str] = field(default_factory=dict[str, str], metadata=_tag(7))
    type: int = field(default=0, metadata=_tag(8))
    """0 for a request that came in, 1 for one that went out."""


@dataclass
class TraceResponse:
    spans: list[Span] = field(default_factory=list[Span], metadata=_tag(1))


class Debug:
    """Tells tools how this service is doing."""

    def __init__(self, server: RpcServer) -> None:
        self._server = server
        self._started = 0.0
        self._log = _LogBuffer()

    def _start(self) -> None:
        self._started = time.time()
        logging.getLogger().addHandler(self._log)

    def _stop(self) -> None:
        logging.getLogger().removeHandler(self._log)
        self._log.end()

    async def health(self, request: HealthRequest) -> HealthResponse:
        """Tell whether the service takes requests: ok, stopping, or the reasons why not."""
        readiness = self._server.readiness()
        if self._server.stopping:
            return HealthResponse("stopping")
        return HealthResponse("ok" if readiness else f"not ready: {readiness}")

    async def stats(self, request: StatsRequest) -> StatsResponse:
        """Tell what the process uses and how much it has done."""
        now = time.time()
        stats = StatsResponse(
            timestamp=int(now),
            started=int(self._started),
            uptime=int(now - self._started),
            memory=_resident(),
            threads=threading.active_count(),
            gc=sum(generation["collections"] for generation in gc.get_stats()),
            requests=self._server.requests,
            errors=self._server.errors,
        )
        if not request.state:
            return stats
        state = {str(gauge): f"{gauge.value:g}" for gauge in self._server.gauges()}
        return StateResponse(**vars(stats), ready=str(self._server.readiness()), state=state)

    async def log(self, request: LogRequest) -> AsyncIterator[Record]:
        """Give the last lines of the log, and go on with new ones if asked to."""
        lines = [line for line in self._log.lines if line.timestamp >= request.since]
        for line in lines[-request.count :] if request.count > 0 else lines:
            yield line
        if request.stream:
            queue = self._log.follow()
            try:
                while (new := await queue.get()) is not None:
                    yield new
            finally:
                self._log.followers.pop(queue, None)

    async def trace(self, request: TraceRequest) -> TraceResponse:
        """Give the last requests as spans, those of one trace if an id is given."""
        unix = time.time() - self._server.loop.time()  # when the loop's time was 0
        spans = [_span(*one, unix) for one in self._server.spans]
        return TraceResponse([span for span in spans if request.id in ("", span.trace)])


class _LogBuffer(logging.Handler):
    """Keeps the last lines that the process logs."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: deque[Record] = deque(maxlen=KEPT)
        self.followers: dict[asyncio.Queue[Record | None], asyncio.AbstractEventLoop] = {}

    def emit(self, record: logging.LogRecord) -> None:
        metadata = {"level": record.levelname.lower(), "logger": record.name}
        line = Record(int(record.created), metadata, record.getMessage())
        self.lines.append(line)
        for queue, loop in list(self.followers.items()):
            loop.call_soon_threadsafe(_offer, queue, line)
        last = logging.lastResort
        if (
            last is not None
            and logging.getLogger().handlers == [self]
            and (record.levelno >= last.level)
        ):
            last.handle(record)  # listening must not silence a program that sets up no logging

    def follow(self) -> asyncio.Queue[Record | None]:
        """Return a queue that gets new lines; who is slow misses some."""
        queue: asyncio.Queue[Record | None] = asyncio.Queue(KEPT)
        self.followers[queue] = asyncio.get_running_loop()
        return queue

    def end(self) -> None:
        """Let who follows know that nothing comes any more."""
        for queue in self.followers:
            _offer(queue, None)
        self.followers.clear()


def _offer(queue: asyncio.Queue[Record | None], line: Record | None) -> None:
    if queue.full():
        queue.get_nowait()
    queue.put_nowait(line)


def _span(name: str, header: dict[str, str], started: float, ended: float, unix: float) -> Span:
    began = int((unix + started) * 1e9)
    id = header.get("Micro-Id") or f"{began:x}"
    return Span(
        trace=header.get("Micro-Trace-Id") or id,
        id=id,
        parent=header.get("Micro-Span-Id", ""),
        name=name,
        started=began,
        duration=int((ended - started) * 1e9),
    )


def _resident() -> int:
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return 0  # only Linux tells
