"""Module _http_targets chooses which subscribers an event is posted to, and in which form."""

from __future__ import annotations

import random
from collections.abc import Collection
from dataclasses import dataclass

from shoal.broker._envelope import encode
from shoal.broker._http_directory import Directory
from shoal.registry import Node

CURRENT = "micro.http.broker"  # Go Micro v2.5 to v6; v1.18 has go.micro.http.broker
BROADCAST = "ff.http.broadcast"  # the version of subscriptions without a queue


@dataclass(frozen=True, slots=True)
class Target:
    """A subscriber, and how it is known."""

    generation: str
    directory: Directory
    version: str
    node: Node


@dataclass(frozen=True, slots=True)
class Event:
    """What is published, encoded at most once for each form."""

    topic: str
    header: dict[str, str]
    body: bytes
    encoded: dict[bool, bytes]

    def envelope(self, generation: str) -> bytes:
        """Return the JSON that a generation reads."""
        old = generation != CURRENT
        envelope = self.encoded.get(old)
        if envelope is None:
            # v1.18 and before remove `:topic`; later ones would hand it to the handler.
            header = {**self.header, ":topic": self.topic} if old else self.header
            envelope = self.encoded[old] = encode(header, self.body)
        return envelope


def choose(targets: Collection[Target]) -> tuple[list[Target], list[list[Target]]]:
    """Return the nodes that all get an event, and the nodes of each queue in random order.

    A node registered under several generations is one. A Go process has the same id for all its
    subscriptions of a topic and gives each post to all of them: its queue is then served too.
    """
    broadcast: dict[str, Target] = {}
    queues: dict[str, dict[str, Target]] = {}
    for target in targets:
        nodes = broadcast if target.version == BROADCAST else queues.setdefault(target.version, {})
        nodes.setdefault(target.node.id, target)
    unserved = [nodes for nodes in queues.values() if not nodes.keys() & broadcast.keys()]
    return list(broadcast.values()), [random.sample([*n.values()], len(n)) for n in unserved]
