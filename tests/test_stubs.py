"""Stubs: typed for those who check, and checked at run time in the suite of servers."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol, assert_type

import pytest

import shoal
from shoal.testing import serve


@dataclass
class Item:
    text: str = ""


class Greeter:
    async def hello(self, request: Item) -> str:
        return f"Hello {request.text}"

    async def count(self, request: Item) -> AsyncIterator[int]:
        for number in range(3):
            yield number

    async def join(self, items: AsyncIterator[Item]) -> str:
        return "".join([item.text async for item in items])


class GreeterContract(Protocol):
    async def hello(self, request: Item) -> str: ...
    async def count(self, request: Item) -> AsyncIterator[int]: ...
    async def join(self, items: AsyncIterator[Item]) -> str: ...


async def test_a_stub_has_the_types_of_its_class() -> None:
    async with serve(Greeter()) as client:
        greeter = shoal.stub(Greeter, "greeter", client)
        assert_type(greeter, Greeter)
        assert_type(await greeter.hello(Item("John")), str)
        assert_type([number async for number in greeter.count(Item())], list[int])
        assert repr(greeter) == "<stub for Greeter of greeter>"


async def test_a_stub_of_a_protocol_awaits_before_it_iterates() -> None:
    async with serve(Greeter()) as client:
        greeter = shoal.stub(GreeterContract, "greeter", client)
        with pytest.raises(shoal.NotFound, match="can't find service GreeterContract"):
            await greeter.hello(Item())

    class Service(Greeter):
        pass

    async with serve(Service()) as client:

        class Service2(GreeterContract, Protocol):
            pass

        Service2.__name__ = "Service"
        contract = shoal.stub(Service2, "service", client)
        assert [number async for number in await contract.count(Item())] == [0, 1, 2]


async def test_options_hold_for_every_call() -> None:
    async with serve(Greeter()) as client:
        greeter = shoal.stub(Greeter, "greeter", client, address="127.0.0.1:1")
        with pytest.raises(shoal.Unavailable):
            await greeter.hello(Item())


async def test_what_the_iterator_of_items_raises_reaches_the_caller() -> None:
    async def items() -> AsyncIterator[Item]:
        yield Item("a")
        raise ZeroDivisionError

    async with serve(Greeter()) as client:
        greeter = shoal.stub(Greeter, "greeter", client)
        with pytest.raises(ZeroDivisionError):
            await greeter.join(items())
