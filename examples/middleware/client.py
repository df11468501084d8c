"""Calls with and without the word in the header."""

import asyncio
from typing import Any

import shoal

HELLO = shoal.Request("doorman", "Greeter.Hello", None, str)


async def with_word(call: shoal.Call, next: shoal.Next) -> Any:
    """Add the word to every call."""
    call.header["Authorization"] = "Bearer sesame"
    return await next(call)


async def main() -> None:
    async with shoal.connect() as client:
        try:
            await client.call(HELLO)
        except shoal.Unauthorized as error:
            print(f"{error.code} {error.status}: {error}")

    async with shoal.connect(middleware=[with_word]) as client:
        print(await client.call(HELLO))
        with shoal.with_metadata(user="John"):  # travels with every call of the block
            print(await client.call(HELLO))


if __name__ == "__main__":
    asyncio.run(main())
