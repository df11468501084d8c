"""Tasks that serve accepted sockets end with their owner."""

from __future__ import annotations

import asyncio

import pytest

from shoal.errors import NotFound
from shoal.transport import Socket
from shoal.transport._accepted import AcceptedSockets
from shoal.transport.memory import MemorySocket, Turn
from tests.transport.wire import until


def socket() -> MemorySocket:
    turn = Turn(asyncio.get_running_loop())
    one, other = MemorySocket("a", "b", turn), MemorySocket("b", "a", turn)
    one.peer, other.peer = other, one
    return one


async def test_errors_end_their_socket_and_are_told_apart(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def accept(socket: Socket) -> None:
        raise errors.pop()

    errors: list[Exception] = [NotFound("ordinary"), KeyError("a mistake")]
    accepted = AcceptedSockets(accept)
    sockets = [socket(), socket()]
    for one in sockets:
        accepted.add(one)
    await until(lambda: not len(accepted))
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "a mistake" in caplog.text
    assert all("closed" in repr(one) for one in sockets)


async def test_closing_twice_and_at_once() -> None:
    ended: list[str] = []

    async def accept(socket: Socket) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.01)
            ended.append("yes")

    accepted = AcceptedSockets(accept)
    accepted.add(socket())
    await asyncio.sleep(0)
    await asyncio.gather(accepted.close(), accepted.close())
    await accepted.close()
    assert len(accepted) == 0


async def test_a_socket_that_is_being_closed_is_not_cut_short() -> None:
    closed: list[str] = []

    class Slow(MemorySocket):
        async def close(self) -> None:
            await asyncio.sleep(0.05)
            await super().close()
            closed.append("yes")

    async def accept(socket: Socket) -> None:
        return

    accepted = AcceptedSockets(accept)
    turn = Turn(asyncio.get_running_loop())
    slow, other = Slow("a", "b", turn), MemorySocket("b", "a", turn)
    slow.peer, other.peer = other, slow
    accepted.add(slow)
    await asyncio.sleep(0.01)
    await accepted.close()
    assert closed == ["yes"]
