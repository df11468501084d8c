"""Module _admission lets requests in one after another when the event loop cannot keep up."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from shoal.deadlines import Deadlines
from shoal.errors import TooManyRequests

TICK = 0.02  # seconds between two looks at how late the loop is
LATE = 0.02  # a loop that is so late has more to do than it can
WINDOW = 5  # ticks, all of them late, before fewer handlers may run
CALM = 25  # ticks in which nobody waits for long, before requests run at once again
SLICE = 0.005  # seconds of work let in per turn of the loop, so that it reads what arrives
MOST = 64  # requests let in per turn, however little they seem to cost
LEAST = 4  # handlers that may always run
STANDING = 0.25  # seconds a queue may last before it is more than a burst
SHORT = 0.5  # seconds a request may wait in a queue that is no burst, on a busy machine too
SURE = 0.7  # part of that time, as `pace` is a guess: who is let in must not wait in vain
PATIENCE = 10.0  # seconds a request may wait that names no time limit


class Line:
    """Requests that wait for their turn, the first come first.

    `room` tells how many may start now. Who would wait too long is refused on arrival: in a burst
    that is over half of his time limit, in a queue that lasts a moment, as nobody gains from
    standing in it. `pace` is the seconds between two that start, `depth` how many run at a time
    where it is them that the others wait for.
    """

    def __init__(
        self, name: str, room: Callable[[], int], most: int, limits: Deadlines, depth: int = 1
    ) -> None:
        self.waiting: deque[asyncio.Future[None]] = deque()
        self.pace = 0.0
        self.refused = 0
        self._name = name
        self._room = room
        self._most = most
        self._depth = depth
        self._limits = limits
        self._loop = limits.loop
        self._armed: asyncio.Handle | None = None
        self._advanced = 0.0
        self._started = 0
        self._since: float | None = None  # when the queue came up

    def __repr__(self) -> str:
        return f"Line({len(self.waiting)} waiting, {self.refused} refused, {self.pace:.4f} s each)"

    @property
    def delay(self) -> float:
        """Seconds until it is the turn of who comes now, as far as that can be told."""
        return len(self.waiting) * self.pace

    async def wait(self, seconds: float | None) -> float:
        """Return when it is this request's turn, with the seconds it waited.

        `seconds` is its time limit. Raises TooManyRequests for one that waits in vain.
        """
        now = self._loop.time()
        patience = PATIENCE if seconds is None else seconds / 2
        most = patience
        # What is a burst, and what a moment, depends on how long one of them takes.
        burst = max(STANDING, 8 * self._depth * self.pace)
        if self._since is not None and now - self._since > burst:
            most = min(most, max(SHORT, (3 + self._depth) * self.pace))
        if self.delay > SURE * most or len(self.waiting) >= self._most:
            raise self._refusal()
        turn = self._loop.create_future()
        self.waiting.append(turn)
        if self._since is None:
            self._since = self._advanced = now
            self._started = 0
        self.advance()
        try:
            with self._limits.until(now + patience):
                await turn
        except TimeoutError:
            raise self._refusal() from None
        return self._loop.time() - now

    def advance(self) -> None:
        """Let the next ones start, in the next turn of the loop."""
        if self._armed is None:
            self._armed = self._loop.call_soon(self._advance)

    def close(self) -> None:
        """Refuse all who wait."""
        if self._armed is not None:
            self._armed.cancel()
            self._armed = None
        while self.waiting:
            turn = self.waiting.popleft()
            if not turn.done():
                turn.set_exception(self._refusal())

    def _advance(self) -> None:
        self._armed = None
        room = self._room()
        if room <= 0 and self.waiting:
            return  # whoever finishes lets the next one in
        now = self._loop.time()
        if self._started:  # those let in last have run by now
            each = (now - self._advanced) / self._started
            self.pace = self.pace + (each - self.pace) / 16 if self.pace else each
            self._advanced, self._started = now, 0
        while self.waiting and room > 0:
            turn = self.waiting.popleft()
            if not turn.done():  # else its client gave up
                turn.set_result(None)
                self._started += 1
                room -= 1
        if self._started:
            self.advance()
        else:
            self._since = None

    def _refusal(self) -> TooManyRequests:
        self.refused += 1
        error = TooManyRequests(
            f"{self._name} has more to do than it can: {len(self.waiting)} requests wait"
        )
        error.retry_after = round(2 * max(SHORT, self.delay), 3)
        return error


class Admission:
    """Decides when a request may start; `at_once` is True as long as there is nothing to decide.

    What tells overload is how late the event loop is: handlers that wait for something slow are
    none. A loop that is late runs requests in slices, so that it gets to know quickly what
    arrives, and lets those wait it cannot run yet. If it stays late the handlers that run
    already are too many: `limit` falls with the ratio of what is wanted to what is, and rises
    as soon as the loop had a moment to spare.
    """

    def __init__(self, name: str, most: int, running: Callable[[], int], limits: Deadlines) -> None:
        self.at_once = False  # nobody watches the loop yet
        self.limit = float(most)
        self.lateness = 0.0
        self.line = Line(name, self._room, most, limits)
        self._most = most
        self._running = running
        self._loop = limits.loop
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._late_ticks: list[float] = []
        self._calm_ticks = 0
        self._loaded = False
        self._closed = False

    def __repr__(self) -> str:
        state = "overloaded" if self._loaded else "at ease"
        return f"Admission({state}, limit {self.limit:.0f}, {self.line!r})"

    @property
    def overloaded(self) -> bool:
        """Whether requests have to wait for their turn."""
        return self._loaded

    async def enter(self, seconds: float | None) -> float:
        """Return when a request may start, with the seconds it waited; `seconds` is its limit.

        Raises TooManyRequests for one that would wait too long.
        """
        if self._closed:
            return 0.0  # whoever closed it refuses by itself
        if self._timer is None:
            self._calm_ticks = 0
            self.at_once = True
            self._watch()
        if not self._loaded:
            return 0.0
        return await self.line.wait(seconds)

    def close(self) -> None:
        """Stop watching the loop, and refuse all who wait."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._loaded = self.at_once = False
        self._closed = True
        self.line.close()

    def _room(self) -> int:
        pace = self.line.pace
        count = min(max(1, int(SLICE / pace)), MOST) if pace else 1
        return min(count, int(self.limit) - self._running())

    def _watch(self) -> None:
        self._due = self._loop.time() + TICK
        self._timer = self._loop.call_at(self._due, self._tick)

    def _tick(self) -> None:
        self.lateness = self._loop.time() - self._due
        late = self.lateness > LATE
        if late:
            self._late()
        else:
            self._late_ticks.clear()
            self.limit = min(max(self.limit, self._running()) * 1.2 + 1, self._most)
        if self.line.waiting:
            self.line.advance()
        # Of a server that is merely busy there is always somebody in the line, for a moment.
        if late or self.line.delay > LATE:
            self._calm_ticks = 0
            self._loaded, self.at_once = True, False
        else:
            self._calm_ticks += 1
            if self._calm_ticks >= CALM:
                self._rest()  # the next request begins the watch anew
                return
        self._watch()

    def _late(self) -> None:
        self._late_ticks.append(self.lateness)
        if len(self._late_ticks) >= WINDOW:
            ratio = max(0.8, LATE / min(self._late_ticks))
            self.limit = max(LEAST, min(self.limit, self._running()) * ratio)
            self._late_ticks.clear()

    def _rest(self) -> None:
        self.limit = self._most
        self._timer = None
        self._loaded = self.at_once = False
