"""The inbox resumes a task the moment a message comes, and loses none."""

from __future__ import annotations

import asyncio
import contextvars

import pytest

from shoal.errors import ConnectionClosed
from shoal.message import Message
from shoal.transport._inbox import Inbox

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")


def message(number: int) -> Message:
    return Message({}, b"%d" % number)


async def take(inbox: Inbox) -> bytes:
    return (await inbox).body


async def test_the_receiver_runs_before_put_returns() -> None:
    loop = asyncio.get_running_loop()
    inbox = Inbox(loop)
    got: list[bytes] = []

    async def receive() -> None:
        while True:
            got.append(await take(inbox))

    task = asyncio.create_task(receive())
    await asyncio.sleep(0)
    seen: list[int] = []

    def arrive() -> None:
        for number in range(3):
            inbox.put(message(number))
            seen.append(len(got))

    loop.call_soon(arrive)
    await asyncio.sleep(0.01)
    assert seen == [1, 2, 3]
    assert got == [b"0", b"1", b"2"]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_the_receiver_runs_as_its_own_task_in_its_own_context() -> None:
    loop = asyncio.get_running_loop()
    inbox = Inbox(loop)
    seen: list[object] = []

    async def receive() -> None:
        variable.set("mine")
        for _ in range(2):
            await inbox
            seen.append((variable.get(), asyncio.current_task() is task))
            async with asyncio.timeout(1):  # needs the task to be the current one
                await asyncio.sleep(0)

    task = asyncio.create_task(receive())
    await asyncio.sleep(0)
    for number in range(2):
        loop.call_soon(inbox.put, message(number))
        await asyncio.sleep(0.01)
    await task
    assert seen == [("mine", True)] * 2
    assert variable.get() == "none"


async def test_a_message_and_a_cancellation_at_once() -> None:
    """Whichever comes first, the message is there for the next who receives."""
    loop = asyncio.get_running_loop()
    for order in ("message", "cancellation"):
        inbox = Inbox(loop)
        task = asyncio.create_task(take(inbox))
        await asyncio.sleep(0)
        if order == "message":
            loop.call_soon(inbox.put, message(1))
            loop.call_soon(task.cancel)
        else:
            task.cancel()
            loop.call_soon(inbox.put, message(1))
        await asyncio.wait([task])
        if task.cancelled():
            assert await take(inbox) == b"1"
        else:
            assert task.result() == b"1"


async def test_cancelled_and_received_again_at_once() -> None:
    loop = asyncio.get_running_loop()
    inbox = Inbox(loop)

    async def stubborn() -> bytes:
        try:
            return await take(inbox)
        except asyncio.CancelledError:
            return await take(inbox)

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    task.cancel()
    loop.call_soon(inbox.put, message(1))
    assert await task == b"1"


async def test_the_end_comes_after_the_messages_and_stays() -> None:
    inbox = Inbox(asyncio.get_running_loop())
    inbox.put(message(1))
    inbox.end(ConnectionClosed("first"))
    inbox.end(ConnectionClosed("second"))
    inbox.put(message(2))
    assert await take(inbox) == b"1"
    for _ in range(2):
        with pytest.raises(ConnectionClosed, match="first"):
            await inbox


async def test_only_one_task_may_wait() -> None:
    inbox = Inbox(asyncio.get_running_loop())
    task = asyncio.create_task(take(inbox))
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="another task"):
        await inbox
    asyncio.get_running_loop().call_soon(inbox.put, message(1))
    assert await task == b"1"


async def test_in_a_timeout_and_a_group() -> None:
    loop = asyncio.get_running_loop()
    inbox = Inbox(loop)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await inbox
    async with asyncio.TaskGroup() as group:
        task = group.create_task(take(inbox))
        await asyncio.sleep(0)
        loop.call_soon(inbox.put, message(1))
    assert task.result() == b"1"
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(take(inbox), 0.01)
    loop.call_later(0.01, inbox.put, message(2))
    assert await asyncio.wait_for(take(inbox), 5) == b"2"
