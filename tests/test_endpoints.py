"""What a handler's hints make of its methods."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Protocol

import pytest

import shoal
from shoal.endpoints import Method, go_name, methods, subscriber_type


@dataclass
class Item:
    text: str


class Shapes:
    """One endpoint of each shape."""

    async def unary(self, request: Item) -> Item:
        return request

    def blocking(self, request: Item) -> Item:
        return request

    async def out(self, request: Item) -> AsyncIterator[Item]:
        yield request

    async def into(self, items: AsyncIterator[Item]) -> Item:
        return Item(",".join([item.text async for item in items]))

    async def both(self, items: AsyncIterator[Item]) -> AsyncIterator[str]:
        async for item in items:
            yield item.text

    def generated(self, request: Item) -> Iterator[Item]:
        yield request

    async def no_request(self) -> None:
        return None

    @shoal.endpoint(name="Renamed", idempotent=True, metadata={"scopes": "a"})
    async def marked(self, request: Item) -> Item:
        """Say something.

        @example {"text": "x"}
        """
        return request

    def _private(self) -> None:
        raise AssertionError

    @staticmethod
    def helper() -> None:
        raise AssertionError


def found() -> dict[str, Method]:
    return {method.name: method for method in methods(Shapes())}


def test_names_are_gos() -> None:
    assert sorted(found()) == [
        "Shapes.Blocking",
        "Shapes.Both",
        "Shapes.Generated",
        "Shapes.Into",
        "Shapes.NoRequest",
        "Shapes.Out",
        "Shapes.Renamed",
        "Shapes.Unary",
    ]
    assert [go_name(name) for name in ("hello", "say_hello", "a", "HTTPGet")] == [
        "Hello",
        "SayHello",
        "A",
        "HTTPGet",
    ]


@pytest.mark.parametrize(
    ("name", "streams_in", "streams_out", "request_type", "reply"),
    [
        ("Unary", False, False, Item, Item),
        ("Blocking", False, False, Item, Item),
        ("Out", False, True, Item, Item),
        ("Into", True, False, Item, Item),
        ("Both", True, True, Item, str),
        ("Generated", False, True, Item, Item),
        ("NoRequest", False, False, None, None),
    ],
)
def test_shapes(
    name: str, streams_in: bool, streams_out: bool, request_type: object, reply: object
) -> None:
    method = found()[f"Shapes.{name}"]
    assert (method.streams_in, method.streams_out) == (streams_in, streams_out)
    assert (method.request, method.reply) == (request_type, reply)


def test_a_mark_goes_to_the_registry() -> None:
    endpoint = found()["Shapes.Renamed"].describe()
    assert endpoint.metadata == {
        "idempotent": "true",
        "description": "Say something.",
        "example": '{"text": "x"}',
        "scopes": "a",
    }
    assert found()["Shapes.Out"].describe().metadata == {"stream": "true"}


class Contract(Protocol):
    async def unary(self, request: Item) -> Item: ...
    def out(self, request: Item) -> AsyncIterator[Item]: ...


def test_a_contract_names_and_limits_what_is_served() -> None:
    assert [method.name for method in methods(Shapes(), Contract)] == [
        "Contract.Out",
        "Contract.Unary",
    ]


class Untyped:
    async def hello(self, request) -> Item:  # type: ignore[no-untyped-def]  # that is the point
        return Item("")


class NoReturn:
    async def hello(self, request: Item):  # type: ignore[no-untyped-def]  # that is the point
        return request


class TwoRequests:
    async def hello(self, one: Item, two: Item) -> Item:
        return one


class Unknown:
    async def hello(self, request: "Missing") -> Item:  # type: ignore[name-defined]  # noqa: F821
        return Item("")


class Empty:
    def _hello(self) -> None:
        raise AssertionError


@pytest.mark.parametrize(
    ("handler", "says"),
    [
        (Untyped(), r"Untyped\.hello needs a type hint for 'request'"),
        (NoReturn(), r"NoReturn\.hello needs a type hint for what it returns"),
        (TwoRequests(), r"TwoRequests\.hello must take one request"),
        (Unknown(), r"type hints of Unknown\.hello cannot be read: .*Missing"),
        (Empty(), "Empty has no public method"),
    ],
)
def test_what_cannot_be_served_is_named(handler: object, says: str) -> None:
    with pytest.raises(TypeError, match=says):
        methods(handler)


def test_a_handler_without_a_method_of_its_contract_is_named() -> None:
    with pytest.raises(TypeError, match="no method out"):
        methods(TwoRequests(), Contract)


def test_subscribers_say_what_they_take() -> None:
    async def typed(event: Item) -> None:
        raise AssertionError

    async def untyped(event):  # type: ignore[no-untyped-def]  # that is the point
        raise AssertionError

    async def none() -> None:
        raise AssertionError

    assert subscriber_type(typed) is Item
    assert subscriber_type(untyped) is dict
    with pytest.raises(TypeError, match="must take one event"):
        subscriber_type(none)
