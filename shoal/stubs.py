"""Package stubs makes objects that look like a handler and call a service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar, Unpack, cast

from shoal import wire
from shoal.client import CallOptions, Client, EndOfStream, Request, Stream
from shoal.endpoints import Method, methods
from shoal.errors import ConnectionClosed, InternalServerError

T = TypeVar("T")


def stub(
    contract: Callable[..., T], service: str, client: Client, **options: Unpack[CallOptions]
) -> T:
    """Return an object with the methods of a class, each of which calls a service.

    The class is the handler's, or a Protocol with the same methods; its hints say how requests
    are sent and replies decoded. `options` hold for every call made through it.
    """
    return cast("T", _Stub(contract, service, client, options))


class _Stub:
    def __init__(self, contract: Any, service: str, client: Client, options: CallOptions) -> None:
        self._target = f"{contract.__name__} of {service}"
        for attribute, method in _methods(contract):
            setattr(self, attribute, _caller(method, service, client, options))

    def __repr__(self) -> str:
        return f"<stub for {self._target}>"


def _methods(contract: Any) -> list[tuple[str, Method]]:
    return [(method.function.__name__, method) for method in methods(contract)]


def _caller(
    method: Method, service: str, client: Client, options: CallOptions
) -> Callable[..., Any]:
    reply = type(None) if method.reply is None else method.reply
    if method.mark.idempotent:
        options = {"idempotent": True, **options}
    if method.mark.hedge and not method.streams:
        options = {"hedge": True, **options}

    def request(message: Any) -> Request[Any]:
        return Request(service, method.name, message, reply)

    name = method.name

    def unary(message: Any = None) -> Coroutine[Any, Any, Any]:
        if options:
            return client.call(Request(service, name, message, reply), **options)
        return client.call(Request(service, name, message, reply))  # which costs less

    async def server_stream(message: Any = None) -> AsyncIterator[Any]:
        async with client.stream(request(message), **options) as stream:
            async for item in stream:
                yield item

    async def client_stream(items: AsyncIterator[Any]) -> Any:
        async with client.stream(request(None), **options) as stream, _sending(stream, items):
            try:
                return await stream.recv()
            except EndOfStream:
                text = f"{service} {method.name} ended without a reply"
                raise InternalServerError(text, id=wire.CLIENT) from None

    async def both_stream(items: AsyncIterator[Any]) -> AsyncIterator[Any]:
        async with client.stream(request(None), **options) as stream, _sending(stream, items):
            async for item in stream:
                yield item

    if method.streams_in and method.streams_out:
        caller: Callable[..., Any] = both_stream
    elif method.streams_in:
        caller = client_stream
    elif method.streams_out:
        caller = server_stream
    else:
        caller = unary
    if method.streams_out and method.awaited:
        # `async def` without `yield`: the method is awaited before it is iterated.
        async def awaited(*arguments: Any) -> Any:
            return caller(*arguments)

        return awaited
    return caller


@asynccontextmanager
async def _sending(stream: Stream[Any], items: AsyncIterable[Any]) -> AsyncIterator[None]:
    """Send items for as long as the block runs; raise what the iterator of items raises."""
    failures: list[Exception] = []

    async def send() -> None:
        try:
            async for item in items:
                await stream.send(item)
            await stream.close_send()
        except ConnectionClosed:
            return  # who receives is told why
        except Exception as error:
            failures.append(error)
            await stream.close()

    task = asyncio.get_running_loop().create_task(send())
    try:
        yield
    except ConnectionClosed:
        if failures:
            raise failures[0] from None
        raise
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
