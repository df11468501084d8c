"""promise_01: a deadline is set once and ends all that hangs on it, wherever that runs."""

from __future__ import annotations

import asyncio
import re
import socket
import sys
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, replace

import shoal
from bench.reliability import Report, is_off
from bench.reliability._partitions import slow_and_lossy
from bench.reliability._processes import Fleet, Process, until
from bench.reliability._service import Counts, Job, Worker, main, make
from bench.reliability.promise_02_cancellation import brokered
from shoal.client import Client
from shoal.options import Settings
from shoal.registry.etcd import EtcdRegistry
from shoal.transport.http import HttpTransport
from tests.interop.peers import peer, unavailable

TITLE = "One deadline, set once, ends everything below it"
WITHOUT = "the time limit that a request tells its server"
LIMIT = 0.3  # seconds
LATE = 50.0  # ms for scheduling, and for the five that a deadline may be late
GO = "v5"


async def prove(report: Report, scale: float) -> None:
    """Measure when things end whose time is over, and what the errors say."""
    for transport in ("http", "tcp"):
        await hops(report, transport, {"transport": transport})
    async with brokered(report) as through:
        for transport, settings in through.items():
            await hops(report, transport, settings)
    await limits(report)
    await slow_and_lossy(report, max(20.0 * scale, 3.0))
    await events(report)
    if why := unavailable(GO):
        report.skip("to and from Go", why)
    else:
        await go(report)


# Three services, one behind the other


async def hops(report: Report, transport: str, settings: Settings) -> None:
    """Call the first of three services, each of which works and then calls the next."""
    text = f"three hops over {transport}: "
    flags = [f"--{name}={value}" for name, value in settings.items()]
    chain = Job(0.1, next=["two", "three"])
    loop = asyncio.get_running_loop()
    async with Fleet() as fleet:
        processes = [await fleet.start(__name__, name, *flags) for name in ("one", "two", "three")]
        async with fleet.connect(**settings) as client:
            await shoal.stub(Worker, "one", client).work(replace(chain, seconds=0))  # all connect
            begun = loop.time()
            error = await failure(shoal.stub(Worker, "one", client, timeout=LIMIT).work(chain))
            took = 1000 * (loop.time() - begun - LIMIT)
            report.check(f"{text}caller late by", took, LATE, machine=True)
            told = isinstance(error, shoal.Timeout) and "timeout of 0.3 s passed" in str(error)
            report.check(f"{text}errors that do not say so", not told, 0, "")
            await asyncio.sleep(0.1)
            before = sum([stopped(await counts(client, process)) for process in processes])
            report.check(f"{text}handlers stopped", before, 3, "", at_most=False)
            # A caller that says nothing any more: only the deadline can tell them.
            environment = {f"MICRO_{name.upper()}": str(value) for name, value in settings.items()}
            caller = await fleet.caller("one", **environment)
            await caller.ask({"call": {"timeout": 5}})
            begin = {"rate": 0.01, "timeout": LIMIT, "job": asdict(chain)}
            begun = loop.time()
            await caller.ask({"begin": begin})
            await asyncio.sleep(0.1)
            caller.freeze()
            await asyncio.sleep(begun + LIMIT + LATE / 1000 - loop.time())
            after = [await counts(client, process) for process in processes]
    later = sum(map(stopped, after)) - before
    running = sum(one.running for one in after)
    report.check(f"{text}stopped when the caller is frozen", later, 3, "", at_most=False)
    report.check(f"{text}running {LATE:.0f} ms after the limit", running, 0, "")


def stopped(counts: Counts) -> int:
    """Return how many handlers ended before they were done."""
    return counts.begun - counts.ended - counts.running


# Which limit it was


async def limits(report: Report) -> None:
    """Let each limit be the first that is over, and look at what the error says of it."""
    async with silent() as deaf, full() as closed, Fleet() as fleet:
        registry = EtcdRegistry(deaf)  # that never answers
        transport = HttpTransport(dial_timeout=LIMIT)
        async with (
            fleet.connect(transport=transport) as client,
            shoal.connect(registry=registry) as lost,
        ):
            job = Job()

            def to(address: str, timeout: float, **more: float) -> Awaitable[object]:
                options = {"timeout": timeout, "address": address, **more}
                return shoal.stub(Worker, "work", client, **options).work(job)  # type: ignore[arg-type]  # by name

            async def inherited() -> object:
                with shoal.deadline(LIMIT):
                    return await to(deaf, 5)

            async def looked_up() -> object:
                with shoal.deadline(LIMIT):
                    return await shoal.stub(Worker, "work", lost).work(job)

            async def again() -> object:
                worker = shoal.stub(
                    Worker, "work", client, timeout=5, attempt_timeout=LIMIT / 2, address=deaf
                )
                return await worker.repeatable(job)

            node = ("after 0.3", "attempt 1 on", deaf)
            await one(report, "connect", to(closed, 5), "within 0.3 s", "attempt 1 on", closed)
            each = to(deaf, 5, attempt_timeout=LIMIT)
            await one(report, "attempt", each, "attempt_timeout of 0.3 s", *node)
            words = ("attempt_timeout of 0.15 s", "after 0.1", "attempt 2 on", deaf)
            await one(report, "second attempt", again(), *words)
            await one(report, "call", to(deaf, LIMIT), "its timeout of 0.3 s", *node)
            await one(report, "caller's", inherited(), "the deadline of its caller of 0.3", *node)
            await one(report, "look-up", looked_up(), "of 0.3", "after 0.3", "before a node")
        await registry.close()


async def one(report: Report, name: str, call: Awaitable[object], *words: str) -> None:
    """Run a call whose limit of that name is over first."""
    loop = asyncio.get_running_loop()
    begun = loop.time()
    error = await failure(call)
    took = loop.time() - begun
    report.check(f"{name} limit: late by", 1000 * (took - LIMIT), LATE, machine=True)
    said = re.sub(r"0\.29\d*", "0.3", str(error))  # a coarse clock cuts a millisecond off
    missing = [word for word in words if word not in said]
    if missing:
        print(f"  {error!r} lacks {missing}")
    report.check(f"{name} limit: what its error does not say", len(missing), 0, "")


async def events(report: Report) -> None:
    """Publish to a broker that does not answer."""
    async with silent() as deaf, Fleet() as fleet:
        settings = {"broker": f"redis://{deaf}"}
        async with fleet.connect(**settings) as client:  # type: ignore[arg-type]  # by name

            async def publish() -> None:
                with shoal.deadline(LIMIT):
                    await client.publish("topic", {})

            await one(report, "event's", publish(), "deadline of 0.3")


# Beyond Python


async def go(report: Report) -> None:
    """Call a Go service, and be called by a Go client, with little time."""
    async with Fleet() as fleet:
        service = await fleet.start(__name__, "work")
        async with fleet.connect() as client, peer(GO).serve("slow") as server:
            slow = shoal.Request("slow", "Greeter.Slow", {"ms": 60_000}, dict)
            loop = asyncio.get_running_loop()
            begun = loop.time()
            await failure(client.call(slow, timeout=LIMIT, address=server.address))
            late = 1000 * (loop.time() - begun - LIMIT)
            report.check("a call to Go: late by", late, LATE, machine=True)
            begun = loop.time()
            await server.event("cancelled", timeout=30)
            report.check(
                "the Go handler: ended later by", 1000 * (loop.time() - begun), LATE, machine=True
            )
            called = asyncio.ensure_future(
                peer(GO).call(
                    "work", "Worker.Work", {"seconds": 60}, address=service.address,
                    connection_timeout=1, timeout=20, retries=0,
                )
            )  # fmt: skip
            await until(lambda: running(client, service, 1), "the Go client's call runs")
            begun = loop.time()
            await until(lambda: running(client, service, 0), "the Go client's call is over")
            report.check(
                "a handler called by Go with 1 s: late by",
                1000 * (loop.time() - begun - 1), LATE, machine=True,
            )  # fmt: skip
            called.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await called


async def running(client: Client, process: Process, number: int) -> bool:
    """Whether so many handlers run in a process."""
    return (await counts(client, process)).running == number


# Peers that do not answer


@asynccontextmanager
async def silent() -> AsyncIterator[str]:
    """Give an address where connections are taken and nothing is ever said."""
    # A bare protocol: from Python 3.13 on, a stream nobody keeps closes its connection.
    server = await asyncio.get_running_loop().create_server(asyncio.Protocol, "127.0.0.1")
    host, port = server.sockets[0].getsockname()
    try:
        yield f"{host}:{port}"
    finally:
        server.close()


@asynccontextmanager
async def full() -> AsyncIterator[str]:
    """Give an address where no connection is ever taken."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        address = server.getsockname()
        waiting = [socket.socket() for _ in range(4)]
        for client in waiting:
            client.setblocking(False)
            with suppress(BlockingIOError):
                client.connect(address)
        try:
            yield f"{address[0]}:{address[1]}"
        finally:
            for client in waiting:
                client.close()


async def counts(client: Client, process: Process) -> Counts:
    """Return what a process did."""
    return await shoal.stub(Worker, "x", client, address=process.address).counts()


async def failure(call: Awaitable[object]) -> BaseException:
    """Return what a call raises."""
    try:
        await asyncio.wait_for(asyncio.ensure_future(call), 30)
    except Exception as error:
        return error
    raise AssertionError("it did not fail")


if __name__ == "__main__":
    if is_off(1):
        from shoal import wire

        wire.timeout = lambda header: None  # the server does not get to know
    made = make(sys.argv[1:])
    made.handle(Worker(made))
    main(made)
