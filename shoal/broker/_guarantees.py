"""Module _guarantees is what a broker promises about events, in a form that tools can show."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Guarantees:
    """What holds with a broker's usual settings; the suite of brokers holds it to that."""

    delivery: Literal["at most once", "at least once"] = "at most once"
    """Whether an event whose handler did not return comes again, even if the process died."""
    groups: bool = False
    """Whether subscribers can share a topic's events: a queue; if not, one is a BadRequest."""
    ordered: bool = False
    """Whether a subscription gets one publisher's events in order, if none has to come again."""
    attempts: bool = False
    """Whether an event whose handler raised comes again, up to a number of times."""
    delayed_retry: bool = False
    """Whether it comes again after a pause that grows, while others are delivered."""
    dead_letter: bool = False
    """Whether events that failed too often are kept elsewhere, with the reason."""
    in_flight: bool = False
    """Whether the number of events that wait unacknowledged at a subscriber is bounded."""
    durable: bool = False
    """Whether events of a queue wait while none of its members is there."""
