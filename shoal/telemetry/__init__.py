"""Package telemetry makes a service be seen: traces, metrics and logs that machines read."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable
from typing import Protocol

from shoal.health import Gauge
from shoal.middleware import Middleware
from shoal.plugins import PluginError
from shoal.telemetry._log import JsonFormatter

__all__ = ["JsonFormatter", "Telemetry", "make"]

Read = Callable[[], Iterable[Gauge]]
"""Gives the numbers of a service; it is called in any thread."""


class Telemetry(Protocol):
    """Something that hears of every call and event, and asks for numbers."""

    middleware: Middleware
    """What runs around calls and events of all four sides, outside of every other middleware."""
    page: Callable[[], bytes] | None
    """Gives all metrics in Prometheus' text format; None if they go elsewhere."""

    @abstractmethod
    def read(self, numbers: Read) -> None:
        """Ask this function for numbers from now on."""

    @abstractmethod
    def close(self) -> None:
        """Ask for numbers no more. Never raises."""


def make(names: str, service: str, broker: str) -> list[Telemetry]:
    """Return what a comma-separated list names, for a service and its kind of broker.

    Raises PluginError for a name that needs something installed.
    """
    return [_load(name, service, broker) for name in dict.fromkeys(names.split(",")) if name]


def _load(name: str, service: str, broker: str) -> Telemetry:
    try:
        if name == "otel":
            from shoal.telemetry._otel import OtelTelemetry  # imports what is an extra

            return OtelTelemetry(service, broker)
        from shoal.telemetry._prometheus import PrometheusTelemetry  # as well

        return PrometheusTelemetry(service, broker)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] == "shoal":
            raise
        raise PluginError(
            f"the telemetry {name!r} needs {error.name!r}: pip install 'shoal[{name}]'"
        ) from error
