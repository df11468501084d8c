"""Middleware is a chain around the end; the first listed is outermost."""

from __future__ import annotations

from typing import Any

import pytest

from shoal.errors import Forbidden, NotFound
from shoal.middleware import Call, Middleware, Next, chain


def call(message: Any = "m") -> Call:
    return Call("client", "greeter", "Greeter.Hello", message)


def noting(name: str, notes: list[str]) -> Middleware:
    async def note(call: Call, next: Next) -> Any:
        notes.append(f"{name} in")
        try:
            return await next(call)
        finally:
            notes.append(f"{name} out")

    return note


async def end(call: Call) -> Any:
    return f"reply to {call.message}"


async def test_without_any_it_is_the_end_itself() -> None:
    assert chain([], end) is end
    assert await chain([], end)(call()) == "reply to m"


async def test_the_first_is_outermost() -> None:
    notes: list[str] = []
    run = chain([noting("a", notes), noting("b", notes), noting("c", notes)], end)
    assert await run(call()) == "reply to m"
    assert notes == ["a in", "b in", "c in", "c out", "b out", "a out"]


async def test_a_chain_can_be_run_again() -> None:
    notes: list[str] = []
    run = chain([noting("a", notes)], end)
    for number in range(3):
        assert await run(call(number)) == f"reply to {number}"
    assert len(notes) == 6


async def test_what_is_called_and_replied_can_be_changed() -> None:
    async def upper(call: Call, next: Next) -> Any:
        call.message = call.message.upper()
        call.header["Seen"] = "yes"
        return (await next(call)) + "!"

    one = call()
    assert await chain([upper], end)(one) == "reply to M!"
    assert one.header == {"Seen": "yes"}


async def test_answering_without_the_rest() -> None:
    async def cached(call: Call, next: Next) -> Any:
        return "known"

    async def never(call: Call) -> Any:
        raise AssertionError("nobody should come here")

    assert await chain([cached], never)(call()) == "known"


async def test_running_the_rest_again() -> None:
    tries: list[int] = []

    async def again(call: Call, next: Next) -> Any:
        for _ in range(2):
            try:
                return await next(call)
            except NotFound:
                continue
        return await next(call)

    async def third_time(call: Call) -> Any:
        tries.append(1)
        if len(tries) < 3:
            raise NotFound
        return "found"

    assert await chain([again], third_time)(call()) == "found"


async def test_errors_pass_through_all() -> None:
    notes: list[str] = []

    async def refuse(call: Call, next: Next) -> Any:
        raise Forbidden("not you")

    run = chain([noting("a", notes), refuse, noting("b", notes)], end)
    with pytest.raises(Forbidden):
        await run(call())
    assert notes == ["a in", "a out"]


async def test_an_object_can_be_middleware() -> None:
    class Counting:
        def __init__(self) -> None:
            self.calls = 0

        async def __call__(self, call: Call, next: Next) -> Any:
            self.calls += 1
            return await next(call)

    counting = Counting()
    run = chain([counting, counting], end)
    await run(call())
    assert counting.calls == 2


def test_calls_have_headers_of_their_own() -> None:
    assert call().header is not call().header
    assert not call().stream
