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
from bench.reliability._processes import Fleet, Process
from bench.reliability._service import main, make
from shoal.client import Client
from shoal.server.rpc import RpcServer

TITLE = "Rolling restart: three nodes replaced one after another under load, no call fails"
WITHOUT = "the order in which a server stops"
CALLS = 100_000
IN_FLIGHT = 64
NODES = 3
TOPIC = "restarted"


async def prove(report: Report, scale: float) -> None:
    """Replace three nodes with each transport and registry, under calls, events and streams."""
    calls = max(int(CALLS * scale), 3_000)
    for transport, registry in (("http", "mdns"),):
        async with Fleet() as fleet:
            await _shoal(report, fleet, calls, transport, registry)


async def _shoal(report: Report, fleet: Fleet, calls: int, transport: str, registry: str) -> None:
    """Prove it with Shoal clients."""
    what = f"{transport}, {registry}: "
    flags = (f"--transport={transport}", "--server_grace=2s")
    nodes = [await _start(fleet, *flags) for _ in range(NODES)]
    seen = _Seen()
    async with fleet.connect(transport=transport) as client, asyncio.TaskGroup() as group:
        load = [group.create_task(seen.call(client, calls)) for _ in range(IN_FLIGHT)]
        load.append(group.create_task(seen.publish(client)))
        load += [group.create_task(seen.listen(client)) for _ in range(4)]
        stopped = []
        for turn in range(NODES):
            share = calls * (turn + 1) // (NODES + 1)
            while seen.calls < share:
                await asyncio.sleep(0.01)
            nodes.append(await _start(fleet, *flags))
            stopped.append(await _stop(nodes.pop(0)))
        seen.last = True
    for node in nodes:
        stopped.append(await _stop(node))
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
        RpcServer.stop = _close_first  # type: ignore[method-assign]  # it is off
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
    if server._threads is not None:
        server._threads.shutdown(wait=False)


if __name__ == "__main__":
    run(sys.argv[1:])
