"""Tests of the sockets mDNS speaks through."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import sys
import uuid
from typing import Any

import pytest

from shoal.errors import Unavailable
from shoal.registry._mdns_sockets import GROUP4, PORT, Address, Multicast

LOOPBACK = next(name for _, name in socket.if_nameindex() if name.startswith("lo"))


class Heard:
    """What came in with a mark of this test's own: others speak to the group too."""

    def __init__(self) -> None:
        self.mark = uuid.uuid4().bytes
        self.datagrams: list[tuple[bytes, Address]] = []

    def __call__(self, _: Multicast, data: bytes, address: Address) -> None:
        if data.startswith(self.mark):
            self.datagrams.append((data.removeprefix(self.mark), address))

    async def until(self, count: int) -> None:
        async with asyncio.timeout(20):
            while len(self.datagrams) < count:  # noqa: ASYNC110 - a socket is waited for
                await asyncio.sleep(0.01)


async def test_all_who_listen_hear_what_is_sent_and_can_answer() -> None:
    heard, answered = [Heard(), Heard()], Heard()
    heard[1].mark = answered.mark = heard[0].mark
    listening = [Multicast(each, listen=True, interface=LOOPBACK) for each in heard]
    asking = Multicast(answered, listen=False, interface=LOOPBACK)
    asking.send(heard[0].mark + b"question")
    for listener, each in zip(listening, heard, strict=True):
        await each.until(1)
        data, address = each.datagrams[0]
        assert data == b"question"
        listener.reply(each.mark + b"answer", address)
    await answered.until(2)
    for multicast in [*listening, asking]:
        multicast.close()
        multicast.close()


async def test_what_was_not_sent_to_the_group_is_not_heard() -> None:
    heard = Heard()
    listening = Multicast(heard, listen=True, interface=LOOPBACK)
    for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as stranger:
            stranger.sendto(heard.mark + b"from far away", (host, PORT))  # if there is IPv6
    asking = Multicast(Heard(), listen=False, interface=LOOPBACK)
    asking.send(heard.mark + b"from near")
    await heard.until(1)
    assert {data for data, _ in heard.datagrams} == {b"from near"}
    asking.close()
    listening.close()


async def test_what_has_arrived_can_be_read_before_the_loop_gets_to_it() -> None:
    heard = Heard()
    listening = Multicast(heard, listen=True, interface=LOOPBACK)
    asking = Multicast(Heard(), listen=False, interface=LOOPBACK)
    for index in range(50):
        asking.send(heard.mark + bytes([index]))
    listening.drain()
    assert len(heard.datagrams) >= 50
    asking.close()
    listening.close()


async def test_without_a_default_route_every_interface_is_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chosen: list[int] = []

    class Socket(socket.socket):
        def setsockopt(self, *arguments: Any) -> None:
            if arguments[:2] == (socket.IPPROTO_IP, socket.IP_MULTICAST_IF):
                chosen.append(int.from_bytes(arguments[2][-4:], sys.byteorder))
            super().setsockopt(*arguments)

        def sendto(self, *arguments: Any) -> int:
            if not chosen or not chosen[-1]:
                raise OSError(errno.ENETUNREACH, "Network is unreachable")
            return super().sendto(*arguments)

    monkeypatch.setattr("shoal.registry._mdns_sockets.socket.socket", Socket)
    heard = Heard()
    listening = Multicast(heard, listen=True)
    listening.send(heard.mark + b"hello")
    indexes = [index for index, _ in socket.if_nameindex()]
    assert chosen == [*indexes, 0]
    await heard.until(1)
    listening.close()


async def test_a_datagram_too_large_is_the_senders_problem_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    sending = Multicast(Heard(), listen=False, interface=LOOPBACK)
    sending.reply(bytes(70_000), ("127.0.0.1", 9))
    with pytest.raises(Unavailable):
        sending.send(bytes(70_000))
    sending.close()
    assert GROUP4 not in repr(sending)
