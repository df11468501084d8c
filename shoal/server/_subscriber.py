"""Module _subscriber is a function that takes the events of a topic."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from shoal import context, wire
from shoal.endpoints import subscriber_type
from shoal.message import Message
from shoal.middleware import Call, Middleware, chain
from shoal.registry import Endpoint
from shoal.schema import value

if TYPE_CHECKING:
    from shoal.server.rpc import RpcServer


class Subscriber:
    """Decodes events into the type a function hints, and runs it inside the middleware."""

    def __init__(
        self,
        server: RpcServer,
        topic: str,
        function: Callable[..., Any],
        queue: str,
        middleware: Sequence[Middleware],
    ) -> None:
        self.topic = topic
        self.queue = queue
        self._server = server
        self._function = function
        self._type = subscriber_type(function)
        self._is_async = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
            getattr(function, "__call__", None)  # noqa: B004  # a callable object
        )
        self._run = chain(middleware, self._call)

    def __repr__(self) -> str:
        return f"Subscriber({self.topic!r}, {self._function!r}, queue={self.queue!r})"

    def describe(self) -> Endpoint:
        """Return what the registry tells of it, in the form Go Micro's tools read."""
        name = getattr(self._function, "__qualname__", type(self._function).__name__)
        return Endpoint(
            name.rpartition("<locals>.")[2],
            request=value(self._type),
            metadata={"topic": self.topic, "subscriber": "true"},
        )

    async def deliver(self, message: Message) -> None:
        """Run the function for one event; raises what it raises."""
        header = message.header
        codec = self._server.codecs[header.get("Content-Type") or wire.PROTOBUF]
        event = codec.decode(message.body, self._type)
        # A task of its own keeps what the function sets in its context from the next event.
        running = context.Context(context.NO_METADATA, None, header)
        call = Call("subscriber", "", self.topic, event, dict(header))
        await asyncio.get_running_loop().create_task(self._inside(running, call))

    async def _inside(self, running: context.Context, call: Call) -> None:
        context.current.set(running)
        await self._run(call)

    async def _call(self, call: Call) -> None:
        if self._is_async:
            await self._function(call.message)
        else:
            await self._server.in_thread(self._function, call.message)
