"""Module _accepted runs what serves accepted sockets, and ends it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from shoal.errors import Error
from shoal.transport import Accept, Socket

logger = logging.getLogger(__name__)


class AcceptedSockets:
    """Owns one task for each accepted socket of a listener."""

    def __init__(self, accept: Accept) -> None:
        self._accept = accept
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing: set[asyncio.Task[None] | None] = set()  # those that only close their socket
        self.from_inside = False
        """Whether one of the tasks closes all, and waits for the others."""

    def __len__(self) -> int:
        return len(self._tasks)

    def add(self, socket: Socket) -> None:
        """Serve a socket in a task of its own, and close it at the end."""
        self.start(self.serve(socket))

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Run what makes a socket of a connection and then serves it."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    async def serve(self, socket: Socket) -> None:
        """Serve a socket and close it at the end; what goes wrong concerns this one only."""
        try:
            await self._accept(socket)
        except Error as error:
            logger.debug("the connection from %s ended: %s", socket.remote, error)
        except Exception:
            logger.exception("serving the connection from %s failed", socket.remote)
        finally:
            self._closing.add(asyncio.current_task())
            await socket.close()

    async def close(self) -> None:
        """Cancel and await all of them, except the one that calls this, if one does.

        A socket that is being closed already is left the time that takes.
        """
        self.from_inside = asyncio.current_task() in self._tasks
        while tasks := self._tasks - {asyncio.current_task()}:  # one may start others
            for task in tasks - self._closing:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._tasks -= tasks  # their callbacks may not have run: from 3.12 on this did not wait

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._closing.discard(task)


class Accepted(asyncio.BaseProtocol):
    """What a listener makes for a connection: the protocol, and what runs as long as it lasts."""

    async def serve(self, sockets: AcceptedSockets) -> None:
        """Serve the connection until it is closed; cancelled, close it."""
        raise NotImplementedError
