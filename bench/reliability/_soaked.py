"""soaked: the service of the soak: `python -m bench.reliability._soaked NAME [flags]`.

It does what the proofs' service does, takes events, and tells what it holds.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from bench.reliability._service import Worker, main, make


@dataclass
class Held:
    """What a process holds: resident bytes, sockets, tasks, and the events it has taken."""

    memory: int
    sockets: int
    tasks: int
    events: int = 0


class Soak:
    """Tells what its process holds."""

    def __init__(self) -> None:
        self._events = 0

    async def take(self, event: str) -> None:
        """Take an event."""
        self._events += 1

    async def held(self) -> Held:
        """Tell what is held now."""
        now = held()
        now.events = self._events
        return now


def held() -> Held:
    """Return what this process holds once everything was given back that can be."""
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)  # else what is free counts until somebody wants it
    memory = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return Held(memory, sockets(), len(asyncio.all_tasks()))


def sockets() -> int:
    """Return how many sockets this process has open."""
    found = 0
    for entry in os.scandir("/proc/self/fd"):
        try:
            found += os.readlink(entry.path).startswith("socket:")
        except OSError:  # the one that reads the folder
            continue
    return found


if __name__ == "__main__":
    made = make(sys.argv[1:])
    soak = Soak()
    made.handle(Worker(made))
    made.handle(soak)
    made.subscribe("soaked", Soak.take.__get__(soak))
    main(made)
