"""Calls the greeter by its name, wherever it runs."""

import asyncio

from greeter import Greeter, HelloRequest

import shoal


async def main() -> None:
    async with shoal.connect() as client:
        greeter = shoal.stub(Greeter, "greeter", client)
        reply = await greeter.hello(HelloRequest("John"))
        print(reply.greeting)
        try:
            await greeter.hello(HelloRequest(""))
        except shoal.BadRequest as error:
            print(f"refused: {error}")


if __name__ == "__main__":
    asyncio.run(main())
