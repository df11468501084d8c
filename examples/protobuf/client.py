"""Calls the greeter: protobuf messages travel as protobuf, or as JSON if the call says so."""

import asyncio

from messages import HelloReply, HelloRequest
from server import Greeter

import shoal


async def main() -> None:
    async with shoal.connect() as client:
        greeter = shoal.stub(Greeter, "proto-greeter", client)
        print((await greeter.hello(HelloRequest(name="John"))).greeting)

        request = shoal.Request(
            "proto-greeter",
            "Greeter.Hello",
            HelloRequest(name="JSON"),
            HelloReply,
            content_type="application/json",
        )
        print((await client.call(request)).greeting)


if __name__ == "__main__":
    asyncio.run(main())
