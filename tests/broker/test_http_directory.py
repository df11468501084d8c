"""Tests of what the HTTP broker knows of subscribers, and when it asks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from shoal.broker import _http_directory
from shoal.broker._http_directory import Directory
from shoal.errors import Unavailable
from shoal.registry import Change, Node, Record
from shoal.registry.memory import MemoryRegistry
from shoal.testing.conformance._broker import settles

NAME = "micro.http.broker"


class Counted(MemoryRegistry):
    """A memory registry that counts look-ups and can lose some answers, watches, or all."""

    asked = 0
    lost: frozenset[str] = frozenset()
    down = False

    async def get(self, name: str) -> list[Record]:
        self.asked += 1
        if self.down:
            raise Unavailable("the registry is down")
        return [
            record
            for record in await super().get(name)
            if not self.lost.intersection(node.id for node in record.nodes)
        ]

    async def watch(self, name: str | None = None) -> AsyncIterator[Change]:
        if self.down:
            raise Unavailable("the registry is down")
        async for change in super().watch(name):
            yield change

    def break_watches(self) -> None:
        for feed in list(self._watches):
            feed.end(Unavailable("the watch was lost"))


def record(id: str, topic: str = "events", version: str = "mail") -> Record:
    return Record(NAME, version, (Node(id, "127.0.0.1:1", {"broker": "http", "topic": topic}),))


@pytest.fixture
def registry() -> Counted:
    return Counted()


@pytest.fixture
async def directory(registry: Counted) -> AsyncIterator[Directory]:
    async with asyncio.timeout(60):
        directory = Directory(registry, NAME)
        yield directory
        await directory.close()
        assert len(asyncio.all_tasks()) == 1


async def look(directory: Directory, topic: str = "events") -> list[str]:
    """Look up if need be, and return the ids of a topic."""
    if task := directory.refresh(topic):
        await asyncio.wait([task])
    return sorted(id for _, id in directory.nodes(topic))


async def becomes(directory: Directory, expected: list[str]) -> None:
    """Go on looking up until these are the nodes."""
    while await look(directory) != expected:  # noqa: ASYNC110  # the fixture limits the time
        await asyncio.sleep(0.01)


async def test_one_look_up_serves_all_topics(registry: Counted, directory: Directory) -> None:
    await registry.register(record("a"))
    await registry.register(record("b", "other"))
    assert await look(directory) == ["a"]
    assert await look(directory, "other") == ["b"]
    for _ in range(10):
        assert await look(directory, "nobody") == []
    assert registry.asked == 1


async def test_who_comes_and_goes_is_seen_without_a_look_up(
    registry: Counted, directory: Directory
) -> None:
    assert await look(directory) == []
    await registry.register(record("a"))
    await registry.register(record("b", version="ff.http.broadcast"))
    await settles(lambda: len(directory.nodes("events")) == 2)
    await registry.deregister(record("a"))
    await settles(lambda: list(directory.nodes("events")) == [("ff.http.broadcast", "b")])
    assert registry.asked == 1


async def test_a_new_address_replaces_the_old_one(registry: Counted, directory: Directory) -> None:
    await registry.register(record("a"))
    assert await look(directory) == ["a"]
    moved = Node("a", "127.0.0.1:2", {"broker": "http", "topic": "events"})
    await registry.register(Record(NAME, "mail", (moved,)))
    await settles(
        lambda: [n.address for n in directory.nodes("events").values()] == [moved.address]
    )


async def test_a_node_may_be_missing_in_an_answer_but_not_for_ever(
    registry: Counted, directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_http_directory, "FRESH", -1.0)
    await registry.register(record("a"))
    assert await look(directory) == ["a"]
    registry.lost = frozenset("a")
    assert await look(directory) == ["a"]
    assert await look(directory) == ["a"]
    registry.lost = frozenset()
    assert await look(directory) == ["a"]
    registry.lost = frozenset("a")
    assert await look(directory) == ["a"]
    assert await look(directory) == ["a"]
    assert await look(directory) == []


async def test_a_lost_watch_is_begun_anew_and_what_it_missed_looked_up(
    registry: Counted, directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_http_directory, "PAUSE", 0.01)
    await registry.register(record("a"))
    assert await look(directory) == ["a"]
    registry.break_watches()
    await registry.register(record("b"))
    await becomes(directory, ["a", "b"])
    await registry.register(record("c"))
    await becomes(directory, ["a", "b", "c"])


async def test_the_last_known_nodes_stand_while_the_registry_is_down(
    registry: Counted, directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_http_directory, "FRESH", -1.0)
    await registry.register(record("a"))
    assert await look(directory) == ["a"]
    registry.down = True
    for _ in range(5):
        assert await look(directory) == ["a"]
    assert directory.answered


async def test_a_node_that_failed_rests_for_a_while(
    registry: Counted, directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_http_directory, "REST", 0.05)
    await registry.register(record("a"))
    await registry.register(record("b"))
    assert await look(directory) == ["a", "b"]
    directory.failed("events", "mail", "a")
    assert list(directory.nodes("events")) == [("mail", "b")]
    await settles(lambda: len(directory.nodes("events")) == 2)


async def test_a_registry_that_never_answered_is_not_asked_without_end(
    registry: Counted, directory: Directory
) -> None:
    registry.down = True
    for _ in range(10):
        assert await look(directory) == []
    assert not directory.answered
    assert registry.asked == 1
