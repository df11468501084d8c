"""Calls the four shapes through one stub; what streams is an async iterator on both sides."""

import asyncio
from collections.abc import AsyncIterator

from words import Text, Words

import shoal


async def lines() -> AsyncIterator[Text]:
    for line in ("to be", "or not to be"):
        yield Text(line)


async def main() -> None:
    async with shoal.connect() as client:
        words = shoal.stub(Words, "words", client)

        print("count:", (await words.count(Text("to be or not to be"))).words)
        async for word in words.split(Text("to be")):
            print("split:", word.text)
        print("total:", (await words.total(lines())).words)
        async for loud in words.shout(lines()):
            print("shout:", loud.text)


if __name__ == "__main__":
    asyncio.run(main())
