"""Module _inbox holds what a connection has received until a task asks for it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Generator
from typing import Any

from shoal.errors import Error
from shoal.message import Message


class Inbox:
    """Messages in order for one receiving task, which is resumed the moment one arrives.

    A task that waits for a future is resumed one turn of the loop later: what it sends then waits
    for the whole turn, and at one call in flight the loop asks the system once more. Here its
    callback is taken off the future and run at once: `put` and `end` must therefore be called from
    a callback of the event loop, never from inside a task.
    """

    __slots__ = ("_end", "_loop", "_waiter", "messages", "take", "taken")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.messages: deque[Message] = deque()
        self.take: Callable[[Message], bool] | None = None
        """Gets each message for which a task waits, and says whether that task is not needed."""
        self.taken: Callable[[], object] | None = None
        """Called after a task has taken a message."""
        self._loop = loop
        self._waiter: asyncio.Future[Message] | None = None
        self._end: Error | None = None

    def get(self) -> asyncio.Future[Message]:
        """Return the next message as soon as it is awaited, or raise why there is none."""
        waiter, before = self._loop.create_future(), self._waiter
        if self.messages:
            waiter.set_result(self.messages.popleft())
            if self.taken is not None:
                self.taken()
        elif self._end is not None:
            waiter.set_exception(self._end.with_traceback(None))
        elif before is not None and not before.done():
            raise RuntimeError("another task is receiving from this socket already")
        else:
            self._waiter = waiter
        return waiter

    def __await__(self) -> Generator[Any, None, Message]:
        return self.get().__await__()

    @property
    def waiting(self) -> bool:
        """Whether a task waits for a message."""
        return self._waiter is not None and not self._waiter.done()

    def put(self, message: Message) -> None:
        """Add a message and run the task that waits, if any, until it waits for something else.

        Nothing comes after the end.
        """
        if self._end is None and not (self.take is not None and self.offer(message)):
            self.messages.append(message)
            if self._waiter is not None:
                self.wake()

    def offer(self, message: Message) -> bool:
        """Let `take` have a message if a task waits for it; whether that task is not needed.

        Called in no task. What is refused has to be added.
        """
        waiter = self._waiter
        if waiter is None or self.take is None or waiter.done() or self.messages:
            return False
        return self.take(message)

    def add(self, message: Message) -> None:
        """Add a message that was offered; as for `put`, but in a task if none is waiting for it."""
        if self._end is None:
            self.messages.append(message)
            self.wake()

    def wake(self) -> None:
        """Run the task that waits, if any: for who adds several messages before it shall."""
        waiter = self._waiter
        if waiter is None or waiter.done() or not (self.messages or self._end):
            return  # a task that was cancelled is run by the loop
        self._waiter = None
        callbacks = tuple(waiter._callbacks or ())  # None where nobody awaits it yet
        for callback, _ in callbacks:
            waiter.remove_done_callback(callback)
        if self.messages:
            waiter.set_result(self.messages.popleft())
        else:
            assert self._end is not None
            waiter.set_exception(self._end.with_traceback(None))
        for callback, context in callbacks:
            context.run(callback, waiter)

    def end(self, error: Error) -> None:
        """Let receiving raise this error once the messages are used up; only the first counts."""
        if self._end is None:
            self._end = error
        self.wake()
