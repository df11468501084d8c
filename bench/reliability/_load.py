"""load: calls at a steady rate, whether or not those before have ended, and how each went."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self


@dataclass(slots=True)
class Result:
    """One call: when it was due and how long after that it ended (loop seconds), and how."""

    number: int
    due: float
    elapsed: float = math.nan
    reply: Any = None
    error: Exception | None = None

    @property
    def ended(self) -> float:
        """When it ended."""
        return self.due + self.elapsed


class Load:
    """Calls `work(number)` `rate` times a second while its block runs.

    Arrivals do not wait for replies, and times count from when a call was due, so that a stalled
    server is seen as its users see it. Leaving the block waits for all calls, `drain` seconds.
    """

    def __init__(
        self, work: Callable[[int], Awaitable[Any]], rate: float, *, drain: float = 60.0
    ) -> None:
        self.results: list[Result] = []
        self._work = work
        self._rate = rate
        self._drain = drain
        self._running: set[asyncio.Task[None]] = set()
        self._arrivals: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._arrivals = asyncio.get_running_loop().create_task(self._arrive())
        return self

    async def __aexit__(self, *error: object) -> None:
        assert self._arrivals is not None
        self._arrivals.cancel()
        await asyncio.gather(self._arrivals, return_exceptions=True)
        if self._running:
            _, late = await asyncio.wait(self._running, timeout=self._drain)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _arrive(self) -> None:
        loop = asyncio.get_running_loop()
        started = loop.time()
        number = 0
        while True:
            due = started + number / self._rate
            if (pause := due - loop.time()) > 0:
                await asyncio.sleep(pause)
            elif number % 100 == 0:
                await asyncio.sleep(0)  # behind: catch up, but let replies in
            task = loop.create_task(self._one(Result(number, due)))
            self._running.add(task)
            task.add_done_callback(self._running.discard)
            number += 1

    async def one(self) -> Result:
        """Make a single call, due now, beside those at the steady rate."""
        result = Result(len(self.results), asyncio.get_running_loop().time())
        await self._one(result)
        return result

    async def _one(self, result: Result) -> None:
        self.results.append(result)
        try:
            result.reply = await self._work(result.number)
        except Exception as error:
            result.error = error
        except asyncio.CancelledError:
            result.error = TimeoutError("it had not ended when the run was over")
            raise
        finally:
            result.elapsed = asyncio.get_running_loop().time() - result.due

    def failed(self) -> list[Result]:
        """Return the calls that ended with an error so far."""
        return failures(self.results)


async def steady(
    work: Callable[[int], Awaitable[Any]], rate: float, seconds: float
) -> list[Result]:
    """Call at a steady rate for some time and return how each call went."""
    async with Load(work, rate) as load:
        await asyncio.sleep(seconds)
    return load.results


def failures(results: Iterable[Result]) -> list[Result]:
    """Return the calls that ended with an error."""
    return [one for one in results if one.error is not None]


def reasons(results: Iterable[Result]) -> str:
    """Return the errors of calls by how often they came, for people."""
    texts = (f"{type(one.error).__name__}: {one.error}" for one in results if one.error)
    return "; ".join(f"{count} x {text}" for text, count in Counter(texts).most_common(5))


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the value that `percent` of them do not exceed; nan of none."""
    if not values:
        return math.nan
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, math.ceil(len(ordered) * percent / 100) - 1)]


def latency(results: Iterable[Result], percent: float) -> float:
    """Return a percentile of how long the calls that went well took, in milliseconds."""
    return percentile([one.elapsed for one in results if one.error is None], percent) * 1000
