"""Package endpoints sees a handler's methods through their type hints."""

from __future__ import annotations

import collections.abc
import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from shoal.registry import Endpoint
from shoal.schema import description, example, value

F = TypeVar("F", bound=Callable[..., Any])

_MARK = "__shoal_endpoint__"
_ASYNC_STREAMS = (
    collections.abc.AsyncIterator,
    collections.abc.AsyncIterable,
    collections.abc.AsyncGenerator,
)
_SYNC_STREAMS = (
    collections.abc.Iterator,
    collections.abc.Iterable,
    collections.abc.Generator,
)


@dataclass(frozen=True, slots=True)
class Mark:
    """What `@shoal.endpoint(...)` says of a method."""

    name: str = ""
    idempotent: bool = False
    hedge: bool = False
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])


def endpoint(
    *,
    name: str = "",
    idempotent: bool = False,
    hedge: bool = False,
    metadata: Mapping[str, str] | None = None,
) -> Callable[[F], F]:
    """Mark a method of a handler; nothing is registered by it.

    `name` is its name on the wire (`SayHello` for `say_hello` otherwise), `idempotent` says that
    it may run twice for one call, so that calls may be retried, and `hedge` that a second attempt
    shall run beside one that is slow; `metadata` goes to the registry.
    """
    if hedge and not idempotent:
        raise ValueError("only an idempotent endpoint can be hedged: its handler runs twice")
    mark = Mark(name, idempotent, hedge, dict(metadata or {}))

    def decorate(function: F) -> F:
        setattr(function, _MARK, mark)
        return function

    return decorate


@dataclass(frozen=True, slots=True)
class Method:
    """One endpoint: its name, what runs it, and the types that come in and go out.

    For a side that streams the type is that of the items. `request` is None for a method that
    takes nothing.
    """

    name: str
    function: Callable[..., Any]
    request: Any
    reply: Any
    streams_in: bool
    streams_out: bool
    is_async: bool
    awaited: bool
    """Calling it gives a coroutine (of the reply, or of the iterator of replies)."""
    mark: Mark

    @property
    def streams(self) -> bool:
        """Whether either side streams."""
        return self.streams_in or self.streams_out

    def describe(self) -> Endpoint:
        """Return what the registry tells of it, in the form Go Micro's tools read."""
        metadata: dict[str, str] = {}
        if self.streams:
            metadata["stream"] = "true"
        if self.mark.idempotent:
            metadata["idempotent"] = "true"
        doc = inspect.getdoc(self.function) or ""
        if text := description(doc):
            metadata["description"] = text
        if text := example(doc):
            metadata["example"] = text
        return Endpoint(
            self.name,
            request=None if self.request is None else value(self.request),
            response=None if self.reply is None else value(self.reply),
            metadata={**metadata, **self.mark.metadata},
        )


def methods(handler: object, contract: Callable[..., Any] | None = None) -> list[Method]:
    """Return the endpoints of a handler object, or of a class, sorted by name.

    `contract` is the class whose name and methods are served. Raises TypeError naming a public
    method that cannot be an endpoint.
    """
    owner: Any = contract or (handler if inspect.isclass(handler) else type(handler))
    found = []
    for attribute, function in inspect.getmembers(owner, inspect.isroutine):
        if attribute.startswith("_") or isinstance(
            inspect.getattr_static(owner, attribute), staticmethod | classmethod
        ):
            continue
        mark = getattr(getattr(type(handler), attribute, function), _MARK, None)
        mark = mark or getattr(function, _MARK, None) or Mark()
        found.append(_method(owner, attribute, function, getattr(handler, attribute, None), mark))
    if not found:
        raise TypeError(f"{owner.__name__} has no public method that could be an endpoint")
    return sorted(found, key=lambda method: method.name)


def subscriber_type(function: Callable[..., Any]) -> Any:
    """Return the type of the events a subscriber function takes; dict if it has no hint."""
    hints = _hints(function, getattr(function, "__qualname__", repr(function)))
    parameters = list(inspect.signature(function).parameters.values())
    if len([p for p in parameters if p.default is p.empty]) > 1 or not parameters:
        raise TypeError(f"the subscriber {function!r} must take one event")
    return hints.get(parameters[0].name, dict)


def go_name(name: str) -> str:
    """Return the name Go gives a method: `say_hello` becomes `SayHello`."""
    return "".join(part[:1].upper() + part[1:] for part in name.split("_"))


def _method(owner: Any, attribute: str, function: Any, bound: Any, mark: Mark) -> Method:
    where = f"{owner.__name__}.{attribute}"
    if bound is None:
        raise TypeError(f"the handler has no method {attribute} that its contract {where} names")
    hints = _hints(function, where)
    parameters = list(inspect.signature(function).parameters.values())[1:]
    required = [p for p in parameters if p.default is p.empty and p.kind not in (
        p.VAR_POSITIONAL, p.VAR_KEYWORD)]  # fmt: skip
    advice = "or start its name with an underscore if it is no endpoint"
    if len(required) > 1 or any(p.kind is p.KEYWORD_ONLY for p in required):
        raise TypeError(f"{where} must take one request, {advice}")
    request: Any = None
    streams_in = False
    if parameters:
        if parameters[0].name not in hints:
            raise TypeError(f"{where} needs a type hint for {parameters[0].name!r}, {advice}")
        request, streams_in = _item(hints[parameters[0].name], _ASYNC_STREAMS)
    if "return" not in hints:
        raise TypeError(f"{where} needs a type hint for what it returns, {advice}")
    coroutine = inspect.iscoroutinefunction(function)
    is_async = coroutine or inspect.isasyncgenfunction(function)
    reply, streams_out = _item(hints["return"], _ASYNC_STREAMS)
    if not streams_out and inspect.isgeneratorfunction(function):
        reply, streams_out = _item(hints["return"], _SYNC_STREAMS)
    elif streams_out:
        is_async = True
    return Method(
        name=f"{owner.__name__}.{mark.name or go_name(attribute)}",
        function=bound,
        request=request,
        reply=None if reply is type(None) else reply,
        streams_in=streams_in,
        streams_out=streams_out,
        is_async=is_async,
        awaited=coroutine,
        mark=mark,
    )


def _hints(function: Any, where: str) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function)
    except Exception as error:
        raise TypeError(f"the type hints of {where} cannot be read: {error}") from error


def _item(hint: Any, streams: tuple[Any, ...]) -> tuple[Any, bool]:
    """Return the type of the items if the hint is a stream of the kinds, else the hint itself."""
    if typing.get_origin(hint) in streams:
        return typing.get_args(hint)[0], True
    return hint, False
