"""What peers see of a server that stops."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

import shoal
from shoal import wire
from shoal.errors import ConnectionClosed
from shoal.message import Message
from shoal.options import Settings
from shoal.testing import Network
from shoal.transport import Transport
from shoal.transport.http import HttpTransport
from shoal.transport.memory import MemoryTransport
from shoal.transport.tcp import TcpTransport

CALL = shoal.Request("node", "Node.Work", "a", str)
TRANSPORTS = [MemoryTransport, HttpTransport, TcpTransport]


class Node:
    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.cancelled = 0
        self.done = 0

    async def work(self, word: str) -> str:
        self.done += 1
        await asyncio.sleep(0.005)  # a loop without a pause would be taken for overloaded
        return word

    async def hang(self) -> None:
        self.begun.set()
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise

    async def items(self) -> AsyncIterator[int]:
        yield 1
        await self.hang()


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_calls_move_to_other_nodes_without_an_error(transport: Any) -> None:
    shared: Settings = {"transport": transport(), "server_linger": 0.0}
    over = False
    calls = 0
    more = asyncio.Event()
    node = Node()

    async def work(client: Any) -> None:
        nonlocal calls
        while not over:
            assert await client.call(CALL, timeout=20.0) == "a"
            calls += 1
            if calls % 50 == 0:
                more.set()

    async with asyncio.timeout(60), Network() as network:
        caller = network.service("caller", **shared)
        services = []
        for _ in range(2):
            services.append(network.service("node", **shared))
            services[-1].handle(node)
            await services[-1].__aenter__()
        async with asyncio.TaskGroup() as group:
            for _ in range(8):
                group.create_task(work(caller.client))
            for _ in range(6):
                more.clear()
                await more.wait()
                services.append(network.service("node", **shared))
                services[-1].handle(node)
                await services[-1].__aenter__()
                await services.pop(0).__aexit__(None, None, None)
            over = True
        assert node.done == calls  # none twice
        for service in services:
            await service.__aexit__(None, None, None)
        await caller.client.close()
        await caller.selector.close()


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_what_is_cancelled_at_the_end_of_the_grace_is_told(transport: Any) -> None:
    shared: Settings = {
        "transport": transport(), "server_linger": 0.0, "server_grace": 0.05,
    }  # fmt: skip
    node = Node()
    async with asyncio.timeout(30), Network() as network:
        service = await network.serve(node, **shared)
        caller = network.service("caller", **shared)
        client = caller.client
        hang = asyncio.create_task(client.call(shoal.Request("node", "Node.Hang", None, object)))
        await node.begun.wait()
        async with client.stream(shoal.Request("node", "Node.Items", None, int)) as stream:
            assert await stream.recv() == 1
            stopping = asyncio.create_task(service.server.stop())
            with pytest.raises(shoal.Unavailable, match="node is stopping"):
                await stream.recv()
        with pytest.raises(shoal.Unavailable, match="node is stopping"):
            await hang
        await stopping
        assert node.cancelled == 2
        await client.close()
        await caller.selector.close()


def request(agent: str) -> Message:
    header = {
        **wire.request_header("node", "Node.Work", wire.JSON),
        "Micro-Id": "1",
        "User-Agent": agent,
    }
    return Message(header, b'"a"')


@pytest.mark.parametrize(("agent", "told"), [("shoal", True), ("Go-http-client/1.1", False)])
async def test_only_who_understands_it_is_told_goodbye(agent: str, told: bool) -> None:
    transport: Transport = MemoryTransport()
    shared: Settings = {"transport": transport, "server_linger": 0.0}
    async with asyncio.timeout(30), Network() as network:
        service = await network.serve(Node(), **shared)
        socket = await transport.dial(service.server.address)
        await socket.send(request(agent))
        assert (await socket.recv()).body.strip() == b'"a"'
        stopping = asyncio.create_task(service.server.stop())
        if told:
            goodbye = await socket.recv()
            assert goodbye.header[wire.REFUSED] == "1"
            assert "is stopping" in wire.error_in(goodbye.header)
            assert goodbye.header["Connection"] == "close"
        else:
            with pytest.raises(ConnectionClosed):
                await socket.recv()
        await socket.close()
        await stopping


async def test_the_first_request_of_a_new_connection_is_still_answered() -> None:
    transport: Transport = MemoryTransport()
    shared: Settings = {"transport": transport, "server_linger": 0.0}
    async with asyncio.timeout(30), Network() as network:
        service = await network.serve(Node(), **shared)
        socket = await transport.dial(service.server.address)
        await asyncio.sleep(0)
        stopping = asyncio.create_task(service.server.stop())
        await asyncio.sleep(0.01)
        await socket.send(request("Go-http-client/1.1"))
        refused = await socket.recv()
        assert refused.header[wire.REFUSED] == "1"
        await socket.close()
        await stopping


async def test_events_and_calls_have_the_same_time_to_end_in() -> None:
    node = Node()

    async def take(event: str) -> None:
        await node.hang()

    async with asyncio.timeout(30):
        service = shoal.Service(
            "node", registry="memory", broker="http", address="127.0.0.1:0",
            server_linger=0.0, server_grace=0.2,
        )  # fmt: skip
        service.handle(node)
        service.subscribe("topic", take)
        loop = asyncio.get_running_loop()
        async with service:
            await service.client.publish("topic", "a")
            await node.begun.wait()
            begun = loop.time()
        assert node.cancelled == 1
        assert loop.time() - begun < 20
