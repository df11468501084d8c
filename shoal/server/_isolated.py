"""Module _isolated runs a coroutine in a contextvars context of its own, without a new task."""

from __future__ import annotations

import types
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context
from typing import Any, TypeVar

T = TypeVar("T")
Run = Callable[..., Any]


@types.coroutine
def isolated(context: Context, coroutine: Coroutine[Any, Any, T]) -> Generator[Any, Any, T]:
    """Await a coroutine whose context variables are those of `context`.

    A connection's task answers many requests; what one handler sets must not be seen by the next.
    A task for each request would do that too, at several times the cost.
    """
    try:
        waiting = context.run(coroutine.send, None)
    except StopIteration as stop:
        value: T = stop.value
        return value
    return (yield from _resumed(context.run, coroutine, waiting))


@types.coroutine
def resumed(coroutine: Coroutine[Any, Any, T], waiting: Any, run: Run) -> Generator[Any, Any, T]:
    """Go on with a coroutine that was begun, by `run` of a context, and waits for something now."""
    return (yield from _resumed(run, coroutine, waiting))


def _resumed(run: Run, coroutine: Coroutine[Any, Any, T], waiting: Any) -> Generator[Any, Any, T]:
    try:
        while True:
            try:
                result = yield waiting
            except BaseException as error:
                waiting = run(coroutine.throw, error)
            else:
                waiting = run(coroutine.send, result)
    except StopIteration as stop:
        value: T = stop.value
        return value
