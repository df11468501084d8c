"""A blocked event loop is found from a thread beside it, with the line that blocks it."""

from __future__ import annotations

import asyncio
import copy
import logging
import sys
import threading
import time
import zlib

import pytest

from shoal.service._watchdog import Watchdog, culprit


async def settled(watchdog: Watchdog, text: str, caplog: pytest.LogCaptureFixture) -> None:
    async with asyncio.timeout(20):
        while text not in caplog.text:  # noqa: ASYNC110  # a thread writes it
            await asyncio.sleep(0.01)


def block_for(seconds: float) -> None:
    time.sleep(seconds)


async def test_it_names_the_line_once_and_tells_how_long_it_took(
    caplog: pytest.LogCaptureFixture,
) -> None:
    watchdog = Watchdog(0.1)
    watchdog.start()
    try:
        await asyncio.sleep(0.05)
        assert watchdog.blocked == 0.0
        block_for(0.8)
        await settled(watchdog, "the event loop was blocked for", caplog)
    finally:
        watchdog.stop()
    line = block_for.__code__.co_firstlineno + 1
    where = f"{__file__}:{line} in block_for"
    found = [record for record in caplog.records if "has been blocked" in record.getMessage()]
    if found:  # else this machine was so busy that the watchdog slept as well, and said so
        assert len(found) == 1
        assert where in found[0].getMessage()
        assert watchdog.blockages == 1
        assert watchdog.where == where


async def test_another_thread_sees_how_long_it_is_blocked(
    caplog: pytest.LogCaptureFixture,
) -> None:
    watchdog = Watchdog(0.1)
    seen: list[float] = []
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.01):
            seen.append(watchdog.blocked)

    watchdog.start()
    thread = threading.Thread(target=look)
    thread.start()
    try:
        await asyncio.sleep(0.05)
        block_for(0.6)
    finally:
        over.set()
        thread.join()
        watchdog.stop()
    assert 0.1 <= max(seen) < 30
    assert watchdog.blocked == 0.0


async def test_a_loop_that_turns_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    watchdog = Watchdog(5.0)
    watchdog.start()
    for _ in range(20):
        await asyncio.sleep(0.005)
    watchdog.stop()
    assert not watchdog.blockages
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert not [one for one in threading.enumerate() if one.name == "watchdog"]


async def test_it_ends_with_a_loop_that_nobody_stopped_it_for() -> None:
    watchdog = Watchdog(0.04)

    async def start() -> None:
        watchdog.start()

    await asyncio.to_thread(lambda: asyncio.run(start()))
    async with asyncio.timeout(20):
        while [one for one in threading.enumerate() if one.name == "watchdog"]:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    watchdog.stop()


def test_it_ends_with_a_loop_that_was_asked_and_never_turned_again() -> None:
    watchdog = Watchdog(0.04)
    loop = asyncio.new_event_loop()

    def run() -> None:
        watchdog.start()
        while watchdog._answered:
            time.sleep(0.001)
        loop.stop()

    loop.call_soon(run)
    loop.run_forever()
    loop.close()
    thread = watchdog._thread
    assert thread is not None
    thread.join(20)
    assert not thread.is_alive()
    watchdog.stop()


def test_the_line_is_the_innermost_outside_of_libraries() -> None:
    seen: list[str] = []

    class Copied:
        def __copy__(self) -> str:
            seen.append(culprit(sys._getframe()))
            frame = sys._getframe().f_back  # in the standard library
            assert frame is not None
            seen.append(culprit(frame))
            return ""

    copy.copy(Copied())
    assert seen[0].endswith("in __copy__")
    mine, _, library = seen[1].partition(" (in ")
    assert mine.endswith("in test_the_line_is_the_innermost_outside_of_libraries")
    assert "copy.py" in library


async def test_a_process_that_did_not_run_blames_no_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A C function that keeps the interpreter's lock stops the watchdog's thread as well."""
    watchdog = Watchdog(0.05)
    watchdog.start()
    try:
        await asyncio.sleep(0.05)
        interval = sys.getswitchinterval()
        sys.setswitchinterval(10.0)  # nobody else gets the lock while this thread computes
        try:
            until = time.monotonic() + 0.5
            while time.monotonic() < until:
                zlib.crc32(b"x")
        finally:
            sys.setswitchinterval(interval)
        await settled(watchdog, "no thread of this process ran for", caplog)
    finally:
        watchdog.stop()
    assert watchdog.blocked == 0.0
