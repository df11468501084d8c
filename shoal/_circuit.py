"""Module _circuit counts how calls of one kind end, and tells when no more should be made."""

from __future__ import annotations

from dataclasses import dataclass

from shoal.errors import Error, Timeout

WINDOW = 10.0  # seconds after which what was counted weighs half
CALLS = 10  # calls it takes to judge
SHARE = 0.5  # of which so many failed
FIRST, LONGEST = 0.5, 30.0  # seconds until a call is tried again, doubled while these fail too


def blames(error: Exception) -> bool:
    """Whether an error may be the fault of who was called; a refusal and a caller's mistake are
    not, nor is a plain Go error, which has no code."""
    if not isinstance(error, Error) or error.unsent:
        return False
    return error.code >= 500 or isinstance(error, Timeout)


@dataclass(slots=True)
class Circuit:
    """Open while half of the calls fail; then one call is let through now and then.

    Times are the loop's.
    """

    since: float
    calls: float = 0.0
    failures: float = 0.0
    until: float = 0.0
    """When the next call may be tried; 0 while closed."""
    pause: float = 0.0
    probing: bool = False
    """Whether a call was let through since it opened."""

    @property
    def is_open(self) -> bool:
        """Whether calls are kept away."""
        return self.until > 0

    def allows(self, now: float) -> bool:
        """Whether a call may be made; one that is let through by an open circuit is the only one
        until it has ended, or the pause is over again."""
        if not self.until:
            return True
        if now < self.until:
            return False
        self.until = now + self.pause
        self.probing = True
        return True

    def succeeded(self, now: float) -> None:
        """Take in that a call went well."""
        if self.probing:
            self.until = self.pause = self.calls = self.failures = 0.0
            self.probing = False
        self._count(now)

    def failed(self, now: float) -> None:
        """Take in that a call failed."""
        self._count(now)
        self.failures += 1
        if self.probing:
            self._open(now, min(2 * self.pause, LONGEST))
        elif not self.until and self.calls >= CALLS and self.failures >= SHARE * self.calls:
            self._open(now, FIRST)

    def _count(self, now: float) -> None:
        if now - self.since > WINDOW:
            weight = 0.5 if now - self.since < 2 * WINDOW else 0.0
            self.calls *= weight
            self.failures *= weight
            self.since = now
        self.calls += 1

    def _open(self, now: float, pause: float) -> None:
        self.pause = pause
        self.until = now + pause
        self.probing = False
