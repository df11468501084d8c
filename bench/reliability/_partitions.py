"""partitions: what other promises ask of a bad network, on hosts of its own."""

from __future__ import annotations

import asyncio
from typing import Any

from bench.reliability import Report
from bench.reliability._load import percentile
from bench.reliability._network import Forbidden, Network
from bench.reliability._processes import Fleet, Process

RATE = 50.0  # calls a second
TIMEOUT = 0.5  # seconds
TTL = ("--register_ttl=6", "--register_interval=2")


async def node_cut_off(report: Report, seconds: float) -> None:
    """Cut a client off from one of three nodes without a word: calls go to the others."""
    what = "a node cut off by the network"
    try:
        network = Network(seed=4)
    except Forbidden as error:
        report.skip(what, str(error))
        return
    async with network, Fleet() as fleet:
        hosts = [await network.host() for _ in range(4)]
        nodes = [await host.service(fleet, "proof", *TTL) for host in hosts[:3]]
        caller = await hosts[3].caller(fleet)
        await _begin(caller)
        await asyncio.sleep(2)
        await caller.ask({"end": {}})
        await caller.ask({"begin": {"rate": RATE, "timeout": TIMEOUT}})
        network.cut(hosts[3], hosts[0])
        await asyncio.sleep(seconds)
        results = (await caller.ask({"end": {}}))["results"]
        network.heal()
        back = None  # by default half a minute: its latency has to fade
        if report.scale >= 1:
            back = await _gets_calls(caller, nodes[0].ready["pid"])
        await _end_all(fleet)
    failed = [error for _, _, error, _ in results if error]
    share = 100 * len(failed) / len(results)
    report.check(f"{what}: calls it cost, of {len(results)}", share, 4, "%", machine=True)
    half = results[len(results) // 2 :]
    share = 100 * sum(bool(error) for _, _, error, _ in half) / len(half)
    report.check(f"{what}: calls it cost in the second half", share, 2, "%", machine=True)
    if back is not None:
        report.check("the network is well again: until the node gets calls", back, 70, "s")


async def slow_and_lossy(report: Report, seconds: float) -> None:
    """Call over 50 ms of delay each way and 5 % of packets lost: deadlines hold."""
    what = "50 ms of delay and 5 % loss"
    try:
        network = Network(seed=1)
    except Forbidden as error:
        report.skip(what, str(error))
        return
    async with network, Fleet() as fleet:
        one, other = await network.host(), await network.host()
        await one.service(fleet)
        caller = await other.caller(fleet)
        await caller.ask({"call": {}})
        network.between(one, other, delay=0.05, jitter=0.005, loss=0.05)
        await caller.ask({"begin": {"rate": RATE, "timeout": TIMEOUT}})
        await asyncio.sleep(seconds)
        results = (await caller.ask({"end": {}}))["results"]
        await _end_all(fleet)
    late = [max(elapsed - TIMEOUT, 0.0) * 1000 for _, elapsed, _, _ in results]
    well = 100 * sum(not error for _, _, error, _ in results) / len(results)
    report.check(f"{what}: how late the latest of {len(results)} calls ended", max(late), 50,
                 machine=True)  # fmt: skip
    good = [elapsed * 1000 for _, elapsed, error, _ in results if not error]
    report.check(f"{what}: median of the calls", percentile(good, 50), 150, machine=True)
    report.check(f"{what}: calls that went well in {TIMEOUT * 1000:.0f} ms", well, 80, "%",
                 at_most=False)  # fmt: skip


async def _begin(caller: Process) -> None:
    await caller.ask({"call": {}})
    await caller.ask({"begin": {"rate": RATE, "timeout": TIMEOUT}})


async def _gets_calls(caller: Process, pid: int) -> float:
    """Call on until a node answers; return the seconds."""
    loop = asyncio.get_running_loop()
    started = loop.time()
    while loop.time() - started < 60:
        await caller.ask({"begin": {"rate": RATE, "timeout": TIMEOUT}})
        await asyncio.sleep(1)
        results: list[list[Any]] = (await caller.ask({"end": {}}))["results"]
        if any(one[3] == pid for one in results):
            return loop.time() - started
    return loop.time() - started


async def _end_all(fleet: Fleet) -> None:
    for process in fleet.processes:  # before their hosts
        await process.kill()
