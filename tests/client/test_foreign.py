"""A client outside the event loop, or the process, it belongs to."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import shoal
from shoal.client import Client
from shoal.testing import Network

REQUEST = shoal.Request("echo", "Echo.Say", "a", str)


class Echo:
    async def say(self, word: str) -> str:
        return word


async def call(client: Client) -> None:
    await client.call(REQUEST)


async def stream(client: Client) -> None:
    async with client.stream(REQUEST):
        pass


async def publish(client: Client) -> None:
    await client.publish("topic", "a")


@pytest.mark.parametrize("use", [call, stream, publish])
async def test_another_loop_is_told(use: Callable[[Client], Awaitable[None]]) -> None:
    async with Network() as network:
        await network.serve(Echo())
        await network.client.call(REQUEST)
        raised: list[BaseException] = []

        def elsewhere() -> None:
            with pytest.raises(RuntimeError) as caught:
                asyncio.run(_run(use(network.client)))
            raised.append(caught.value)

        thread = threading.Thread(target=elsewhere)
        thread.start()
        await asyncio.to_thread(thread.join, 30)
        assert "belongs to" in str(raised[0])
        assert await network.client.call(REQUEST) == "a"  # nothing of it is hurt


async def _run(work: Awaitable[Any]) -> None:
    async with asyncio.timeout(10):
        await work


PROGRAM = """
import asyncio, os, sys
import shoal
from shoal.testing import serve
from tests.client.test_foreign import call, publish, stream, Echo, REQUEST


def tells(run, client):
    for use in (call, stream, publish):
        try:
            run(use(client))
        except RuntimeError as error:
            assert "forked" in str(error), error
        else:
            raise AssertionError(use)


def child(work):
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    assert status == 0, status


def drive(work):
    try:
        work.send(None)
    except StopIteration:
        pass
    else:
        raise AssertionError("it waits")


async def main():
    service = shoal.Service("echo", registry="memory", broker="memory", address="127.0.0.1:0",
                            server_linger=0.0)
    service.handle(Echo())
    async with service:
        client = service.client
        await client.call(REQUEST)
        child(lambda: tells(lambda work: asyncio.run(work), client))  # another loop
        child(lambda: tells(drive, client))  # the same task goes on
        assert await client.call(REQUEST) == "a"

        async def fresh():
            async with serve(Echo()) as own:
                assert await own.call(REQUEST) == "a"

        child(lambda: asyncio.run(fresh()))


{runner}(main())
"""


@pytest.mark.parametrize("runner", ["asyncio.run", "__import__('uvloop').run"])
def test_a_forked_process_is_told(runner: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM.replace("{runner}", runner)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
