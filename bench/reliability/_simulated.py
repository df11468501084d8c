"""simulated: an hour of a fleet with faults: `python -m bench.reliability._simulated SEED`.

It prints a digest of all that happened, the seconds that passed in it, and what went wrong how
often. Under SHOAL_PROOF_OFF=14 the plan has no seed.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
import sys
from collections import Counter
from collections.abc import AsyncIterator

import shoal
from bench.reliability import is_off
from shoal.testing import FakeClock, Faults, Network

CALLS = 300
PACE = 12.0  # seconds from one call to the next: an hour for all
KINDS = ("drop", "duplicate", "reorder", "corrupt", "cut")


class Shop:
    """Keeps orders, once for each number where it is written as it should be."""

    def __init__(self) -> None:
        self.careless: Counter[int] = Counter()
        self.careful: set[int] = set()

    async def order(self, number: int) -> int:
        """Take an order, and take it again if it comes again."""
        self.careless[number] += 1
        self.careful.add(number)
        return number

    async def numbers(self, until: int) -> AsyncIterator[int]:
        """Send numbers."""
        for number in range(until):
            yield number


async def simulate(seed: int) -> dict[str, object]:
    """Run the fleet and return what happened."""
    faults = Faults(seed)
    outcomes: list[str] = []
    shops = [Shop(), Shop()]
    events: list[str] = []
    async with FakeClock() as clock, Network(faults) as network:
        begun = clock.now
        services = [
            await network.serve(shop, name="shop", register_ttl=90.0, register_interval=30.0)
            for shop in shops
        ]

        async def take(event: str) -> None:
            events.append(event)

        reader = network.service("reader")
        reader.subscribe("orders", take)
        await network.start(reader)
        faults.delay = 0.5
        faults.drop = faults.duplicate = faults.reorder = faults.corrupt = faults.cut = 0.04
        for number in range(CALLS):
            if number == CALLS // 3:
                faults.partition("test", services[0])
            if number == CALLS // 2:
                faults.heal()
                await faults.kill(services[1])
            if number == 2 * CALLS // 3:
                faults.revive(services[1])
            outcomes += await one_step(network, clock, number)
        passed = clock.now - begun
    failures = Counter(line.rpartition(": ")[2] for line in faults.log)
    told = [outcomes, list(faults.log), events, [sorted(s.careless.items()) for s in shops]]
    twice = sum(count > 1 for count in (shops[0].careless + shops[1].careless).values())
    return {
        "digest": hashlib.sha256(json.dumps(told).encode()).hexdigest(),
        "seconds": passed,
        "faults": {kind: failures[kind] for kind in KINDS},
        "places": sum(line.startswith(("partition", "killed")) for line in faults.log),
        "done": sum(outcome.isdigit() for outcome in outcomes),
        "failed": sum(not outcome.isdigit() for outcome in outcomes),
        "twice": twice,
        "orders": len(shops[0].careful | shops[1].careful),
    }


async def one_step(network: Network, clock: FakeClock, number: int) -> list[str]:
    """Order, publish and stream at the same time, and return how each ended."""
    shop = shoal.stub(Shop, "shop", network.client, timeout=5.0)

    async def stream() -> int:
        return sum([1 async for _ in shop.numbers(5)])

    work = [
        asyncio.ensure_future(shop.order(number)),
        asyncio.ensure_future(stream()),
        asyncio.ensure_future(network.client.publish("orders", str(number))),
    ]
    await clock.advance(PACE)
    ends = await asyncio.gather(*work, return_exceptions=True)
    return [type(end).__name__ if isinstance(end, Exception) else str(end or 0) for end in ends]


if __name__ == "__main__":
    chosen = secrets.randbits(32) if is_off(14) else int(sys.argv[1])
    print(json.dumps(asyncio.run(simulate(chosen))), flush=True)
