"""Module _health decides which nodes of a service get calls, by how the calls before went."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from shoal.errors import ConnectionClosed, Timeout, Unavailable
from shoal.selector import GaveUp, Load

DECAY = 10.0  # seconds after which a latency counts for 1/e; what Finagle's peak EWMA takes
OFFERS = 0.05  # seconds between two looks at which nodes that are out may be tried again


def unreachable(error: Exception) -> bool:
    """Whether an error says that the node itself could not be reached or went away.

    An Unavailable that a handler raised came over a connection that works: it is not `unsent`,
    and bears the id of whoever reported it.
    """
    if isinstance(error, ConnectionClosed):
        return True
    return isinstance(error, Unavailable) and (error.unsent or not error.id)


@dataclass(frozen=True, slots=True)
class Policy:
    """When a node gets no more calls, and when it gets some again.

    After `errors` failures in a row (as `counts` sees them) it is out for `pause` seconds, then
    one call is let through; while these fail too the pause doubles up to `longest`. A `strict`
    policy rather brings it back for good after the pause, and has no node when all are out.
    """

    counts: Callable[[Exception], bool] = unreachable
    errors: int = 1
    pause: float = 0.5
    longest: float = 30.0
    strict: bool = False


@dataclass(slots=True, eq=False)
class Out:
    """A node that gets no calls. `offered`: its time is over and the next call may have it."""

    until: float = 0.0
    pause: float = 0.0
    offered: bool = False
    probing: bool = False


class Health:
    """Which of the loads are out. `changed` is told which become available and which do not."""

    def __init__(
        self,
        loads: Mapping[str, Load],
        changed: Callable[[Sequence[Load], Sequence[Load]], None],
        *,
        clock: Callable[[], float],
        rng: random.Random,
        policy: Policy,
    ) -> None:
        self.out: dict[str, Out] = {}
        self.policy = policy
        self._loads = loads
        self._changed = changed
        self._clock = clock
        self._rng = rng
        self._due = math.inf

    def available(self, load: Load) -> bool:
        """Whether a node may get the next call."""
        out = self.out.get(load.node.id)
        return out is None or out.offered

    def wait(self) -> float:
        """Return the seconds until the next node may be tried again."""
        return max(self._due - self._clock(), 0.0)

    def given(self, load: Load) -> None:
        """Note that a call is on its way: a node that was offered gets no second one."""
        out = self.out.get(load.node.id)
        if out is not None and out.offered:
            out.offered = False
            # Should the call last, as a stream does, the next one is let through after a while.
            self._pause(out, self._clock(), out.pause)
            out.probing = True
            self._changed((), (load,))

    def offer(self) -> None:
        """Let nodes have a call whose pause is over."""
        now = self._clock()
        if now < self._due:
            return
        # Few at a time: a call must not meet one dead node after the other.
        room = 1 + (len(self._loads) - len(self.out)) // 10
        back: list[Load] = []
        for id, out in list(self.out.items()):
            if now < out.until or out.offered:
                continue
            if self.policy.strict:
                self._loads[id].errors = 0
                del self.out[id]
            elif len(back) < room:
                out.offered = True
            else:
                continue
            back.append(self._loads[id])
        due = (out.until for out in self.out.values() if not out.offered)
        self._due = max(min(due, default=math.inf), now + OFFERS)
        self._changed(back, ())

    def _unknown(self, load: Load, elapsed: float, now: float) -> None:
        load.latency = max(load.latency, elapsed)  # it took at least so long
        out = self.out.get(load.node.id)
        if out is not None and out.probing and self._loads.get(load.node.id) is load:
            self._pause(out, now, out.pause)  # the probe told nothing: another one is due

    def failed(self, load: Load, error: Exception, elapsed: float, now: float) -> None:
        """Take in that an attempt failed."""
        if isinstance(error, GaveUp):
            self._unknown(load, elapsed, now)
        elif self._loads.get(load.node.id) is load:
            self._failed(load, error, elapsed, now)

    def _failed(self, load: Load, error: Exception, elapsed: float, now: float) -> None:
        policy = self.policy
        out = self.out.get(load.node.id)
        if not policy.counts(error):
            # A node that fails fast must not look fast: errors raise the latency only.
            load.latency = max(load.latency, elapsed)
            if not isinstance(error, Timeout):
                self.reached(load, now)
            elif out is not None and out.probing:
                self._pause(out, now, out.pause * 2)
            return
        if policy.strict and now - load.marked > policy.longest:
            load.errors = 0  # the failures before are too old to count
        load.errors += 1
        if out is None:
            if load.errors >= policy.errors:
                load.latency = 0.0  # what comes back there is a new process
                out = self.out[load.node.id] = Out()
                self._pause(out, now, policy.pause)
                self._changed((), (load,))
        elif policy.strict or out.probing:  # other calls that were running say nothing new
            self._pause(out, now, out.pause * 2)

    def reached(self, load: Load, now: float) -> None:
        """Take in that a node was reached that had errors, or while others are out."""
        load.errors = 0
        out = self.out.get(load.node.id)
        if out is None or self._loads.get(load.node.id) is not load:
            return
        del self.out[load.node.id]
        if out.offered:
            return
        if len(self.out) == len(self._loads) - 1 and not self.policy.strict:
            for other in self.out.values():  # the outage is over: one must not get all the calls
                if not other.offered:
                    self._pause(other, now, self.policy.pause)
        self._changed((load,), ())

    def _pause(self, out: Out, now: float, pause: float) -> None:
        out.pause = min(pause, self.policy.longest)
        jitter = 1.0 if self.policy.strict else self._rng.uniform(0.5, 1.0)
        out.until = now + out.pause * jitter
        out.probing = False
        self._due = min(self._due, out.until)
