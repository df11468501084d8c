"""Module _transport_messages holds what a transport promises of messages on an open connection."""

from __future__ import annotations

import asyncio

import pytest

from shoal.errors import BadRequest
from shoal.message import Header, Message
from shoal.testing.conformance._transport import TransportSuite, numbered, receive, send_all

VALUES = {
    "empty": "",
    "blanks": "one two  three",
    "punctuation": "a:b, \"c\"; 'd' \\ %41 =?utf-8?q?x?= {}",
    "not ASCII": "Grüße, 世界 \N{FISH}",
    "long": "x" * 8192,
    "JSON": '{"id":"greeter","code":404,"detail":"no \\"one\\"","status":"Not Found"}',
}
BODIES = {
    "empty": b"",
    "every byte": bytes(range(256)) * 3,
    "line breaks": b"\r\n\r\n",
    "a message": b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello",
    "300 KiB": b"0123456789abcdef" * 19200,
}
BAD_NAMES = ("", "a b", "a:b", "A\r\nB", "A\nContent-Length", "a\0", "é", "a/b")


class MessageTests(TransportSuite):
    """Messages arrive whole, in order, both ways at once."""

    # What a message carries

    @pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
    async def test_header_values_arrive_as_they_were_sent(self, value: str) -> None:
        async with self.pair() as (client, server):
            for sender, receiver in ((client, server), (server, client)):
                await sender.send(Message({"Micro-Id": "7", "Value": value}, b"body"))
                got = await self.soon(receiver.recv())
                assert (got.header["Value"], got.header["Micro-Id"]) == (value, "7")
                assert got.body == b"body"

    @pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
    async def test_bodies_arrive_as_they_were_sent(self, body: bytes) -> None:
        async with self.pair() as (client, server):
            for sender, receiver in ((client, server), (server, client)):
                await sender.send(Message({"A": "b"}, body))
                got = (await self.soon(receiver.recv())).body
                assert isinstance(got, bytes)
                assert got == body

    async def test_a_large_body_arrives(self) -> None:
        body = bytes(range(251)) * (self.largest // 251)
        async with self.pair() as (client, server):
            sending = asyncio.create_task(client.send(Message({}, body)))
            assert (await self.soon(server.recv())).body == body
            await sending

    async def test_names_arrive_in_canonical_form(self) -> None:
        async with self.pair() as (client, server):
            await client.send(Message({"micro-ID": "1", "X_y-z": "2", "FOO": "3"}))
            got = (await self.soon(server.recv())).header
            assert (got["Micro-Id"], got["X_y-Z"], got["Foo"]) == ("1", "2", "3")

    async def test_a_message_without_headers_arrives(self) -> None:
        async with self.pair() as (client, server):
            await client.send(Message())
            assert (await self.soon(server.recv())).body == b""

    async def test_many_headers_arrive(self) -> None:
        header = {f"Name-{number}": str(number) for number in range(100)}
        async with self.pair() as (client, server):
            await client.send(Message(dict(header)))
            assert header.items() <= (await self.soon(server.recv())).header.items()

    async def test_line_breaks_in_values_become_blanks(self) -> None:
        async with self.pair() as (client, server):
            await client.send(Message({"A": "one\r\nEvil: two\nthree\rfour\0five"}))
            got = (await self.soon(server.recv())).header
            assert got["A"].split() == ["one", "Evil:", "two", "three", "four", "five"]
            assert not set(got["A"]) & set("\r\n\0")
            assert "Evil" not in got

    @pytest.mark.parametrize("name", BAD_NAMES)
    async def test_a_bad_name_is_refused_and_the_socket_works_on(self, name: str) -> None:
        async with self.pair() as (client, server):
            with pytest.raises(BadRequest):
                await client.send(Message({name: "x"}, b"bad"))
            await client.send(Message({"A": "b"}, b"good"))
            assert (await self.soon(server.recv())).body == b"good"

    async def test_a_bad_name_beside_a_shared_header_is_refused_each_time(self) -> None:
        async with self.pair() as (client, server):
            shared = Header({"Shared": "1"})
            await client.send(Message({"Id": "1"}, shared=shared))
            for _ in range(2):
                bad = Message({"a b": "1"}, shared=shared)
                assert not client.try_send(bad)
                with pytest.raises(BadRequest):
                    await client.send(bad)
            await client.send(Message({"Id%s": "2"}, shared=shared))
            assert (await self.soon(server.recv())).header["Id"] == "1"
            assert (await self.soon(server.recv())).header["Id%s"] == "2"

    async def test_shared_headers_arrive_and_the_message_s_own_win(self) -> None:
        shared = Header({"Micro-Service": "greeter", "Micro-Endpoint": "Greeter.Hello"})
        async with self.pair() as (client, server):
            for sender, receiver in ((client, server), (client, server), (server, client)):
                message = Message({"Micro-Endpoint": "Own.One", "A": "b"}, b"x", shared)
                await sender.send(message)
                got = await self.soon(receiver.recv())
                assert got.header["Micro-Service"] == "greeter"
                assert (got.header["Micro-Endpoint"], got.header["A"]) == ("Own.One", "b")
                assert got.shared is None
                assert message.header == {"Micro-Endpoint": "Own.One", "A": "b"}
            assert shared == {"Micro-Service": "greeter", "Micro-Endpoint": "Greeter.Hello"}

    async def test_sender_and_receiver_share_no_header(self) -> None:
        async with self.pair() as (client, server):
            header = {"A": "1"}
            await client.send(Message(header))
            header["A"] = "2"
            got = await self.soon(server.recv())
            assert got.header["A"] == "1"
            got.header["A"] = "3"
            assert header == {"A": "2"}

    async def test_headers_like_and_unlike_those_before_arrive_as_they_were_sent(self) -> None:
        shared, other = Header({"Shared": "1"}), Header({"Other": "2"})
        own = {"A": "1"}
        async with self.pair() as (client, server):
            for sender, receiver in ((client, server), (server, client)):
                for change, beside in (
                    ({}, shared),
                    ({}, shared),  # the same once more
                    ({"A": "2"}, shared),  # in the dict that was sent before
                    ({"B": "3"}, shared),
                    ({"A": "2"}, None),
                    ({}, other),
                    ({"A": "1"}, shared),
                ):
                    own.update(change)
                    with pytest.raises(BadRequest):
                        await sender.send(Message({"A": "9", "a b": ""}, shared=beside))
                    await sender.send(Message(own, shared=beside))
                    got = (await self.soon(receiver.recv())).header
                    found = {
                        name: got[name] for name in ("A", "B", "Shared", "Other") if name in got
                    }
                    assert found == {**own, **(beside or {})}
                    got["A"] = "its receiver's"
                own.pop("B")

    # Order, and both ways at once

    async def test_messages_arrive_in_order(self) -> None:
        async with self.pair() as (client, server):
            sending = asyncio.create_task(send_all(client, numbered(500, b"x" * 500)))
            assert await self.soon(receive(server, 500)) == list(range(500))
            await sending

    async def test_several_messages_wait_until_they_are_received(self) -> None:
        async with self.pair() as (client, server):
            await send_all(client, numbered(10))
            assert await self.soon(receive(server, 10)) == list(range(10))
            await send_all(server, numbered(10))
            assert await self.soon(receive(client, 10)) == list(range(10))

    async def test_neither_side_pairs_messages_with_the_others(self) -> None:
        async with self.pair() as (client, server):
            await send_all(server, numbered(5))
            await send_all(client, numbered(3))
            assert await self.soon(receive(client, 5)) == list(range(5))
            await send_all(server, numbered(1))
            assert await self.soon(receive(server, 3)) == list(range(3))
            assert await self.soon(receive(client, 1)) == [0]

    @pytest.mark.parametrize("size", [10, 20_000])
    async def test_both_sides_send_and_receive_at_once(self, size: int) -> None:
        async with self.pair() as (client, server):
            count = 200
            _, _, first, second = await self.soon(
                asyncio.gather(
                    send_all(client, numbered(count, b"c" * size)),
                    send_all(server, numbered(count, b"s" * size)),
                    receive(client, count),
                    receive(server, count),
                )
            )
            assert first == second == list(range(count))

    async def test_many_exchanges_one_after_another(self) -> None:
        async with self.pair() as (client, server):

            async def echo() -> None:
                while True:
                    await server.send(await server.recv())

            echoing = asyncio.create_task(echo())
            try:
                for message in numbered(200):
                    await client.send(message)
                    assert (await self.soon(client.recv())).body == message.body
            finally:
                echoing.cancel()
                await asyncio.gather(echoing, return_exceptions=True)

    # Waiting

    async def test_receiving_that_is_cancelled_loses_nothing(self) -> None:
        async with self.pair() as (client, server):
            got: list[int] = []
            sending = asyncio.create_task(send_all(client, numbered(100)))
            turn = 0
            async with asyncio.timeout(self.patience):
                while len(got) < 100:
                    receiving = asyncio.create_task(receive(server, 1))
                    for _ in range(turn % 5):
                        await asyncio.sleep(0)
                    turn += 1
                    receiving.cancel()
                    await asyncio.wait([receiving])
                    if not receiving.cancelled():
                        got += receiving.result()
            await sending
            assert got == list(range(100))

    async def test_receiving_that_timed_out_can_be_done_again(self) -> None:
        async with self.pair() as (client, server):
            for _ in range(3):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.01):
                        await client.recv()
            await server.send(Message({"Number": "1"}))
            assert await self.soon(receive(client, 1)) == [1]

    async def test_sending_waits_for_a_peer_that_does_not_receive(self) -> None:
        if not self.backpressure:
            pytest.skip("the transport has no backpressure")
        size, count = 64 * 1024, 2000
        sent = 0

        async def send() -> None:
            nonlocal sent
            for message in numbered(count, bytes(size)):
                await client.send(message)
                sent += 1

        async with self.pair() as (client, server):
            sending = asyncio.create_task(send())
            await self.settled(lambda: sent)
            assert not sending.done()
            assert sent * size < 64 * 1024 * 1024
            assert await self.soon(receive(server, count)) == list(range(count))
            await sending

    async def test_sending_that_is_cancelled_leaves_the_socket_as_it_was(self) -> None:
        async with self.pair() as (client, server):
            sent: list[int] = []
            body = bytes(64 * 1024)
            for number in range(1000):
                try:
                    async with asyncio.timeout(0.1):
                        await client.send(Message({"Number": str(number)}, body))
                except TimeoutError:
                    break
                sent.append(number)
            sending = asyncio.create_task(client.send(Message({"Number": "-1"})))
            got = await self.soon(receive(server, len(sent)))
            assert got == sent
            # What was cancelled may have gone out whole, or not at all.
            last = await self.soon(receive(server, 1))
            if last != [-1]:
                assert last == [len(sent)]
                assert await self.soon(receive(server, 1)) == [-1]
            await sending
