"""Module _retry is how often and when an event comes again, and what becomes of it at last."""

from __future__ import annotations

import random
from dataclasses import dataclass

from shoal.message import Message, clean

PLACE = "<topic>"
_REASON = 1024  # characters of a reason that are kept

TOPIC, QUEUE = "Dead-Letter-Topic", "Dead-Letter-Queue"
ATTEMPTS, REASON = "Dead-Letter-Attempts", "Dead-Letter-Reason"


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """What a broker that delivers at least once does with an event whose handler failed."""

    attempts: int = 5
    """Deliveries in all, before it is a dead letter."""
    backoff: float = 1.0
    """Seconds from the first failure to the next delivery, doubled after each one more."""
    longest: float = 60.0
    """Seconds between two deliveries at most."""
    dead_letter: str = "<topic>.dead"
    """The topic of dead letters, with `<topic>` for the event's own; empty throws them away."""

    def __post_init__(self) -> None:
        if self.attempts < 1 or self.backoff < 0 or self.longest < 0:
            raise ValueError("an event needs one attempt, and no pause below 0 s")

    def pause(self, failed: int) -> float:
        """Return the seconds to wait after so many failures, spread by a tenth."""
        pause = min(self.backoff * 2.0 ** min(failed - 1, 32), self.longest)
        return pause * random.uniform(0.9, 1.1)

    def topic(self, topic: str) -> str:
        """Return the topic of an event's dead letter, empty if it is thrown away."""
        return self.dead_letter.replace(PLACE, topic)


def dead_letter(
    message: Message, *, topic: str, queue: str, attempts: int, reason: object
) -> Message:
    """Return the event with what befell it in `Dead-Letter-...` headers."""
    header = {
        **message.headers(),
        TOPIC: clean(topic),
        QUEUE: clean(queue),
        ATTEMPTS: str(attempts),
        REASON: clean(str(reason) or type(reason).__name__)[:_REASON],
    }
    return Message(header, message.body)
