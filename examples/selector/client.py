"""Says for single calls which nodes may get them, and which of these does."""

import asyncio

import shoal
from shoal.selector.consistent_hash import consistent_hash
from shoal.selector.filters import label, version
from shoal.selector.round_robin import RoundRobin

WHERE = shoal.Request("place", "Place.Where", None, str)


async def main() -> None:
    async with shoal.connect() as client:
        print(await client.call(WHERE, filters=[version("1.0.0")]))
        print(await client.call(WHERE, filters=[version("2.0.0"), label("zone", "b")]))

        turn = RoundRobin()  # one after the other
        some = [await client.call(WHERE, strategy=turn) for _ in range(6)]
        print("in turn:", *sorted(some), sep="\n  ")

        john = consistent_hash("john")  # the same node for the same key
        same = {await client.call(WHERE, strategy=john) for _ in range(6)}
        print("nodes that John's calls went to:", len(same))

        try:
            await client.call(WHERE, filters=[version("3.0.0")])
        except shoal.Unavailable as error:
            print(f"version 3.0.0: {error}")


if __name__ == "__main__":
    asyncio.run(main())
