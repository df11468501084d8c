"""What is left behind is found."""

import asyncio
import re
import socket
import threading

import pytest

import shoal
from shoal.testing.leaks import no_leaks


class Echo:
    async def say(self, word: str) -> str:
        return word


async def test_what_has_an_owner_leaves_nothing() -> None:
    async with no_leaks(10):
        service = shoal.Service("echo", registry="memory", broker="http", address="127.0.0.1:0")
        service.handle(Echo())
        async with service:
            call = shoal.Request("echo", "Echo.Say", "a", str)
            assert await service.client.call(call, timeout=5) == "a"


async def test_a_task_is_found() -> None:
    task = None
    with pytest.raises(AssertionError, match=r"left behind: <Task pending .*sleep"):
        async with no_leaks(0.05):
            task = asyncio.create_task(asyncio.sleep(3600))
    assert task is not None
    task.cancel()


async def test_a_socket_is_found() -> None:
    found = None
    with pytest.raises(AssertionError, match=re.escape("laddr=('127.0.0.1', ")):
        async with no_leaks(0.05):
            found = socket.create_server(("127.0.0.1", 0))
    assert found is not None
    found.close()


async def test_a_thread_is_found() -> None:
    done = threading.Event()
    thread = threading.Thread(target=done.wait, name="forgotten")
    with pytest.raises(AssertionError, match="forgotten"):
        async with no_leaks(0.05):
            thread.start()
    done.set()
    thread.join()


async def test_what_was_there_and_what_is_going_do_not_count() -> None:
    task = asyncio.create_task(asyncio.sleep(3600))
    async with no_leaks(10):
        going = asyncio.create_task(asyncio.sleep(0.05))
        await asyncio.to_thread(int)
    assert going.done()
    task.cancel()
