"""Module _repeats decides whether an attempt that failed is followed by another one."""

from __future__ import annotations

import random

from shoal.client._budget import Budget
from shoal.client._call import Attempts
from shoal.errors import Error, Timeout, TooManyRequests, Unavailable

ATTEMPTS = 4  # nodes to try while none of them got to see the request
MOVES = 1000.0  # calls that may leave a node at once
BACKOFF = 0.05  # seconds before the second repetition, doubled for each further one


class Repeats:
    """What the calls of a client may repeat: `budget` is for all that loads a node again.

    Every call is counted in `calls`.
    """

    def __init__(self, retries: int) -> None:
        self.calls = 0
        self.budget = Budget(lambda: self.calls)
        self._moves = Budget(lambda: self.calls, reserve=MOVES)
        self._retries = retries

    def __repr__(self) -> str:
        return f"Repeats({self.budget!r})"

    def may(self, attempts: Attempts, error: Error) -> bool:
        """Whether another attempt may follow the one that failed with this error."""
        done = len(attempts.tried)
        if error.unsent:
            return done + 1 < ATTEMPTS and self.move(error)
        if not isinstance(error, Unavailable | Timeout):
            return False
        options = attempts.options
        allowed = options.get("retries", self._retries if options.get("idempotent") else 0)
        return done < allowed and self.budget.spend()

    def move(self, error: Error) -> bool:
        """Whether what no handler has seen may go to another node: that loads nobody twice.

        All that was on its way to a node that stops moves at once, far more than is repeated.
        """
        refused = isinstance(error, TooManyRequests)
        return (self.budget if refused else self._moves).spend()


def backoff(repetitions: int) -> float:
    """Return the seconds to wait before one of several repetitions."""
    return BACKOFF * 2.0**repetitions * random.random()
