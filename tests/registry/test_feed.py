"""Tests of the queue between a registry and a watcher."""

from __future__ import annotations

import asyncio

import pytest

from shoal.errors import Unavailable
from shoal.registry import Change, Record
from shoal.registry._feed import Feed

CHANGES = [Change("create", Record(str(index))) for index in range(5)]


async def test_changes_come_in_order() -> None:
    feed = Feed()
    for change in CHANGES:
        feed.put(change)
    assert [await feed.next() for _ in CHANGES] == CHANGES


async def test_a_waiting_reader_is_woken() -> None:
    feed = Feed()
    reading = asyncio.ensure_future(feed.next())
    await asyncio.sleep(0)
    feed.put(CHANGES[0])
    assert await reading == CHANGES[0]


async def test_the_end_comes_after_what_was_put() -> None:
    feed = Feed()
    feed.put(CHANGES[0])
    feed.end()
    feed.put(CHANGES[1])
    assert [await feed.next() for _ in range(3)] == [CHANGES[0], None, None]
    assert repr(feed) == "Feed(0 unread, ended)"


async def test_what_does_not_fit_is_not_lost_in_silence() -> None:
    feed = Feed(limit=3)
    for change in CHANGES:
        feed.put(change)
    assert [await feed.next() for _ in range(3)] == CHANGES[:3]
    with pytest.raises(Unavailable, match="missed"):
        await feed.next()


async def test_what_was_read_makes_room() -> None:
    feed = Feed(limit=10)
    for change in CHANGES:
        feed.put(change, weight=9)
        assert await feed.next() == change


async def test_a_cancelled_reader_loses_nothing() -> None:
    feed = Feed()
    reading = asyncio.ensure_future(feed.next())
    await asyncio.sleep(0)
    feed.put(CHANGES[0])
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert await feed.next() == CHANGES[0]
