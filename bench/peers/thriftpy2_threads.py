"""thriftpy2_threads: thriftpy2's C protocol and threaded server, one thread for each call."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import thriftpy2
from thriftpy2.protocol import TCyBinaryProtocolFactory
from thriftpy2.rpc import make_client
from thriftpy2.server import TThreadedServer
from thriftpy2.thrift import TProcessor
from thriftpy2.transport import TCyBufferedTransportFactory, TServerSocket

from bench import load

IDL = """
struct HelloRequest { 1: string name }
struct HelloReply { 1: string greeting }
service Greeter { HelloReply hello(1: HelloRequest request) }
"""
idl: Any = thriftpy2.load_fp(io.StringIO(IDL), "greeter_thrift")


class Greeter:
    """The service."""

    def hello(self, request: Any) -> Any:
        """Says hello."""
        return idl.HelloReply(greeting=f"Hello {request.name}")


class Listener(TServerSocket):
    """Takes a free port and tells it."""

    def listen(self) -> None:
        """Listens, as the server asks."""
        super().listen()
        load.announce(self.sock.getsockname()[1])


def serve() -> None:
    """Serves until killed."""
    TThreadedServer(
        TProcessor(idl.Greeter, Greeter()),
        Listener("127.0.0.1", 0),
        iprot_factory=TCyBinaryProtocolFactory(),
        itrans_factory=TCyBufferedTransportFactory(),
        daemon=True,
    ).serve()


def connect(port: int) -> Callable[[str], str]:
    """One connection."""
    client: Any = make_client(
        idl.Greeter,
        "127.0.0.1",
        port,
        proto_factory=TCyBinaryProtocolFactory(),
        trans_factory=TCyBufferedTransportFactory(),
    )

    def call(name: str) -> str:
        greeting: str = client.hello(idl.HelloRequest(name=name)).greeting
        return greeting

    return call


if __name__ == "__main__":
    load.main_threads(serve, connect)
