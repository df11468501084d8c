"""A gate in front of a server: connections can be cut, and new ones refused, by the test."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Self


class Gate:
    """Passes on what comes at its port to another, as long as it is open."""

    TASK = "gate"
    """The name of its tasks, for those who look what is left of what they test."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0
        self.accepted = 0

    @property
    def address(self) -> str:
        """Where it listens, as `host:port`."""
        return f"127.0.0.1:{self.port}"

    @property
    def connections(self) -> int:
        """How many connections pass through it now."""
        return len(self._tasks)

    async def open(self) -> None:
        """Accept connections, always at the same port."""
        self._server = await asyncio.start_server(self._pass, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        """End every connection and refuse new ones."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.set_name(self.TASK)
        self._tasks.add(task)
        self.accepted += 1
        try:
            back, forth = await asyncio.open_connection("127.0.0.1", self._to)
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(_copy(reader, forth), name=self.TASK)
                    group.create_task(_copy(back, writer), name=self.TASK)
            finally:
                forth.close()
        except (OSError, ExceptionGroup, asyncio.CancelledError):
            pass  # a cancelled task would be reported as a failure of the server
        finally:
            self._tasks.discard(task)
            writer.close()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.cut()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()
    with contextlib.suppress(OSError):
        writer.write_eof()
