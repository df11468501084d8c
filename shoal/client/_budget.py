"""Module _budget keeps attempts that are repeated from multiplying the load of an outage."""

from __future__ import annotations

from collections.abc import Iterator

from shoal.health import Gauge


class Budget:
    """Repeated attempts may be a tenth of all calls, and a few more for a client that calls rarely.

    Every call adds `ratio` of an attempt, up to `reserve` of them are saved up.
    """

    def __init__(self, ratio: float = 0.1, reserve: float = 10.0) -> None:
        self._ratio = ratio
        self._reserve = reserve
        self._saved = reserve

    def __repr__(self) -> str:
        return f"Budget({self._saved:.1f} of {self._reserve:g})"

    def gauges(self) -> Iterator[Gauge]:
        """Yield how many attempts may be repeated now."""
        yield Gauge("client_retry_budget", self._saved)

    def earn(self) -> None:
        """Count a call."""
        if self._saved < self._reserve:
            self._saved = min(self._reserve, self._saved + self._ratio)

    def spend(self) -> bool:
        """Take one repeated attempt; False if none is left."""
        if self._saved < 1.0:
            return False
        self._saved -= 1.0
        return True
