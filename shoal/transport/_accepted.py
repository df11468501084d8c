"""Module _accepted runs what serves accepted sockets, and ends it."""

from __future__ import annotations

import asyncio
import logging

from shoal.errors import Error
from shoal.transport import Accept, Socket

logger = logging.getLogger(__name__)


class AcceptedSockets:
    """Owns one task for each accepted socket of a listener."""

    def __init__(self, accept: Accept) -> None:
        self._accept = accept
        self._tasks: set[asyncio.Task[None]] = set()

    def add(self, socket: Socket) -> None:
        """Serve a socket in a task of its own, and close it at the end."""
        task = asyncio.get_running_loop().create_task(self._serve(socket))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, socket: Socket) -> None:
        try:
            await self._accept(socket)
        except Error as error:
            logger.debug("the connection from %s ended: %s", socket.remote, error)
        except Exception:
            logger.exception("serving the connection from %s failed", socket.remote)
        finally:
            await socket.close()

    async def close(self) -> None:
        """Cancel and await all of them."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
