"""Module _watchdog says what blocks an event loop, and for how long, from a thread beside it."""

from __future__ import annotations

import asyncio
import functools
import logging
import sys
import threading
import time
import traceback
from collections import Counter
from types import FrameType

logger = logging.getLogger(__name__)

FRAMES = 12  # of the stack that is logged


class Watchdog:
    """Asks an event loop four times per `limit` seconds whether it still turns.

    A loop that has not answered for `limit` seconds is blocked: the line that blocks it is logged
    once, and when it is over how long that lasted and where the loop was seen most often. Its
    time is the thread's own: the loop's clock stands still while the loop does. It starts in the
    loop it watches.
    """

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self.where = ""
        """The file and line that block the loop, or blocked it last."""
        self.blockages = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._watched = 0
        self._end = threading.Event()
        self._thread: threading.Thread | None = None
        self._lines: Counter[str] = Counter()  # where the loop was seen during this blockage
        self._asked = 0.0
        self._answered = True

    def __repr__(self) -> str:
        state = f"blocked for {self.blocked:.1f} s by {self.where}" if self.blocked else "well"
        return f"Watchdog({state}, {self.blockages} blockages)"

    @property
    def blocked(self) -> float:
        """For how many seconds the loop has not turned, 0 while it does; any thread may ask."""
        asked = self._asked
        if self._answered or self._thread is None:
            return 0.0
        seconds = time.monotonic() - asked
        return seconds if seconds >= self.limit else 0.0

    def start(self) -> None:
        """Watch the running loop from now on."""
        self._loop = asyncio.get_running_loop()
        self._watched = threading.get_ident()
        self._end.clear()
        self._answered = True
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Watch no more."""
        thread, self._thread = self._thread, None
        self._end.set()
        if thread is not None:
            thread.join(1.0)

    def _watch(self) -> None:
        period = max(self.limit / 4, 0.01)
        before, reported = time.monotonic(), False
        used = time.process_time()
        while not self._end.wait(period):
            now = time.monotonic()
            stalled, before = now - before - period, now
            if stalled >= self.limit:  # this thread did not run either: nobody's line is to blame
                self._asked += stalled
                self._stalled(stalled, time.process_time() - used)
            used = time.process_time()
            if self._answered:
                if reported:
                    self._over(now - self._asked)
                    reported = False
                if not self._ask(now):
                    return
            elif self._loop is None or self._loop.is_closed():
                return  # it will not answer any more
            elif now - self._asked >= self.limit:
                reported = self._sample(now - self._asked, reported) or reported

    def _ask(self, now: float) -> bool:
        assert self._loop is not None
        self._asked, self._answered = now, False
        try:
            self._loop.call_soon_threadsafe(self._answer)
        except RuntimeError:  # it is closed: whoever owns it forgot to stop this
            self._answered = True
            return False
        return True

    def _answer(self) -> None:
        self._answered = True

    def _sample(self, seconds: float, reported: bool) -> bool:
        """See where the loop is, and report it unless that was done; True if it was seen."""
        frame = sys._current_frames().get(self._watched)
        if frame is None or self._answered:
            return False
        if len(self._lines) < FRAMES:  # more tell no more
            self._lines[culprit(frame)] += 1
        self.where = self._lines.most_common(1)[0][0]
        if reported:
            return True
        self.blockages += 1
        stack = "".join(traceback.format_stack(frame)[-FRAMES:])
        logger.warning(
            "the event loop has been blocked for %.2f s by %s\n%s", seconds, self.where, stack
        )
        return True

    def _over(self, seconds: float) -> None:
        logger.warning("the event loop was blocked for %.2f s by %s", seconds, self.where)
        self._lines.clear()

    def _stalled(self, seconds: float, used: float) -> None:
        frame = sys._current_frames().get(self._watched)
        logger.warning(
            "no thread of this process ran for %.2f s, %.2f s of it on the CPU: it was stopped, or"
            " a C extension kept the interpreter's lock; the event loop is at %s",
            seconds,
            used,
            culprit(frame) if frame is not None else "its end",
        )


def culprit(frame: FrameType) -> str:
    """Return the innermost line that is not of a library, and the one it waits in if that is."""
    inner: FrameType | None = frame
    while inner is not None and _of_a_library(inner):
        inner = inner.f_back
    if inner is None or inner is frame:
        return _line(frame)
    return f"{_line(inner)} (in {_line(frame)})"


def _of_a_library(frame: FrameType) -> bool:
    return frame.f_code.co_filename.startswith(("<frozen", *_libraries()))


@functools.cache
def _libraries() -> tuple[str, ...]:
    import site  # late: most services never block
    import sysconfig

    paths = sysconfig.get_paths()
    shoal = __file__.rpartition("service")[0]
    return (paths["stdlib"], paths["platstdlib"], *site.getsitepackages(), shoal)


def _line(frame: FrameType) -> str:
    return f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}"
