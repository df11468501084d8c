"""A greeter that speaks protobuf: run it, then client.py.

It needs `pip install 'shoal[proto]' grpcio-tools`.
"""

from messages import HelloReply, HelloRequest

import shoal


class Greeter:
    """Says hello."""

    async def hello(self, request: HelloRequest) -> HelloReply:
        return HelloReply(greeting=f"Hello {request.name}")


if __name__ == "__main__":
    service = shoal.Service("proto-greeter")
    service.init()
    service.handle(Greeter())
    service.run()
