"""Module leaks finds what a piece of code leaves behind: tasks, sockets and threads."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any

PATIENCE = 2.0  # seconds in which what was closed has surely gone
_DESCRIPTORS = ("/proc/self/fd", "/dev/fd")


@asynccontextmanager
async def no_leaks(patience: float = PATIENCE) -> AsyncIterator[None]:
    """Raise AssertionError if the block leaves a task, a socket or a thread that was not there.

    What is being closed at the end has `patience` seconds to go. The threads of the event loop's
    own executor, and those that do not keep a process from ending, count for nothing.
    """
    before = {_key(one) for one in _found()}
    yield
    loop = asyncio.get_running_loop()
    end = loop.time() + patience
    while left := [one for one in _found() if _key(one) not in before]:
        if loop.time() >= end:
            raise AssertionError(f"left behind: {', '.join(_shown(one) for one in left)}")
        await asyncio.sleep(0.01)


def _key(one: Any) -> Any:
    return one[:2] if isinstance(one, tuple) else one


def _shown(one: Any) -> str:
    return str(one[-1]) if isinstance(one, tuple) else repr(one)


def _found() -> Iterator[Any]:
    """Yield what there is now: tasks, threads, and sockets as descriptor, inode and text."""
    yield from asyncio.all_tasks() - {asyncio.current_task()}
    for thread in threading.enumerate():
        if not thread.daemon and not thread.name.startswith(("asyncio_", "uvloop_")):
            yield thread
    for folder in _DESCRIPTORS:
        with suppress(OSError):
            for name in os.listdir(folder):
                with suppress(OSError):
                    status = os.fstat(int(name))
                    if stat.S_ISSOCK(status.st_mode) and (text := _network(int(name))):
                        yield int(name), status.st_ino, text
            return


def _network(descriptor: int) -> str:
    """Return what a socket is for people; empty for a loop's own, which has no address."""
    found = socket.socket(fileno=descriptor)
    try:
        unnamed = found.family == getattr(socket, "AF_UNIX", None) and not found.getsockname()
        return "" if unnamed else repr(found)
    finally:
        found.detach()
