"""Module _budget keeps attempts that are repeated from multiplying the load of an outage."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from shoal.health import Gauge


class Budget:
    """Repeated attempts may be a tenth of all calls, and a few more for a client that calls rarely.

    Every call adds `ratio` of an attempt, up to `reserve` of them are saved up. `calls` tells how
    many there were so far: only who repeats one has to know, so a call that is not costs nothing.
    """

    def __init__(self, calls: Callable[[], int], ratio: float = 0.1, reserve: float = 10.0) -> None:
        self._calls = calls
        self._seen = calls()
        self._ratio = ratio
        self._reserve = reserve
        self._saved = reserve

    def __repr__(self) -> str:
        return f"Budget({self.saved:.1f} of {self._reserve:g})"

    def gauges(self) -> Iterator[Gauge]:
        """Yield how many attempts may be repeated now."""
        yield Gauge("client_retry_budget", self.saved)

    @property
    def saved(self) -> float:
        """How many attempts may be repeated now."""
        return min(self._reserve, self._saved + (self._calls() - self._seen) * self._ratio)

    def spend(self) -> bool:
        """Take one repeated attempt; False if none is left."""
        saved, self._seen = self.saved, self._calls()
        self._saved = saved
        if saved < 1.0:
            return False
        self._saved -= 1.0
        return True
