"""Tests that selectors of outsiders fit: one that keeps nothing, and the one the docs show."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any

from shoal import context
from shoal.errors import ServiceNotFound, Timeout, Unavailable
from shoal.registry import Node, Record, Registry
from shoal.selector import Filter, Load, Next, Selector, Strategy
from shoal.testing.conformance.selector import SelectorConformance

PAGE = Path(__file__).parents[2] / "docs" / "selector.md"


class DirectSelector(Selector):
    """Asks the registry for every call."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._loads: dict[tuple[str, str, str], Load] = {}

    async def select(
        self, service: str, *, filters: Sequence[Filter] = (), strategy: Strategy | None = None
    ) -> Next:

        try:
            async with asyncio.timeout_at(context.current.get().deadline):
                records: Sequence[Record] = await self._registry.get(service)
        except TimeoutError:
            raise Timeout(f"looking for {service} took too long", id="shoal.client") from None
        except Unavailable as error:
            raise Unavailable(f"looking for {service}: {error}", id="shoal.client") from error
        if not records:
            raise ServiceNotFound(f"nobody runs {service}", id="shoal.client")
        for one in filters:
            records = one(records)
        nodes = [node for record in records for node in record.nodes]
        if not nodes:
            raise Unavailable(f"the filters leave no node of {service}", id="shoal.client")
        return DirectNext(self, service, nodes, strategy or any_load)

    def load(self, service: str, node: Node) -> Load:
        key = service, node.id, node.address
        if key not in self._loads:
            self._loads[key] = Load(node)
        self._loads[key].node = node
        return self._loads[key]

    def mark(self, service: str, node: Node, error: Exception | None, elapsed: float) -> None:
        load = self._loads.get((service, node.id, node.address))
        if load is not None:
            load.in_flight -= 1
            load.latency = elapsed

    async def close(self) -> None:
        self._loads.clear()


class DirectNext(Next):
    def __init__(
        self, selector: DirectSelector, service: str, nodes: list[Node], strategy: Strategy
    ) -> None:
        self._selector, self._service, self._strategy = selector, service, strategy
        self._nodes = nodes

    def __call__(self, tried: Container[str] = ()) -> Node:
        nodes = [node for node in self._nodes if node.id not in tried] or self._nodes
        load = self._strategy(
            self._service, [self._selector.load(self._service, node) for node in nodes]
        )
        load.in_flight += 1
        return load.node


def any_load(service: str, loads: Sequence[Load]) -> Load:
    return random.choice(loads)


class TestDirect(SelectorConformance):
    caches = False
    failures_to_leave_out = 0

    def make(self, registry: Registry) -> Selector:
        return DirectSelector(registry)


class TestTheOneInTheDocs(SelectorConformance):
    def make(self, registry: Registry) -> Selector:
        blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
        names: dict[str, Any] = {}
        exec(next(block for block in blocks if "class WeightedSelector" in block), names)
        made: Selector = names["WeightedSelector"](registry)
        return made
