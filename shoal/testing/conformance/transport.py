"""Module transport is the suite every transport passes: what the contract's docstrings promise.

    class TestZebra(TransportConformance):
        def make(self) -> Transport:
            return ZebraTransport()

The tests are coroutines: run them with pytest-asyncio in auto mode.
"""

from __future__ import annotations

import asyncio
import logging
import socket as tcp

import pytest

from shoal.errors import BadRequest, ConnectionClosed, Unavailable
from shoal.message import Message
from shoal.testing.conformance._transport import Accepting, numbered, receive, send_all
from shoal.testing.conformance._transport_messages import MessageTests
from shoal.transport import Listener, Socket


class TransportConformance(MessageTests):
    """Sockets and listeners, from the first address to the last close."""

    # The end of a socket

    @pytest.mark.parametrize("closer", ["client", "server"])
    async def test_what_had_arrived_is_received_and_then_the_end(self, closer: str) -> None:
        async with self.pair() as (client, server):
            here, there = (client, server) if closer == "client" else (server, client)
            await send_all(here, numbered(8))
            await here.close()
            assert await self.soon(receive(there, 8)) == list(range(8))
            if self.notices_death:
                for _ in range(2):
                    with pytest.raises(ConnectionClosed):
                        await self.soon(there.recv())

    async def test_what_was_sent_before_closing_arrives(self) -> None:
        async with self.pair() as (client, server):
            body = bytes(self.largest)
            receiving = asyncio.ensure_future(server.recv())
            await client.send(Message({}, body))
            await client.close()
            assert (await self.soon(receiving)).body == body

    async def test_what_was_sent_arrives_though_the_peer_was_sending(self) -> None:
        async with self.pair() as (client, server):
            await send_all(client, numbered(5, bytes(1000)))
            await server.send(Message({}, b"the last"))
            await server.close()
            assert (await self.soon(client.recv())).body == b"the last"

    async def test_closing_ends_what_waits_on_this_side(self) -> None:
        async with self.pair() as (client, server):
            for socket in (client, server):
                receiving = asyncio.ensure_future(socket.recv())
                await asyncio.sleep(0)
                await socket.close()
                with pytest.raises(ConnectionClosed):
                    await self.soon(receiving)

    async def test_sending_on_a_closed_socket_fails_with_nothing_sent(self) -> None:
        async with self.pair() as (client, server):
            for socket in (client, server):
                await socket.close()
                with pytest.raises(ConnectionClosed) as caught:
                    await socket.send(Message({"A": "b"}))
                assert caught.value.unsent
                with pytest.raises(ConnectionClosed):
                    await self.soon(socket.recv())

    async def test_sending_fails_when_the_peer_has_closed(self) -> None:
        if not self.notices_death:
            pytest.skip("the transport does not notice that a peer closed")
        async with self.pair() as (client, server):
            await server.close()
            await self.fails(client)
        async with self.pair() as (client, server):
            await client.close()
            await self.fails(server)

    @pytest.mark.parametrize("closer", [0, 1], ids=["sender", "receiver"])
    async def test_sending_that_waits_fails_when_either_side_closes(self, closer: int) -> None:
        if not (self.backpressure and self.notices_death):
            pytest.skip("the transport does not wait for its peer")
        sent = 0

        async def flood(socket: Socket) -> None:
            nonlocal sent
            while True:
                await socket.send(Message({}, bytes(64 * 1024)))
                sent += 1

        async with self.pair() as sockets:
            flooding = asyncio.create_task(flood(sockets[0]))
            await self.settled(lambda: sent)
            await self.soon(sockets[closer].close())
            with pytest.raises(ConnectionClosed):
                await self.soon(flooding)

    async def test_closing_again_and_at_once_does_nothing(self) -> None:
        async with self.pair() as (client, server):
            await asyncio.gather(client.close(), client.close(), server.close())
            await client.close()
            await server.close()

    # Being told that the peer is gone

    @pytest.mark.parametrize("closer", ["client", "server"])
    async def test_a_lost_peer_is_told_once(self, closer: str) -> None:
        if not self.notices_death:
            pytest.skip("the transport does not notice that a peer closed")
        async with self.pair() as (client, server):
            here, there = (client, server) if closer == "client" else (server, client)
            calls: list[str] = []
            there.on_lost(lambda: calls.append("replaced"))
            there.on_lost(lambda: calls.append("early"))
            await send_all(here, numbered(3))
            await here.close()
            await self.until(lambda: calls)
            assert await self.soon(receive(there, 3)) == [0, 1, 2]
            with pytest.raises(ConnectionClosed):
                await self.soon(there.recv())
            there.on_lost(lambda: calls.append("late"))
            assert calls == ["early"]  # not from inside this task
            await self.until(lambda: len(calls) > 1)
            await there.close()
            await asyncio.sleep(0.01)
            assert calls == ["early", "late"]

    async def test_closing_oneself_is_not_told(self) -> None:
        async with self.pair() as (client, server):
            calls: list[str] = []
            client.on_lost(lambda: calls.append("client"))
            server.on_lost(lambda: calls.append("server"))
            await client.close()
            if self.notices_death:
                await self.until(lambda: calls)
            await server.close()
            await asyncio.sleep(0.01)
            assert calls == (["server"] if self.notices_death else [])

    # Addresses

    async def test_both_sides_know_the_addresses(self) -> None:
        accepting = Accepting()
        async with self.listening(accepting) as listener:
            assert listener.address
            client = await self.dial(listener)
            assert client.remote
            assert isinstance(client.local, str)
            for shown in (client, listener, self.make()):
                assert repr(shown)
            await client.close()

    async def test_dialling_nobody_is_unavailable_and_names_the_address(self) -> None:
        if not self.notices_absence:
            pytest.skip("the transport cannot know that nobody listens")
        async with self.listening(Accepting()) as listener:
            address = listener.address
        with pytest.raises(Unavailable) as caught:
            await self.soon(self.make().dial(address))
        assert address in str(caught.value)

    async def test_nonsense_is_a_bad_request(self) -> None:
        for address in self.nonsense:
            with pytest.raises(BadRequest):
                await self.soon(self.make().dial(address))
            with pytest.raises(BadRequest):
                await self.soon(self.make().listen(address, Accepting()))

    async def test_an_address_that_is_taken_is_unavailable(self) -> None:
        if not self.notices_absence:
            pytest.skip("the transport cannot know that somebody listens")
        async with self.listening(Accepting()) as listener:
            with pytest.raises(Unavailable) as caught:
                await self.make().listen(listener.address, Accepting())
            assert listener.address in str(caught.value)

    async def test_port_zero_takes_a_free_port_each_time(self) -> None:
        self._needs_ports()
        async with self.listening(Accepting()) as first, self.listening(Accepting()) as second:
            assert first.address != second.address
            for listener in (first, second):
                await (await self.dial(listener)).close()

    async def test_a_range_gives_its_first_free_port(self) -> None:
        self._needs_ports()
        async with self.listening(Accepting()) as taken:
            host, _, port = taken.address.rpartition(":")
            last = min(int(port) + 20, 65535)
            async with self.listening(Accepting(), f"{host}:{port}-{last}") as listener:
                assert int(port) < int(listener.address.rpartition(":")[2]) <= last
            with pytest.raises(Unavailable):
                await self.make().listen(f"{host}:{port}-{port}", Accepting())

    async def test_an_empty_host_is_every_interface(self) -> None:
        self._needs_ports()
        accepting = Accepting()
        async with self.listening(accepting, ":0") as listener:
            client = await self.dial(listener)
            await client.send(Message({}, b"hello"))
            server = await self.soon(accepting.sockets.get())
            assert (await self.soon(server.recv())).body == b"hello"
            await client.close()

    async def test_a_name_is_listened_at_under_one_port(self) -> None:
        self._needs_ports()
        async with self.listening(Accepting(), "localhost:0") as listener:
            assert listener.address.startswith("localhost:")
            await (await self.dial(listener)).close()

    async def test_ipv6(self) -> None:
        self._needs_ports()
        if not has_ipv6():
            pytest.skip("this machine has no IPv6")
        accepting = Accepting()
        async with self.listening(accepting, "[::1]:0") as listener:
            assert listener.address.startswith("[::1]:")
            client = await self.dial(listener)
            await client.send(Message({}, b"hello"))
            server = await self.soon(accepting.sockets.get())
            assert (await self.soon(server.recv())).body == b"hello"
            await client.close()

    def _needs_ports(self) -> None:
        if not self.ports:
            pytest.skip("the transport's addresses have no ports")

    # Listeners

    async def test_closing_a_listener_ends_what_serves_its_sockets(self) -> None:
        accepting = Accepting()
        clients: list[Socket] = []
        async with self.listening(accepting) as listener:
            for _ in range(5):
                client = await self.dial(listener)
                await client.send(Message({}, b"hello"))
                clients.append(client)
            await self.until(lambda: accepting.served == 5)
            await self.soon(listener.close())
            assert accepting.cancelled == accepting.ended == 5
            await listener.close()
        for client in clients:
            if self.notices_death:
                with pytest.raises(ConnectionClosed):
                    await self.soon(client.recv())
            await client.close()
        if self.notices_absence:
            with pytest.raises(Unavailable):
                await self.soon(self.dial(listener))
        async with self.listening(Accepting(), listener.address) as again:
            assert again.address == listener.address

    async def test_closing_a_listener_while_peers_connect(self) -> None:
        accepting = Accepting()

        async def dial() -> None:
            try:
                socket = await self.dial(listener)
            except Unavailable:
                return
            await socket.close()

        async with self.listening(accepting) as listener:
            dialling = [asyncio.create_task(dial()) for _ in range(20)]
            await self.until(lambda: accepting.served or all(task.done() for task in dialling))
            await self.soon(listener.close())
            assert accepting.ended == accepting.served
            await self.soon(asyncio.gather(*dialling))
            assert accepting.ended == accepting.served

    async def test_an_accepted_socket_may_close_its_listener(self) -> None:
        listeners: list[Listener] = []
        closed = asyncio.Event()

        async def accept(socket: Socket) -> None:
            await listeners[0].close()
            closed.set()

        async with self.listening(accept) as listener:
            listeners.append(listener)
            client = await self.dial(listener)
            await client.send(Message({}, b"hello"))
            await self.soon(closed.wait())
            await client.close()

    async def test_a_socket_is_closed_when_accept_returns(self) -> None:
        async def accept(socket: Socket) -> None:
            await socket.send(await socket.recv())

        async with self.listening(accept) as listener:
            client = await self.dial(listener)
            await client.send(Message({"A": "b"}, b"once"))
            assert (await self.soon(client.recv())).body == b"once"
            if self.notices_death:
                with pytest.raises(ConnectionClosed):
                    await self.soon(client.recv())
            await client.close()

    async def test_accept_that_raises_ends_only_its_own_socket(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def accept(socket: Socket) -> None:
            while True:
                message = await socket.recv()
                if message.body == b"fail":
                    raise ValueError("a mistake in what serves")
                await socket.send(message)

        async with self.listening(accept) as listener:
            good, bad = [await self.dial(listener) for _ in range(2)]
            with caplog.at_level(logging.ERROR):
                await bad.send(Message({}, b"fail"))
                await self.until(lambda: "a mistake in what serves" in caplog.text)
            if self.notices_death:
                with pytest.raises(ConnectionClosed):
                    await self.soon(bad.recv())
            another = await self.dial(listener)
            for socket in (good, another):
                await socket.send(Message({}, b"fine"))
                assert (await self.soon(socket.recv())).body == b"fine"
            for socket in (good, bad, another):
                await socket.close()

    async def test_two_hundred_sockets_at_once(self) -> None:
        async def echo(socket: Socket) -> None:
            while True:
                await socket.send(await socket.recv())

        async def exchange(number: int) -> bytes:
            socket = await transport.dial(listener.address, self.told(listener))
            try:
                for _ in range(2):
                    await socket.send(Message({}, b"%d" % number))
                    assert (await socket.recv()).body == b"%d" % number
                    await asyncio.sleep(0.05)  # until the others are connected too
                await socket.send(Message({}, b"%d" % number))
                return (await socket.recv()).body
            finally:
                await socket.close()

        transport = self.make()
        async with self.listening(echo) as listener:
            answers = await self.soon(asyncio.gather(*map(exchange, range(200))))
            assert answers == [b"%d" % number for number in range(200)]


def has_ipv6() -> bool:
    """Whether this machine can listen at ::1."""
    try:
        with tcp.socket(tcp.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True
