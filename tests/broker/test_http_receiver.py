"""Tests of what the HTTP broker answers to good and bad posts, byte for byte."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator

import pytest

from shoal.broker._http_receiver import Receiver
from shoal.broker._local import Limits, LocalSubscription, Subscribers
from shoal.testing.conformance._broker import Inbox

GO_MICRO = (  # Go Micro v6.10
    b"POST /?id=events-abc HTTP/1.1\r\n"
    b"Host: 127.0.0.1:18099\r\n"
    b"User-Agent: Go-http-client/1.1\r\n"
    b"Content-Length: 149\r\n"
    b"Content-Type: application/json\r\n"
    b"Accept-Encoding: gzip\r\n"
    b"\r\n"
    b'{"Header":{"Content-Type":"application/json",'
    b'"Micro-ID":"98ef16c5-5bf2-4968-9f36-609288e05329","Micro-Topic":"events"},'
    b'"Body":"eyJtc2ciOiJoaSJ9Cg=="}'
)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


class Station:
    """A receiver with one subscriber, whose id is `events-abc`."""

    def __init__(self) -> None:
        self.subscribers = Subscribers(Limits(unread=4, timeout=0.2))
        self.inbox = Inbox()
        self.receiver = Receiver(
            lambda id, topic: self.subscribers.lines(topic) if id == "events-abc" else (),
            tls=None,
            max_message=10_000,
            timeout=0.3,
        )

    async def send(self, data: bytes, *, end: bytes = b"") -> bytes:
        """Send bytes on a connection of their own, and return all that comes until it closes."""
        host, _, port = self.receiver.address.rpartition(":")
        async with asyncio.timeout(20):
            reader, writer = await asyncio.open_connection(host, int(port))
            try:
                writer.write(data)
                if not end:
                    writer.write_eof()
                    return await reader.read()
                return await reader.readuntil(end)
            finally:
                writer.close()

    async def post(self, body: bytes, *, target: str = "/?id=events-abc") -> tuple[int, bytes]:
        """Post and return status and text."""
        head = f"POST {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        answer = await self.send(
            head.encode() + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
        )
        first, _, text = answer.partition(b"\r\n\r\n")
        return int(first.split()[1]), text


@pytest.fixture
async def station() -> AsyncIterator[Station]:
    station = Station()
    await station.receiver.listen("127.0.0.1:0")
    subscription = LocalSubscription(station.subscribers.line("events", ""), station.inbox.deliver)
    yield station
    station.inbox.gate.set()
    await subscription.unsubscribe()
    await station.receiver.close()


async def test_the_post_of_go_micro_is_taken(station: Station) -> None:
    assert await station.send(GO_MICRO, end=b"\r\n\r\n") == OK
    await station.inbox.has(1)
    (message,) = station.inbox.messages
    assert message.body == b'{"msg":"hi"}\n'
    assert message.header == {
        "Content-Type": "application/json",
        "Micro-Id": "98ef16c5-5bf2-4968-9f36-609288e05329",
        "Micro-Topic": "events",
    }


async def test_many_posts_on_one_connection_are_answered_in_turn(station: Station) -> None:
    last = GO_MICRO.replace(b"Accept-Encoding: gzip", b"Connection: close")
    assert await station.send(GO_MICRO * 3 + last) == OK * 4
    await station.inbox.has(4)


@pytest.mark.parametrize(
    "body",
    [
        b'{"Header":{":topic":"events","Micro-Topic":"other"},"Body":"MQ=="}',
        b'{"Header":{":topic":"events"},"Body":"MQ=="}',
        b'{"header":{"micro-topic":"events"},"BODY":"MQ=="}',
        b'{"Body":"MQ==","More":[1,{}],"Header":{"Micro-Topic":"events","Null":null}}',
        b' {"Header": {"Micro-Topic": "\\u0065vents", "not a name": "x"}, "Body": "MQ=="}\n',
    ],
)
async def test_the_forms_an_event_can_have(station: Station, body: bytes) -> None:
    for target in ("/?id=events-abc", "/_sub?id=events-abc", "/?x=1&id=events%2Dabc"):
        assert await station.post(body, target=target) == (200, b"")
    await station.inbox.has(3)
    assert station.inbox.bodies == [b"1"] * 3
    assert not any(name.startswith(":") for name in station.inbox.messages[0].header)


@pytest.mark.parametrize("body", [b'"Body":null', b'"Body":""', b'"Other":1'])
async def test_no_body_is_an_empty_body(station: Station, body: bytes) -> None:
    assert await station.post(b'{"Header":{"Micro-Topic":"events"},%b}' % body) == (200, b"")
    await station.inbox.has(1)
    assert station.inbox.bodies == [b""]


async def test_another_method_is_not_allowed(station: Station) -> None:
    answer = await station.send(b"GET /?id=events-abc HTTP/1.1\r\nHost: x\r\n\r\n", end=b"}")
    assert answer.startswith(b"HTTP/1.1 405 Method Not Allowed\r\n")
    assert answer.endswith(
        b'{"id":"go.micro.broker","code":400,"detail":"Method not allowed","status":"Bad Request"}'
    )


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", b"Error parsing request body: "),
        (b"{", b"Error parsing request body: "),
        (b"[]", b"Error parsing request body: "),
        (b"\xff\xfe", b"Error parsing request body: "),
        (b"[" * 5000, b"Error parsing request body: "),
        (b'{"Header":[],"Body":"MQ=="}', b"Error parsing request body: "),
        (b'{"Header":{"Micro-Topic":7},"Body":"MQ=="}', b"Error parsing request body: "),
        (b'{"Header":{"Micro-Topic":"events"},"Body":"M"}', b"Error parsing request body: "),
        (b'{"Header":{"Micro-Topic":"events"},"Body":7}', b"Error parsing request body: "),
        (b"null", b"Error parsing request body: "),
        (b"{}", b"Topic not found"),
        (b'{"Header":null,"Body":null}', b"Topic not found"),
        (b'{"Header":{"Micro-Topic":""},"Body":"MQ=="}', b"Topic not found"),
    ],
)
async def test_what_is_no_event_is_said_so(station: Station, body: bytes, said: bytes) -> None:
    status, text = await station.post(body)
    assert (status, text[:43]) == (500, b'{"id":"go.micro.broker","code":500,"detail"')
    assert said in text
    assert await station.send(GO_MICRO, end=b"\r\n\r\n") == OK, "it goes on serving"


@pytest.mark.parametrize("target", ["/", "/?id=", "/?id=events-ab", "/?other=events-abc", "*"])
async def test_an_unknown_id_gets_nothing(station: Station, target: str) -> None:
    status, _ = await station.post(GO_MICRO.partition(b"\r\n\r\n")[2], target=target)
    assert status == 404
    assert not station.inbox.messages


async def test_a_topic_that_is_not_the_nodes_gets_nothing(station: Station) -> None:
    status, _ = await station.post(b'{"Header":{"Micro-Topic":"event"},"Body":"MQ=="}')
    assert status == 404


async def test_too_much_is_refused(station: Station) -> None:
    envelope = b'{"Header":{"Micro-Topic":"events"},"Body":"%b"}' % (b"AAAA" * 5000)
    assert (await station.post(envelope))[0] == 413
    head = b"POST /?id=events-abc HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999\r\n\r\n"
    assert b" 413 " in await station.send(head, end=b"\r\n\r\n")
    head = b"POST /?id=" + b"x" * 300_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n"
    assert b" 431 " in await station.send(head, end=b"\r\n\r\n")
    assert await station.send(GO_MICRO, end=b"\r\n\r\n") == OK


async def test_slow_and_unfinished_posts_end(station: Station) -> None:
    for data in (b"", b"POST /", GO_MICRO[:-1]):
        host, _, port = station.receiver.address.rpartition(":")
        async with asyncio.timeout(20):
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(data)
            answer = await reader.read()
            writer.close()
        assert answer == b"" or b" 408 " in answer
    assert not station.inbox.messages


async def test_garbage_ends_nothing_but_its_connection(station: Station) -> None:
    generator = random.Random(7)
    for _ in range(100):
        data = bytearray(GO_MICRO)
        for _ in range(generator.randint(1, 20)):
            data[generator.randrange(len(data))] = generator.randrange(256)
        await station.send(bytes(data[: generator.randint(1, len(data))]))
    for _ in range(20):
        await station.send(generator.randbytes(generator.randint(1, 2000)))
    assert await station.send(GO_MICRO, end=b"\r\n\r\n") == OK


async def test_a_subscriber_without_room_refuses_in_the_end(station: Station) -> None:
    station.inbox.gate.clear()
    answers = [await station.send(GO_MICRO, end=b"\r\n\r\n") for _ in range(6)]
    assert answers[:5] == [OK] * 5
    assert b" 503 " in answers[5]
    station.inbox.gate.set()
    await station.inbox.has(5)
    assert await station.send(GO_MICRO, end=b"\r\n\r\n") == OK
