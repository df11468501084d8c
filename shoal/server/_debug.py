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


@dataclass
class HealthRequest:
    service: str = ""


@dataclass
class HealthResponse:
    status: str = ""


@dataclass
class StatsRequest:
    service: str = ""


@dataclass
class StatsResponse:
    timestamp: int = 0
    """Unix seconds, as `started`."""
    started: int = 0
    uptime: int = 0
    """Seconds."""
    memory: int = 0
    """Resident bytes."""
    threads: int = 0
    gc: int = 0
    """Go's nanoseconds in collection; Python does not measure them, so the collections."""
    requests: int = 0
    errors: int = 0


@dataclass
class LogRequest:
    service: str = ""
    stream: bool = False
    """Whether to go on with what is logged from now on."""
    count: int = 0
    """The last so many lines; 0 is all that are kept."""
    since: int = 0
    """Unix seconds."""


@dataclass
class Record:
    timestamp: int = 0
    metadata: dict[str, str] = field(default_factory=dict[str, str])
    message: str = ""


@dataclass
class TraceRequest:
    id: str = ""


@dataclass
class Span:
    trace: str = ""
    id: str = ""
    parent: str = ""
    name: str = ""
    started: int = 0
    """Unix nanoseconds."""
    duration: int = 0
    """Nanoseconds."""
    metadata: dict[str, str] = field(default_factory=dict[str, str])
    type: int = 0
    """0 for a request that came in, 1 for one that went out."""


@dataclass
class TraceResponse:
    spans: list[Span] = field(default_factory=list[Span])


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
        """Tell whether the service takes requests."""
        return HealthResponse("stopping" if self._server.refusing else "ok")

    async def stats(self, request: StatsRequest) -> StatsResponse:
        """Tell what the process uses and how much it has done."""
        now = time.time()
        return StatsResponse(
            timestamp=int(now),
            started=int(self._started),
            uptime=int(now - self._started),
            memory=_resident(),
            threads=threading.active_count(),
            gc=sum(generation["collections"] for generation in gc.get_stats()),
            requests=self._server.requests,
            errors=self._server.errors,
        )

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
        spans = [_span(*one) for one in self._server.spans]
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
        if logging.lastResort is not None and logging.getLogger().handlers == [self]:
            # Listening to the log must not silence a program that has not set it up.
            if record.levelno >= logging.lastResort.level:
                logging.lastResort.handle(record)

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


def _span(name: str, header: dict[str, str], ended: float, duration: float) -> Span:
    trace = header.get("Micro-Trace-Id") or header.get("Micro-Id", "")
    return Span(
        trace=trace,
        id=header.get("Micro-Id", ""),
        parent=header.get("Micro-Span-Id", ""),
        name=name,
        started=int((ended - duration) * 1e9),
        duration=int(duration * 1e9),
    )


def _resident() -> int:
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return 0  # only Linux tells
