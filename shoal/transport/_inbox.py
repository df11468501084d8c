"""Module _inbox holds what a connection has received until a task asks for it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Generator
from contextvars import Context
from typing import Any

from shoal.errors import Error
from shoal.message import Message


class Inbox:
    """Messages in order for one receiving task, which is resumed the moment one arrives.

    An asyncio.Future resumes its task one turn of the loop later, through a handle that has to be
    made and scheduled; that is a fifth of the cost of a small call. This follows the protocol
    asyncio documents for objects a task can wait for (`_asyncio_future_blocking`), but runs the
    task's callback at once: `put` and `end` must therefore be called from a callback of the event
    loop, never from inside a task.
    """

    __slots__ = ("_asyncio_future_blocking", "_cancelled", "_context", "_end", "_loop", "_wake",
                 "messages", "take")  # fmt: skip

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.messages: deque[Message] = deque()
        self.take: Callable[[Message], bool] | None = None
        """Gets each message for which a task waits, and says whether that task is not needed."""
        self._asyncio_future_blocking = False
        self._loop = loop
        self._wake: Callable[[Any], object] | None = None
        self._context: Context | None = None
        self._cancelled = False
        self._end: Error | None = None

    def put(self, message: Message) -> None:
        """Add a message and run the task that waits, if any, until it waits for something else.

        Nothing comes after the end.
        """
        if self._end is None and not self.offer(message):
            self.add(message)

    def offer(self, message: Message) -> bool:
        """Let `take` have a message if a task waits for it; whether that task is not needed.

        Called in no task. What is refused has to be added.
        """
        return (
            self.take is not None
            and self._wake is not None
            and not self._cancelled
            and not self.messages
            and self.take(message)
        )

    def add(self, message: Message) -> None:
        """Add a message that was offered; as for `put`, but in a task if none is waiting for it."""
        if self._end is not None:
            return
        self.messages.append(message)
        if self._wake is not None:
            self._resume()

    @property
    def waiting(self) -> bool:
        """Whether a task waits for a message."""
        return self._wake is not None

    def wake(self) -> None:
        """Run the task that waits, if any: for who adds several messages before it shall."""
        if self._wake is not None:
            self._resume()

    def end(self, error: Error) -> None:
        """Let receiving raise this error once the messages are used up; only the first counts."""
        if self._end is None:
            self._end = error
        if self._wake is not None:
            self._resume()

    def __await__(self) -> Generator[Any, None, Message]:
        while not self.messages:
            if self._end is not None:
                raise self._end.with_traceback(None)
            if self._wake is not None:
                raise RuntimeError("another task is receiving from this socket already")
            self._asyncio_future_blocking = True
            yield self
        return self.messages.popleft()

    # What asyncio.Task asks of an object it waits for:

    def get_loop(self) -> asyncio.AbstractEventLoop:
        return self._loop

    def add_done_callback(
        self, callback: Callable[[Any], object], *, context: Context | None = None
    ) -> None:
        self._wake, self._context = callback, context

    def cancel(self, msg: object = None) -> bool:
        if self._wake is None:
            return False
        self._cancelled = True
        # The canceller is a task itself, so this one is run by the loop.
        self._loop.call_soon(self._resume)
        return True

    def result(self) -> None:
        if self._cancelled:
            self._cancelled = False
            raise asyncio.CancelledError

    def _resume(self) -> None:
        wake, context = self._wake, self._context
        if wake is None:
            return
        self._wake = self._context = None
        if context is None:
            wake(self)
        else:
            context.run(wake, self)
