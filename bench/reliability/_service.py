"""service: the small service the proofs are made with: `python -m bench.reliability._service`.

    _service.py NAME [a service's flags]

It prints {"pid", "address", "node"} when it is registered, and ends by SIGTERM as services do. A
proof with needs of its own writes a program of its own around `main`.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Unpack

import shoal
from shoal import context
from shoal.options import Settings
from shoal.registry import Registry
from shoal.registry.mdns import MdnsRegistry

DOMAIN = "SHOAL_PROOF_DOMAIN"
INTERFACE = "SHOAL_PROOF_INTERFACE"  # to find each other through; loopback


@dataclass
class Job:
    """What to do: wait `seconds` (`block`ing the event loop), then fail with `error`, or reply.

    `next` are services to pass the job on to, the first of them first.
    """

    seconds: float = 0.0
    block: bool = False
    error: str = ""
    key: str = ""
    next: list[str] = field(default_factory=list[str])


@dataclass
class Done:
    """Who did it, how many jobs with this key it has begun, and the seconds left at its begin."""

    pid: int
    count: int = 0
    left: float | None = None


@dataclass
class Counts:
    """Jobs by key, and those running, begun, ended, and cancelled in all."""

    by_key: dict[str, int]
    running: int
    begun: int
    ended: int
    cancelled: int


class Worker:
    """The handlers: work that may be done once only, work that may be repeated, streams."""

    def __init__(self, service: shoal.Service) -> None:
        self._service = service
        self._counts = Counts({}, 0, 0, 0, 0)

    async def work(self, job: Job) -> Done:
        """Do a job."""
        counts = self._counts
        left = context.remaining()
        count = counts.by_key[job.key] = counts.by_key.get(job.key, 0) + 1
        counts.begun += 1
        counts.running += 1
        try:
            if job.block:
                time.sleep(job.seconds)  # noqa: ASYNC251  (what must not be done)
            elif job.seconds:
                await asyncio.sleep(job.seconds)
            if job.next:
                first, *rest = job.next
                onward = shoal.stub(Worker, first, self._service.client)
                await onward.work(Job(job.seconds, job.block, job.error, job.key, rest))
            elif job.error:
                raise _ERRORS[job.error]("as it was told")
        except asyncio.CancelledError:
            counts.cancelled += 1
            raise
        finally:
            counts.running -= 1
        counts.ended += 1
        return Done(os.getpid(), count, left)

    @shoal.endpoint(idempotent=True)
    async def repeatable(self, job: Job) -> Done:
        """Do a job that may be done twice."""
        return await self.work(job)

    async def items(self, job: Job) -> AsyncIterator[Done]:
        """Send an item every `seconds` without end."""
        counts = self._counts
        counts.begun += 1
        counts.running += 1
        try:
            number = 0
            while True:
                yield Done(os.getpid(), number)
                number += 1
                await asyncio.sleep(job.seconds)
        except asyncio.CancelledError:
            counts.cancelled += 1
            raise
        finally:
            counts.running -= 1

    async def echo(self, jobs: AsyncIterator[Job]) -> AsyncIterator[Done]:
        """Answer every item."""
        async for job in jobs:
            yield await self.work(job)

    @shoal.endpoint(idempotent=True)
    async def counts(self) -> Counts:
        """Tell what was done so far."""
        return self._counts


_ERRORS: dict[str, Callable[[str], shoal.Error]] = {
    "internal": shoal.InternalServerError,
    "unavailable": shoal.Unavailable,
    "timeout": shoal.Timeout,
    "bad": shoal.BadRequest,
}


def private_registry(domain: str, **settings: float) -> Registry:
    """Return a registry that only the processes of one fleet share."""
    loopback = next((name for _, name in socket.if_nameindex() if name.startswith("lo")), "")
    return MdnsRegistry(os.environ.get(INTERFACE, loopback), domain=domain, **settings)


def die_with_parent() -> None:
    """Let the kernel end this process with the one that started it, however that ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def make(argv: list[str], **more: Unpack[Settings]) -> shoal.Service:
    """Return the service that the words `NAME [flags]` describe, without handlers."""
    name, *flags = argv
    settings: Settings = {"address": "127.0.0.1:0", "log_level": "warn", **more}
    if DOMAIN in os.environ and not any(flag.startswith("--registry") for flag in flags):
        settings["registry"] = private_registry(os.environ[DOMAIN])
    service = shoal.Service(name, **settings)
    service.init(["", *flags])
    return service


def main(service: shoal.Service) -> None:
    """Run a service until it is told to end, saying on standard output when it is ready."""
    die_with_parent()
    _Saying(service).run()


class _Saying(shoal.Group):
    """A group of one that says when it has started."""

    def __init__(self, service: shoal.Service) -> None:
        super().__init__(service)

    async def __aenter__(self) -> _Saying:
        await super().__aenter__()
        (service,) = self.services
        record = getattr(service.server, "record", None)
        nodes = [] if record is None else record.nodes
        said = {
            "pid": os.getpid(),
            "address": nodes[0].address if nodes else service.server.address,
            "node": nodes[0].id if nodes else "",
        }
        print(json.dumps(said), flush=True)
        return self


if __name__ == "__main__":
    made = make(sys.argv[1:])
    made.handle(Worker(made))
    main(made)
