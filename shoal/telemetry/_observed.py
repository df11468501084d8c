"""Module _observed follows a call to its end, which for a stream is long after its middleware."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

from shoal.client import EndOfStream, Stream
from shoal.errors import Error
from shoal.middleware import Call, Next

End = Callable[[BaseException | None], None]
"""Is told once that a call is over, and the error it ended with."""


async def observed(call: Call, next: Next, end: End) -> Any:
    """Run the rest of a call and tell its end; a stream is given on with its end told later."""
    try:
        result = await next(call)
    except BaseException as error:
        end(error)
        raise
    if call.stream and call.side == "client":
        return ObservedStream(result, end)
    if call.stream and hasattr(result, "__aiter__"):
        return _items(result, end)
    end(None)
    return result


async def _items(items: AsyncIterator[Any], end: End) -> AsyncIterator[Any]:
    failure: BaseException | None = None
    try:
        async for item in items:
            yield item
    except BaseException as error:
        failure = error
        raise
    finally:
        close = getattr(items, "aclose", None)
        if close is not None:
            await close()
        end(failure)


class ObservedStream(Stream[Any]):
    """A client's stream that tells when it is over."""

    def __init__(self, stream: Stream[Any], end: End) -> None:
        self._stream = stream
        self._end: End | None = end
        self._failure: BaseException | None = None

    def __repr__(self) -> str:
        return repr(self._stream)

    async def send(self, item: object) -> None:
        await self._stream.send(item)

    async def close_send(self) -> None:
        await self._stream.close_send()

    async def recv(self) -> Any:
        try:
            return await self._stream.recv()
        except EndOfStream:
            raise
        except BaseException as error:
            self._failure = error
            raise

    async def close(self) -> None:
        try:
            await self._stream.close()
        finally:
            end, self._end = self._end, None
            if end is not None:
                end(self._failure)

    async def __aiter__(self) -> AsyncIterator[Any]:
        while True:
            try:
                yield await self.recv()
            except EndOfStream:
                return


def kind_of(error: BaseException | None) -> str:
    """Return the low-cardinality name of an error, empty if there is none."""
    if error is None or isinstance(error, GeneratorExit):
        return ""
    return "cancelled" if isinstance(error, asyncio.CancelledError) else type(error).__name__


def code_of(error: BaseException | None, call: Call) -> str:
    """Return the code an error has or, unexpected in a handler, gets, as a text; else nothing."""
    if isinstance(error, Error):
        return str(error.code)
    return "500" if call.side == "server" and isinstance(error, Exception) else ""
