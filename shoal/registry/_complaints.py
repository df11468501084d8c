"""Module _complaints writes a log line for what is dropped, but not one for each."""

from __future__ import annotations

import asyncio
import logging

_PAUSE = 60.0


class Complaints:
    """Counts what was dropped and says so at once, then at most once a minute."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._dropped = 0
        self._silent_until = float("-inf")

    def __repr__(self) -> str:
        return f"Complaints({self._dropped} not yet told)"

    def add(self, problem: Exception, source: object) -> None:
        """Count one thing dropped, and what was wrong with it; both may be a stranger's text."""
        self._dropped += 1
        now = asyncio.get_running_loop().time()
        if now >= self._silent_until:
            self._logger.warning(
                "dropped %d bad packets, the last from %.100r: %.200r",
                self._dropped,
                source,
                str(problem),
            )
            self._silent_until, self._dropped = now + _PAUSE, 0
