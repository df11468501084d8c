"""promise_08: three nodes are replaced one after another, and none who uses them notices."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import shoal
from bench.reliability import Report, is_off
from bench.reliability._processes import Fleet, Process, free_port
from bench.reliability._service import main, make
from shoal.client import Client
from shoal.options import Settings
from shoal.server.rpc import RpcServer
from tests.interop.peers import Unavailable, peer

TITLE = "Rolling restart: three nodes replaced one after another under load, no call fails"
WITHOUT = "the order in which a server stops"
CALLS = 100_000
IN_FLIGHT = 64
NODES = 3
# A list of addresses tells nobody that a node goes: the nodes have to.
VARIANTS = [("http", "mdns"), ("tcp", "mdns"), ("http", "static"), ("tcp", "static")]
TOPIC = "restarted"


async def prove(report: Report, scale: float) -> None:
    """Replace three nodes with each transport and registry, under calls, events and streams."""
    calls = max(int(CALLS * scale), 3_000)
    for transport, registry in VARIANTS:
        async with Fleet() as fleet:
            await _shoal(report, fleet, calls, transport, registry)
    if report.without:
        return  # that is enough
    async with Fleet() as fleet:
        await _go(report, fleet, calls)


async def _shoal(report: Report, fleet: Fleet, calls: int, transport: str, registry: str) -> None:
    """Prove it with Shoal clients."""
    what = f"{transport}, {registry}: "
    flags = [f"--transport={transport}", "--server_grace=2s"]
    settings: Settings = {"transport": transport}
    places = [""] * NODES
    if registry == "static":
        places = [f"127.0.0.1:{free_port()}" for _ in range(NODES)]
        settings["registry"] = "static://proof=" + ",".join(places)
        flags.append("--registry=static://nobody=127.0.0.1:1")
    nodes = [await _start(fleet, *flags, *_at(place)) for place in places]
    seen = _Seen()
    stopped = []
    # The client is closed after what uses it has ended.
    async with fleet.connect(**settings) as client, asyncio.TaskGroup() as group:
        for _ in range(IN_FLIGHT):
            group.create_task(seen.call(client, calls))
        if registry != "static":
            group.create_task(seen.publish(client))
        for _ in range(4):
            group.create_task(seen.listen(client))
        for turn, place in enumerate(places):
            share = calls * (turn + 1) // (NODES + 1)
            await seen.reached(share)
            # A place that is someone's own is free only when its owner has gone.
            if not place:
                nodes.append(await _start(fleet, *flags))
            stopped.append(await _stop(nodes.pop(0)))
            if place:
                nodes.append(await _start(fleet, *flags, *_at(place)))
        seen.last = True
    stopped += [await _stop(node) for node in nodes]
    failed = sum(seen.errors.values())
    report.check(f"{what}failed of {seen.calls:,} calls", failed, 0, "")
    for text, count in seen.errors.most_common(3):
        print(f"    {count} x {text}", flush=True)
    doubled = sum(count - 1 for one in stopped for count in one["calls"].values())
    handled = sum(sum(one["calls"].values()) for one in stopped)
    report.check(f"{what}calls handled twice", doubled + handled - seen.calls + failed, 0, "")
    got = Counter[str]()
    for one in stopped:
        got.update(one["events"])
    if seen.published:
        lost = len(seen.published - got.keys())
        report.check(f"{what}lost of {len(seen.published):,} published events", lost, 0, "")
        again = sum(got.values()) - len(got)
        report.check(f"{what}events handled twice", again, 0, "")
        report.check(f"{what}events that could not be published", seen.unpublished, 0, "")
    silent = {text: count for text, count in seen.streams.items() if text != "Unavailable"}
    report.check(f"{what}streams not told that the node stops", sum(silent.values()), 0, "")
    for text, count in silent.items():
        print(f"    {count} x {text}", flush=True)
    told = sum(seen.streams.values()) - sum(silent.values())
    report.check(f"{what}streams told so", told, 1, "", at_most=False)
    codes = [one["code"] for one in stopped]
    report.check(
        f"{what}nodes that did not end in order", len([one for one in codes if one]), 0, ""
    )


async def _go(report: Report, fleet: Fleet, calls: int) -> None:
    """Prove it with a client of Go Micro v5, which repeats nothing that failed on its way."""
    try:
        program = await peer("v5").program()
    except Unavailable as error:
        report.skip("Go Micro's client", str(error))
        return
    name = f"proof-{fleet.domain}"  # Go Micro's multicast has one domain for all
    flags = ("--registry=mdns", "--broker=memory")
    nodes = [await fleet.start(__name__, name, *flags) for _ in range(NODES)]
    times = -(-calls // IN_FLIGHT)
    words = ("--service", name, "--endpoint", "Node.Work", "--json", '"1"', "--registry", "mdns")
    go = await fleet.command(
        str(program), "call", *words, "--parallel", str(IN_FLIGHT), "--times", str(times),
        "--send-every", "20ms",
    )  # fmt: skip
    results = [go.ready]
    total = times * IN_FLIGHT
    stopped = []

    async def until(count: int) -> None:
        while len(results) < count:
            results.append(await go.line())

    for turn in range(NODES):
        await until(total * (turn + 1) // (NODES + 1))
        reading = asyncio.create_task(until(total))
        try:
            nodes.append(await fleet.start(__name__, name, *flags))
            stopped.append(await _stop(nodes.pop(0)))
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
    await until(total)
    for node in nodes:
        await _stop(node)
    # Go Micro does not go elsewhere when a node has too much to do, restart or not.
    busy = sum(one.get("error", {}).get("code") == 429 for one in results)
    report.check(
        "Go Micro v5: calls refused by a busy node", 100 * busy / total, 1, "%", machine=True
    )
    failed = Counter(
        one["text"] for one in results if not one["ok"] and one["error"]["code"] != 429
    )
    for text, count in failed.most_common(3):
        print(f"    {count} x {text}", flush=True)
    report.check(f"Go Micro v5: failed of {total:,} calls", sum(failed.values()), 0, "")


def _at(place: str) -> list[str]:
    return [f"--server_address={place}"] if place else []


@dataclass
class _Seen:
    """What the users of the nodes saw."""

    calls: int = 0
    started: int = 0
    last: bool = False
    errors: Counter[str] = field(default_factory=Counter[str])
    published: set[str] = field(default_factory=set[str])
    unpublished: int = 0
    streams: Counter[str] = field(default_factory=Counter[str])
    more: asyncio.Event = field(default_factory=asyncio.Event)

    async def reached(self, calls: int) -> None:
        """Wait until so many calls have ended."""
        while self.calls < calls:
            self.more.clear()
            await self.more.wait()

    async def call(self, client: Client, calls: int) -> None:
        """Call until there were so many and all nodes are replaced."""
        while self.calls < calls or not self.last:
            self.started += 1
            request = shoal.Request("proof", "Node.Work", str(self.started), str)
            try:
                await client.call(request, timeout=20.0)
            except shoal.Error as error:
                self.errors[f"{type(error).__name__}: {error}"] += 1
            self.calls += 1
            self.more.set()

    async def publish(self, client: Client) -> None:
        """Publish until all nodes are replaced."""
        number = 0
        while not self.last:
            number += 1
            try:
                await client.publish(TOPIC, str(number))
            except shoal.Error:
                self.unpublished += 1
            else:
                self.published.add(str(number))
            await asyncio.sleep(1 / 500)

    async def listen(self, client: Client) -> None:
        """Keep a stream open, and open another when it ends."""
        while not self.last:
            request = shoal.Request("proof", "Node.Ticks", "", int)
            try:
                async with client.stream(request) as stream:
                    async for _ in stream:
                        if self.last:
                            return
                self.streams["an end as if that were all"] += 1
            except shoal.Error as error:
                self.streams[type(error).__name__] += 1


async def _start(fleet: Fleet, *flags: str) -> Process:
    return await fleet.start(__name__, "proof", *flags)


async def _stop(process: Process) -> dict[str, Any]:
    process.terminate()
    said: dict[str, Any] = await process.line()
    said["code"] = await process.wait()
    return said


class Node:
    """The handlers; they count what they have done."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.events: Counter[str] = Counter()

    async def work(self, number: str) -> str:
        """Take a moment, as most work does."""
        await asyncio.sleep(0.001)
        self.calls[number] += 1
        return number

    async def ticks(self, _: str) -> AsyncIterator[int]:
        """Send a number now and then without end."""
        number = 0
        while True:
            yield number
            number += 1
            await asyncio.sleep(0.02)

    async def take(self, number: str) -> None:
        """Count an event."""
        self.events[number] += 1


def run(argv: list[str]) -> None:
    """Be one of the nodes, and tell at the end what it has done."""
    service = make(argv)
    node = Node()
    service.handle(node)
    service.subscribe(TOPIC, node.take, queue="proof")
    if is_off(8):
        RpcServer.stop = _close_first  # type: ignore[method-assign, assignment]  # it is off
    main(service)
    line = memoryview(json.dumps({"calls": node.calls, "events": node.events}).encode() + b"\n")
    while line:
        line = line[os.write(1, line) :]  # unbuffered, print() loses what a pipe has no room for


async def _close_first(server: RpcServer) -> None:
    """Stop as a program does that only closes what it has opened."""
    listener, server._listener = server._listener, None
    if listener is not None:
        await listener.close()
    for subscription in server._subscriptions:
        await subscription.unsubscribe()
    if server._registration is not None:
        await server._registration.stop()
    server.threads.close()


if __name__ == "__main__":
    run(sys.argv[1:])
