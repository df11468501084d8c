"""Module _http_directory knows from the registry who subscribes to which topic over HTTP."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass

from shoal.errors import Error
from shoal.registry import Node, Record, Registry

logger = logging.getLogger(__name__)

FRESH = 30.0  # seconds after which the registry is asked again, while events are published
PAUSE = 1.0  # seconds between questions at least: topics nobody listens to are published too
TIMEOUT = 10.0  # seconds for one question
MISSES = 3  # answers of the registry a node may be missing in: multicast loses packets
REST = 5.0  # seconds a node that could not be reached is left alone

Key = tuple[str, str]
"""The version of a record, which is a queue or `ff.http.broadcast`, and the id of a node."""


@dataclass(slots=True)
class _Entry:
    node: Node
    missed: int = 0
    rests_until: float = 0.0


class Directory:
    """The nodes of one name in the registry, by topic: kept by a watch, filled by look-ups."""

    def __init__(self, registry: Registry, name: str) -> None:
        self._registry = registry
        self._name = name
        self._topics: dict[str, dict[Key, _Entry]] = {}
        self._known = False  # the registry has answered once
        self._asked = float("-inf")
        self._asking: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"Directory({self._name!r}, topics={sorted(self._topics)})"

    @property
    def answered(self) -> bool:
        """Whether the registry has told anything yet."""
        return self._known

    def nodes(self, topic: str) -> Mapping[Key, Node]:
        """Return the nodes of a topic that are not known to be out of reach."""
        now = asyncio.get_running_loop().time()
        entries = self._topics.get(topic, {})
        return {key: entry.node for key, entry in entries.items() if entry.rests_until <= now}

    def refresh(self, topic: str) -> asyncio.Task[None] | None:
        """Look up if it is time to; returns the look-up that is under way."""
        loop = asyncio.get_running_loop()
        if self._watching is None:
            self._watching = loop.create_task(self._watch())  # begins before the look-up does
        age = loop.time() - self._asked
        if self._asking is None and age > (FRESH if topic in self._topics else PAUSE):
            self._asked = loop.time()
            self._asking = loop.create_task(self._ask())
        return self._asking

    def add(self, record: Record) -> None:
        """Take in nodes that were registered."""
        for node in record.nodes:
            if node.metadata.get("broker") == "http":  # other brokers may use the name too
                topic = self._topics.setdefault(node.metadata.get("topic", ""), {})
                entry = topic.get((record.version, node.id))
                if entry is not None and entry.node == node:
                    entry.missed = 0
                else:
                    topic[record.version, node.id] = _Entry(node)

    def remove(self, record: Record) -> None:
        """Forget nodes; a registry may not tell the metadata of those that are gone."""
        gone = {(record.version, node.id) for node in record.nodes}
        for topic in list(self._topics):
            for key in gone & self._topics[topic].keys():
                self._forget(topic, key)

    def failed(self, topic: str, version: str, id: str) -> None:
        """Leave a node alone for a while: it may be gone without a word to the registry."""
        entry = self._topics.get(topic, {}).get((version, id))
        if entry is not None:
            entry.rests_until = asyncio.get_running_loop().time() + REST

    async def close(self) -> None:
        """End the watch and forget everything."""
        tasks = [task for task in (self._watching, self._asking) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._watching = self._asking = None
        self._topics.clear()
        self._known, self._asked = False, float("-inf")

    def _forget(self, topic: str, key: Key) -> None:
        del self._topics[topic][key]
        if not self._topics[topic]:
            del self._topics[topic]

    async def _ask(self) -> None:
        try:
            async with asyncio.timeout(TIMEOUT):
                records = await self._registry.get(self._name)
        except Exception as error:
            logger.warning("%s cannot be looked up: %s", self._name, error)
            return
        finally:
            self._asking = None
        self._known = True
        for topic in list(self._topics):
            for key, entry in list(self._topics[topic].items()):
                entry.missed += 1
                if entry.missed >= MISSES:
                    self._forget(topic, key)
        for record in records:
            self.add(record)

    async def _watch(self) -> None:
        while True:
            try:
                async for change in self._registry.watch(self._name):
                    (self.remove if change.action == "delete" else self.add)(change.record)
            except Error as error:
                logger.warning("the watch of %s ended: %s", self._name, error)
            except Exception:
                logger.exception("the watch of %s failed", self._name)
            await asyncio.sleep(PAUSE)
            self._asked = float("-inf")  # changes may have been missed
