"""grpclib: grpclib's server and channel on uvloop, JSON bodies."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from grpclib.client import Channel, UnaryUnaryMethod
from grpclib.const import Cardinality, Handler
from grpclib.encoding.base import CodecBase
from grpclib.server import Server, Stream

from bench import load


class Json(CodecBase):
    """JSON in gRPC frames."""

    __content_subtype__ = "json"

    def encode(self, message: Any, message_type: Any) -> bytes:
        """Encodes a message."""
        return load.encode(message)

    def decode(self, data: bytes, message_type: Any) -> Any:
        """Decodes a message."""
        return msgspec.json.decode(data, type=message_type)


class Greeter:
    """The service, with the table generated code would have."""

    async def hello(self, stream: Stream[load.HelloRequest, load.HelloReply]) -> None:
        """Says hello."""
        request = await stream.recv_message()
        assert request is not None
        await stream.send_message(load.HelloReply(f"Hello {request.name}"))

    def __mapping__(self) -> Mapping[str, Handler]:
        kind = Cardinality.UNARY_UNARY
        hello = Handler(self.hello, kind, load.HelloRequest, load.HelloReply)
        return {"/Greeter/Hello": hello}


@asynccontextmanager
async def serve() -> AsyncIterator[int]:
    """Serves until left."""
    server = Server([Greeter()], codec=Json())
    await server.start("127.0.0.1", 0)
    assert server._server is not None  # the one place that knows the chosen port
    yield server._server.sockets[0].getsockname()[1]


@asynccontextmanager
async def connect(port: int, concurrency: int) -> AsyncIterator[load.Call]:
    """One channel; gRPC multiplexes on it."""
    async with Channel("127.0.0.1", port, codec=Json()) as channel:
        method = UnaryUnaryMethod(channel, "/Greeter/Hello", load.HelloRequest, load.HelloReply)

        async def call(name: str) -> str:
            reply: load.HelloReply = await method(load.HelloRequest(name))
            return reply.greeting

        yield call


if __name__ == "__main__":
    load.main(serve, connect)
