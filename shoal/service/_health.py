"""Module _health is what a service tells probes: that it lives, that it is ready, its numbers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import asdict

import msgspec

from shoal.health import Gauge, Readiness, Reason
from shoal.options import Options
from shoal.service._health_port import JSON, HealthPort, Page
from shoal.service._watchdog import Watchdog

logger = logging.getLogger("shoal.service")

METRICS = "text/plain; version=0.0.4; charset=utf-8"  # Prometheus' text format


class Health:
    """The watchdog of a running service, and the port probes ask if there is to be one."""

    def __init__(
        self,
        options: Options,
        ready: Callable[[], Readiness],
        metrics: Callable[[], bytes] | None,
        watchdog: Watchdog | None = None,
    ) -> None:
        """Take a watchdog that somebody else starts in the same loop, or make one.

        Raises BadRequest for an address that cannot be read.
        """
        self.watchdog = watchdog or Watchdog(options.watchdog)
        self.port: HealthPort | None = None
        self._owned = watchdog is None
        self._limit = options.health_limit
        self._ready = ready
        if options.health:
            pages = {"/healthz": self._live, "/readyz": self._readiness}
            if metrics is not None:
                pages["/metrics"] = lambda: Page(200, metrics(), METRICS)
            self.port = HealthPort(options.health, pages)
        elif metrics is not None:
            logger.warning("metrics are kept and nobody can ask: health_address says where")

    def start(self) -> None:
        """Watch the running loop and listen. Raises Unavailable if the address cannot be had."""
        if self.port is not None:
            self.port.start()
            logger.info("Health on http://%s/readyz", self.port.address)
        if self._owned and self.watchdog.limit > 0:
            self.watchdog.start()

    def stop(self) -> None:
        """Do so no more."""
        if self._owned:
            self.watchdog.stop()
        if self.port is not None:
            self.port.stop()

    def gauges(self) -> Iterator[Gauge]:
        """Yield how the loop does; any thread may ask."""
        yield Gauge("loop_blocked_seconds", self.watchdog.blocked)
        yield Gauge("loop_blockages", self.watchdog.blockages)

    def reasons(self) -> tuple[Reason, ...]:
        """Return what speaks against giving the loop work."""
        blocked = self.watchdog.blocked
        if not blocked:
            return ()
        text = f"the event loop has been blocked for {blocked:.1f} s by {self.watchdog.where}"
        return (Reason("loop", text),)

    def _live(self) -> Page:
        blocked = self.watchdog.blocked
        if blocked < self._limit:
            return _json(200, {"status": "ok"})
        where = self.watchdog.where
        return _json(503, {"status": "blocked", "seconds": round(blocked, 1), "where": where})

    def _readiness(self) -> Page:
        readiness = self._ready()
        if readiness:
            return _json(200, {"status": "ready"})
        reasons = [asdict(reason) for reason in readiness.reasons]
        return _json(503, {"status": "not ready", "reasons": reasons})


def _json(status: int, value: object) -> Page:
    return Page(status, msgspec.json.encode(value) + b"\n", JSON)
