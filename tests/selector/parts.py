"""Nodes and loads for the tests of selectors."""

from __future__ import annotations

import random

from shoal.registry import Node
from shoal.selector import Load
from shoal.selector._health import Policy
from shoal.selector._nodes import Nodes
from shoal.selector._pool import Loads


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def make_node(number: int, address: str = "", **metadata: str) -> Node:
    return Node(f"node-{number:04}", address or f"127.0.0.1:{number}", metadata)


def make_loads(count: int, **metadata: str) -> Loads:
    return Loads(Load(make_node(number, **metadata)) for number in range(count))


def make_nodes(clock: Clock, policy: Policy | None = None) -> Nodes:
    return Nodes("greeter", clock=clock, rng=random.Random(1), policy=policy or Policy())
