"""promise_02: who gives up, or dies, ends what runs for it; and streams never get stuck."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, suppress
from functools import partial
from typing import Any

import shoal
from bench.reliability import Report, is_off
from bench.reliability._network import Forbidden, Host, Network
from bench.reliability._processes import Ended, Fleet, Process, until
from bench.reliability._service import DOMAIN, Done, Job, Worker, main, make, private_registry
from shoal.client import Client
from shoal.options import Settings
from shoal.server._connection import Connection
from shoal.transport import _tcp
from shoal.transport.http import HttpTransport
from tests.interop.peers import peer, unavailable
from tests.servers import MissingServer, find
from tests.servers.nats import NatsServer
from tests.servers.rabbitmq import RabbitServer

TITLE = "Cancellation travels, and so does the end of a peer"
WITHOUT = "what a server does when the connection of a request is lost"
KEEP_ALIVE = "SHOAL_PROOF_KEEP_ALIVE"  # seconds, for the programs of a small run
LONG = Job(3600)
PIECE = bytes(64 << 10)


class Shapes(Worker):
    """Handlers of every shape that run until they are cancelled."""

    async def take(self, jobs: AsyncIterator[Job]) -> Done:
        """Take a stream in."""
        done = Done(0)
        async for job in jobs:
            done = await self.work(job)
        return done

    async def mirror(self, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Send everything back."""
        async for piece in pieces:
            yield piece

    async def forever(self, job: Job) -> AsyncIterator[int]:
        """Send one item, and say on standard output when that is all over."""
        try:
            yield 1
            await asyncio.sleep(job.seconds)
        finally:
            print(json.dumps({"ended": True}), flush=True)


async def prove(report: Report, scale: float) -> None:
    """Give up calls of every shape over every transport, kill their ends, cut the network."""
    settings: dict[str, Settings] = {"http": {}, "tcp": {"transport": "tcp"}}
    for name, given in settings.items():
        await cancelled(report, name, given)
    await cancelled(report, "HTTP/1.1", {"transport": HttpTransport(native=False)})
    async with brokered(report) as through:
        for name, given in through.items():
            await cancelled(report, name, given)
    await killed(report)
    await cut(report, scale)
    if why := unavailable("v5"):
        report.skip("a Go handler", why)
    else:
        await go(report)


@asynccontextmanager
async def brokered(report: Report) -> AsyncIterator[dict[str, Settings]]:
    """Give the settings for transports that run through a server, by which nodes are found too."""
    try:
        if os.environ.get("SHOAL_SERVERS") == "no":
            raise MissingServer("left out: SHOAL_SERVERS=no")
        find(NatsServer.binary)
        find(RabbitServer.binary)
    except MissingServer as error:
        report.skip("over NATS and RabbitMQ", str(error))
        yield {}
        return
    async with NatsServer() as nats, RabbitServer() as rabbit:
        found: Settings = {"registry": "nats", "registry_address": nats.url}
        yield {
            "nats": {**found, "transport": "nats", "transport_address": nats.url},
            "rabbitmq": {**found, "transport": "rabbitmq", "transport_address": rabbit.url},
        }


# Giving up


async def cancelled(report: Report, name: str, settings: Settings) -> None:
    """Cancel a call of every shape, and let a stream be busy both ways."""
    flags = [f"--{name}={value}" for name, value in settings.items() if isinstance(value, str)]
    async with Fleet() as fleet:
        await fleet.start(__name__, "server", "shapes", *flags)
        async with fleet.connect(**settings) as client:
            shapes = shoal.stub(Shapes, "shapes", client)
            await shapes.work(Job())
            calls: dict[str, Callable[[], Awaitable[Any]]] = {
                "unary": lambda: shapes.work(LONG),
                "stream out": lambda: drain(shapes.items(LONG)),
                "stream in": lambda: shapes.take(once(LONG)),
                "stream both ways": lambda: drain(shapes.echo(once(LONG))),
            }
            slowest = 0.0
            for call in calls.values():
                slowest = max(slowest, await given_up(shapes, call))
            text = f"{name}: "
            what = f"{text}from cancelling a call to its handler, slowest of {len(calls)} shapes"
            report.check(what, 1000 * slowest, 50, machine=True)
            report.check(f"{text}pieces that came back", await busy(shapes, 300), 300, "", False)
            late = await unread(client, 0.5)
            what = f"{text}sending to who does not read, ended later than its limit by"
            report.check(what, 1000 * (late - 0.5), 50, machine=True)


async def given_up(shapes: Shapes, call: Callable[[], Awaitable[Any]]) -> float:
    """Return the seconds from cancelling a call to its handler's being cancelled."""
    before = await shapes.counts()
    task = asyncio.ensure_future(call())
    await until(lambda: _began(shapes, before.begun), "the handler runs")
    loop = asyncio.get_running_loop()
    begun = loop.time()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    with suppress(Ended):
        await until(
            lambda: _cancelled(shapes, before.cancelled), "it is cancelled", timeout=5, pause=0.002
        )
    return loop.time() - begun


async def _began(shapes: Shapes, before: int) -> bool:
    return (await shapes.counts()).begun > before


async def _cancelled(shapes: Shapes, before: int) -> bool:
    return (await shapes.counts()).cancelled > before


async def drain(items: AsyncIterator[Any]) -> None:
    """Take all items."""
    async with aclosing(items):  # type: ignore[type-var]  # a stub's are generators
        async for _ in items:
            pass


async def once(item: Any) -> AsyncIterator[Any]:
    """Send one item and leave the stream open."""
    yield item
    await asyncio.sleep(3600)


async def busy(shapes: Shapes, count: int) -> int:
    """Send and receive much at the same time; return how much came back."""

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(count):
            yield PIECE

    came = 0
    with suppress(TimeoutError):
        async with asyncio.timeout(60):
            async for _ in shapes.mirror(pieces()):
                came += 1
    return came


async def unread(client: Client, limit: float) -> float:
    """Send to a handler that is not read from; return the seconds until that ends."""
    loop = asyncio.get_running_loop()
    begun = loop.time()
    request = shoal.Request("shapes", "Shapes.Mirror", None, bytes)
    async with asyncio.timeout(30), client.stream(request, timeout=limit) as stream:
        with suppress(shoal.Timeout):
            while True:
                await stream.send(PIECE)
    return loop.time() - begun


# Dying


async def killed(report: Report) -> None:
    """Kill one end of a stream and look at the other."""
    async with Fleet() as fleet:
        server, client = await _stream(fleet.start)
        took = await ended(server, client.kill())
        report.check("client killed: until the server's stream ended", took, 50, machine=True)
        server, client = await _stream(fleet.start)
        took = await ended(client, server.kill())
        report.check("server killed: until the client's stream ended", took, 50, machine=True)


async def cut(report: Report, scale: float) -> None:
    """Cut the network between the ends of a stream on which nothing happens."""
    keep_alive = 15.0 if scale >= 1 else 4.0
    for native in ("yes", "no"):
        try:
            async with Network() as network, Fleet() as fleet:
                one, other = await network.host(), await network.host()
                hosts = iter((one, other))

                where = {KEEP_ALIVE: str(keep_alive), "SHOAL_PROOF_NATIVE": native}
                start = partial(_on_next, hosts, fleet, where)
                server, client = await _stream(start, address=one.address)
                network.cut(one, other)
                begun = asyncio.get_running_loop().time()
                with suppress(Ended):
                    for end in (server, client):
                        await end.line(5 * keep_alive)
                took = asyncio.get_running_loop().time() - begun
        except Forbidden as error:
            report.skip("a network that is cut", str(error))
            return
        kind = "Shoal's own protocol" if native == "yes" else "HTTP/1.1"
        what = f"network cut, {kind}: until both ends of a stream ended, of keep-alives"
        report.check(what, took / keep_alive, 2.1, "")


async def _on_next(
    hosts: Iterator[Host], fleet: Fleet, environment: dict[str, str], *words: str
) -> Process:
    return await next(hosts).start(fleet, *words, **environment)


async def ended(survivor: Process, kill: Awaitable[None]) -> float:
    """Return the milliseconds from an end's death to the other's noticing."""
    loop = asyncio.get_running_loop()
    begun = loop.time()
    await kill
    with suppress(Ended):
        await survivor.line(10)
    return 1000 * (loop.time() - begun)


async def _stream(
    start: Callable[..., Awaitable[Process]], address: str = "127.0.0.1"
) -> tuple[Process, Process]:
    """Start a server and a client with a stream between them."""
    server = await start(__name__, "server", "shapes", f"--server_address={address}:0")
    client = await start(__name__, "client", server.address)
    return server, client


async def go(report: Report) -> None:
    """Give up a call to Go."""
    async with Fleet() as fleet, fleet.connect() as client, peer("v5").serve("slow") as server:
        request = shoal.Request("slow", "Greeter.Slow", {"ms": 60_000}, dict)
        call = asyncio.ensure_future(client.call(request, address=server.address))
        await asyncio.sleep(0.3)
        begun = asyncio.get_running_loop().time()
        call.cancel()
        await server.event("cancelled", timeout=30)
        took = asyncio.get_running_loop().time() - begun
        report.check("from cancelling a call to its Go handler", 1000 * took, 50, machine=True)


# The programs


async def watch(address: str) -> None:
    """Open a stream, say so, and say when it is over."""
    registry = private_registry(os.environ[DOMAIN])
    async with shoal.connect(registry=registry, transport=transport()) as client:
        shapes = shoal.stub(Shapes, "shapes", client, address=address)
        try:
            async for _ in shapes.forever(LONG):
                print(json.dumps({"open": True}), flush=True)
        except shoal.Error as error:
            print(json.dumps({"ended": str(error)}), flush=True)
    await registry.close()
    await asyncio.sleep(60)


def transport() -> HttpTransport:
    """Return the transport the environment asks for."""
    seconds = float(os.environ.get(KEEP_ALIVE, 15))
    each = max(1, round(seconds / 3))
    _tcp._KEEPALIVE = (
        ("TCP_KEEPIDLE", round(seconds)), ("TCP_KEEPINTVL", each), ("TCP_KEEPCNT", 3),
    )  # fmt: skip
    native = os.environ.get("SHOAL_PROOF_NATIVE") != "no"
    return HttpTransport(native=native, keep_alive=seconds)


if __name__ == "__main__":
    role, *words = sys.argv[1:]
    if role == "client":
        asyncio.run(watch(*words))
    else:
        if is_off(2):
            Connection._lost = lambda self: None  # type: ignore[method-assign]  # that is off
        given: Settings = {}
        if not any(word.startswith("--transport") for word in words):
            given["transport"] = transport()
        made = make(words, **given)
        made.handle(Shapes(made))
        main(made)
