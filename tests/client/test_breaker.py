"""Tests of shoal/client/_breaker.py."""

from __future__ import annotations

import asyncio

import pytest

import shoal
from shoal._circuit import CALLS, FIRST
from shoal.client import _breaker
from shoal.client._breaker import Breakers
from shoal.selector.random import any_node
from shoal.testing import Network

HELLO = ("greeter", "Greeter.Hello")
BYE = ("greeter", "Greeter.Bye")


def broken(breakers: Breakers, node: str = "a", now: float = 0.0) -> None:
    for _ in range(CALLS):
        breakers.failed(HELLO, node, shoal.InternalServerError(), now)


def test_only_the_endpoint_that_fails_avoids_the_node_and_comes_back_to_it() -> None:
    breakers = Breakers()
    broken(breakers)
    assert list(breakers.open) == [(HELLO, "a")]
    assert breakers.avoid(HELLO, ["b"], 0.0) == ["b", "a"]
    assert breakers.avoid(BYE, ["b"], 0.0) == ["b"]
    assert breakers.avoid(HELLO, [], FIRST) == []  # one call
    assert breakers.avoid(HELLO, [], FIRST) == ["a"]
    breakers.failed(HELLO, "a", shoal.Timeout(), FIRST)
    assert breakers.avoid(HELLO, [], 2 * FIRST) == ["a"]
    assert breakers.avoid(HELLO, [], 3 * FIRST) == []
    breakers.succeeded(HELLO, "a", 3 * FIRST)
    assert breakers.avoid(HELLO, [], 3 * FIRST) == []
    assert not list(breakers.open)
    assert not breakers.circuits  # what goes well costs nothing
    assert repr(breakers) == "Breakers(0 watched, 0 open)"


def test_a_caller_s_mistake_is_nobody_s_fault() -> None:
    breakers = Breakers()
    for error in (shoal.NotFound(), shoal.TooManyRequests(), shoal.Error("plain")):
        for _ in range(50):
            breakers.failed(HELLO, "a", error, 0.0)
    assert not breakers.circuits


def test_a_bounded_number_is_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_breaker, "MOST", 10)
    breakers = Breakers()
    for number in range(50):
        broken(breakers, str(number))
    assert len(breakers.circuits) == 10
    assert len(list(breakers.open)) == 10
    broken(breakers, "later", 1000.0)
    assert len(breakers.circuits) == 1


class Greeter:
    """One endpoint of it can fail."""

    def __init__(self) -> None:
        self.broken = False
        self.hellos = 0
        self.byes = 0

    async def hello(self) -> str:
        self.hellos += 1
        if self.broken:
            raise shoal.InternalServerError("out of hellos")
        return "hello"

    async def bye(self) -> str:
        self.byes += 1
        return "bye"


@pytest.mark.parametrize("name", ["greeter", "other"])
async def test_an_endpoint_that_fails_on_one_node_is_called_on_the_others(name: str) -> None:
    """The service counts to which calls go, even if they are for another one."""
    async with asyncio.timeout(30), Network() as network:
        greeters = [Greeter() for _ in range(3)]
        for greeter in greeters:
            await network.serve(greeter)
        caller = network.service("caller", proxy="" if name == "greeter" else "greeter")
        await network.start(caller)
        stub = shoal.stub(Greeter, name, caller.client, strategy=any_node)
        greeters[0].broken = True
        failed = 0
        for _ in range(300):
            try:
                assert await stub.hello() == "hello"
            except shoal.InternalServerError:
                failed += 1
            assert await stub.bye() == "bye"
        assert failed < 2 * CALLS
        assert greeters[0].byes > 50  # as many as its share
        for greeter in greeters:
            greeter.broken = True
        before = [greeter.hellos for greeter in greeters]
        for _ in range(150):  # where all fail none is spared
            with pytest.raises(shoal.InternalServerError):
                await stub.hello()
        assert all(now.hellos > then for now, then in zip(greeters, before, strict=True))
