"""reliability: proves what Shoal promises under failure, against real processes.

A promise is a module `promise_NN_word.py` with `TITLE`, `WITHOUT` (what `--without` switches off,
as in "deadlines sent to the next service") and `async def prove(report: Report, scale: float)`.
The run is as big as `scale` says: 1 on a machine of its own, about 0.05 in the test suite. Under
`--without` the mechanism is off, `report.without` is set and the children see
SHOAL_PROOF_OFF=<number>; the proof has to fail then.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field

OFF = "SHOAL_PROOF_OFF"
ROOM = 4.0  # by how much a small run, beside other work, may miss what depends on the machine


@dataclass(frozen=True, slots=True)
class Check:
    """One figure that was measured, and what it may be."""

    what: str
    value: float
    limit: float
    unit: str = ""
    at_most: bool = True

    @property
    def passed(self) -> bool:
        """Whether the figure keeps its limit; one that is no number does not."""
        return self.value <= self.limit if self.at_most else self.value >= self.limit

    def __str__(self) -> str:
        sign = "<=" if self.at_most else ">="
        mark = "pass" if self.passed else "FAIL"
        return f"{mark}  {self.what}: {figure(self.value)} {self.unit}".rstrip() + (
            f" ({sign} {figure(self.limit)})"
        )


@dataclass(frozen=True, slots=True)
class Report:
    """What one proof measured. `skipped` holds parts this machine cannot run, with the reason."""

    number: int
    scale: float = 1.0
    without: bool = False
    checks: list[Check] = field(default_factory=list[Check])
    skipped: dict[str, str] = field(default_factory=dict[str, str])

    def check(
        self,
        what: str,
        value: float,
        limit: float,
        unit: str = "ms",
        at_most: bool = True,
        *,
        machine: bool = False,
    ) -> bool:
        """Record a figure with its limit and return whether it is kept.

        `machine`: the limit is a time or rate that a busy machine misses through no fault of the
        mechanism; a small run is given room there.
        """
        if machine and self.scale < 1:
            limit = limit * ROOM if at_most else limit / ROOM
        check = Check(what, float(value), float(limit), unit, at_most)
        self.checks.append(check)
        print(f"  {check}", flush=True)
        return check.passed

    def skip(self, what: str, reason: str) -> None:
        """Say that a part cannot be proved on this machine."""
        self.skipped[what] = reason
        print(f"  skip  {what}: {reason}", flush=True)

    @property
    def passed(self) -> bool:
        """Whether something was measured and every limit kept."""
        return all(check.passed for check in self.checks) and bool(self.checks or self.skipped)


def is_off(number: int) -> bool:
    """Tell a child program whether its promise's mechanism is switched off."""
    return os.environ.get(OFF) == str(number)


def figure(value: float) -> str:
    """Return a number as people read it."""
    if value == int(value) if abs(value) < 1e15 else False:
        return f"{int(value):,}"
    return f"{value:,.3g}" if abs(value) < 100 else f"{value:,.0f}"
