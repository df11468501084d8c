"""Module _breaker keeps calls of an endpoint from nodes where just this endpoint fails."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from shoal._circuit import WINDOW, Circuit, blames
from shoal.health import Gauge

MOST = 4096  # circuits kept

Endpoint = tuple[str, str]
"""Service and endpoint."""
Key = tuple[Endpoint, str]
"""An endpoint, and the id of a node."""


class Breakers:
    """A circuit for every endpoint of a node that failed lately; all others have none.

    A node that cannot be reached is the selector's business. Where an endpoint fails on all nodes,
    none is spared: whatever is wrong then, it is no node.
    """

    def __init__(self) -> None:
        self.circuits: dict[Key, Circuit] = {}
        self._open: dict[Endpoint, set[str]] = {}  # endpoint -> ids of the nodes to avoid

    def __repr__(self) -> str:
        return f"Breakers({len(self.circuits)} watched, {sum(map(len, self._open.values()))} open)"

    def gauges(self) -> Iterator[Gauge]:
        """Yield how many nodes are avoided by how many endpoints."""
        yield Gauge("client_breakers_open", sum(len(ids) for ids in list(self._open.values())))

    @property
    def open(self) -> Iterator[Key]:
        """Endpoint and node id of the circuits that are open."""
        return ((endpoint, id) for endpoint, ids in self._open.items() for id in ids)

    def avoid(self, endpoint: Endpoint, tried: Sequence[str], now: float) -> Sequence[str]:
        """Return the nodes that an attempt should not go to: those tried, and those that fail."""
        ids = self._open.get(endpoint)
        if not ids:
            return tried
        # One node at a time is let have a call again.
        back = next((id for id in ids if self.circuits[endpoint, id].allows(now)), None)
        return [*tried, *(id for id in ids if id != back)]

    def succeeded(self, endpoint: Endpoint, node: str, now: float) -> None:
        """Take in that a call went well."""
        circuit = self.circuits.get((endpoint, node))
        if circuit is None:
            return
        circuit.succeeded(now)
        if not circuit.is_open:
            self._close(endpoint, node)
            if circuit.failures < 1:
                del self.circuits[endpoint, node]

    def failed(self, endpoint: Endpoint, node: str, error: Exception, now: float) -> None:
        """Take in that a call failed."""
        if not blames(error):
            return
        circuit = self.circuits.get((endpoint, node))
        if circuit is None:
            if len(self.circuits) >= MOST:
                self._forget(now)
            circuit = self.circuits[endpoint, node] = Circuit(now)
        circuit.failed(now)
        if circuit.is_open:
            self._open.setdefault(endpoint, set()).add(node)

    def _forget(self, now: float) -> None:
        """Make room: of those that have not failed for long, or of the oldest."""
        for key, circuit in list(self.circuits.items()):
            if now - circuit.since > 2 * WINDOW and now >= circuit.until:
                self._drop(key)
        if len(self.circuits) >= MOST:
            self._drop(next(iter(self.circuits)))

    def _drop(self, key: Key) -> None:
        del self.circuits[key]
        self._close(*key)

    def _close(self, endpoint: Endpoint, node: str) -> None:
        ids = self._open.get(endpoint)
        if ids is not None:
            ids.discard(node)
            if not ids:
                del self._open[endpoint]
