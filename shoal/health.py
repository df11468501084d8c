"""Module health is how the parts of a service say whether they are well, and what they hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a service is not ready: the part that is not well, and a sentence."""

    part: str
    text: str

    def __str__(self) -> str:
        return f"{self.part}: {self.text}"


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether a service should get work: true if there is no reason against it."""

    reasons: tuple[Reason, ...] = ()

    def __bool__(self) -> bool:
        return not self.reasons

    def __str__(self) -> str:
        return "; ".join(map(str, self.reasons)) or "ready"


@dataclass(frozen=True, slots=True)
class Gauge:
    """A number that is read when somebody asks: `shoal_<name>` in metrics."""

    name: str
    value: float
    labels: Mapping[str, str] = field(default_factory=dict[str, str])

    def __str__(self) -> str:
        labels = ",".join(f"{name}={value}" for name, value in self.labels.items())
        return f"{self.name}{{{labels}}}" if labels else self.name


def problems(name: str, part: object) -> Iterator[Reason]:
    """Yield what a part says is wrong with it: plugins keep that in `error`, None if all is well.

    It may be called from any thread.
    """
    error = getattr(part, "error", None)
    if error is not None:
        yield Reason(name, str(error) or type(error).__name__)


def gauges(*parts: object) -> Iterator[Gauge]:
    """Yield the numbers of those parts that have some: they give them with a method `gauges`.

    It may be called from any thread.
    """
    for part in parts:
        read = getattr(part, "gauges", None)
        if read is not None:
            yield from read()
