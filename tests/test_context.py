"""Metadata and deadlines: what a call inherits and what it hands on."""

from __future__ import annotations

import asyncio

import pytest

import shoal
from shoal import context
from shoal.context import Context, Metadata, checked, current, outgoing, remaining
from shoal.errors import BadRequest
from shoal.message import canonical
from shoal.testing.clock import FakeClock


def test_look_ups_ignore_case() -> None:
    metadata = Metadata({"Foo-Bar": "baz"})
    assert metadata["foo-bar"] == metadata["Foo-Bar"] == metadata.get("FOO-BAR") == "baz"
    assert "foo-bar" in metadata
    assert "foo" not in metadata
    assert metadata.get("foo") is None
    assert metadata.get("foo", "x") == "x"
    for name in ("Foo", "foo", "not a name", ""):
        assert name not in metadata
        assert metadata.get(name) is None
        with pytest.raises(KeyError):
            metadata[name]


def test_added_for_a_block() -> None:
    assert context.metadata() == {}
    with shoal.with_metadata({"tenant": "a"}, request_id="7"):
        assert context.metadata() == {"Tenant": "a", "Request-Id": "7"}
        with shoal.with_metadata(Tenant="b"):
            assert context.metadata()["tenant"] == "b"
            assert context.metadata()["request-id"] == "7"
        assert context.metadata()["tenant"] == "a"
    assert context.metadata() == {}


def test_gone_after_an_error() -> None:
    with pytest.raises(ZeroDivisionError), shoal.with_metadata(a="b"):
        _ = 1 / 0
    assert context.metadata() == {}


def test_a_copy_is_given() -> None:
    with shoal.with_metadata(a="b"):
        context.metadata()["A"] = "changed"
        assert context.metadata() == {"A": "b"}


@pytest.mark.parametrize(
    "values", [{"a b": "x"}, {"": "x"}, {"a\n": "x"}, {"A": 1}, {"A": None}, {"micro-topic": "x"}]
)
def test_what_a_header_cannot_carry(values: dict[str, str]) -> None:
    with pytest.raises(BadRequest), shoal.with_metadata(values):
        pass
    assert context.metadata() == {}


def test_values_become_one_line() -> None:
    assert checked({"a": " x\r\nEvil: y "}) == {"A": "x  Evil: y"}


async def test_each_task_has_its_own() -> None:
    async def task(number: int) -> str | None:
        with shoal.with_metadata(number=str(number)):
            await asyncio.sleep(0)
            return context.metadata().get("number")

    assert await asyncio.gather(*map(task, range(5))) == list("01234")


def test_what_a_request_brought_is_handed_on() -> None:
    incoming = {
        "Tenant": "a",
        "Authorization": "Bearer x",
        "Content-Type": "application/json",
        "Content-Length": "5",
        "Host": "h",
        "User-Agent": "Go-http-client/1.1",
        "Connection": "close",
        "Transfer-Encoding": "chunked",
        "Timeout": "5000000000",
        "Micro-Id": "1",
        "Micro-Endpoint": "A.B",
        "Micro-Stream": "1",
        "Micro-Error": "EOS",
        "X-Micro-Id": "1",
        "Micro-Trace-Id": "t",
    }
    running = Context(context.NO_METADATA, None, incoming)
    assert outgoing(running) == {
        "Tenant": "a",
        "Authorization": "Bearer x",
        "Micro-Trace-Id": "t",
    }
    token = current.set(running)
    try:
        assert context.metadata()["content-type"] == "application/json"
        with shoal.with_metadata(tenant="b"):
            assert context.metadata()["tenant"] == "b"
            assert outgoing(current.get())["Tenant"] == "b"
    finally:
        current.reset(token)
    assert incoming["Tenant"] == "a"
    assert outgoing(context.NOTHING) == {}


def test_names_of_one_hop_are_canonical() -> None:
    for name in context.HOP:
        assert canonical(name) == name


async def test_the_earlier_deadline_counts() -> None:
    async with FakeClock() as clock:
        assert remaining() is None
        with shoal.deadline(10):
            assert remaining() == 10
            with shoal.deadline(20):
                assert remaining() == 10
            with shoal.deadline(5):
                assert remaining() == 5
                await clock.advance(2)
                assert remaining() == 3
                await clock.advance(4)
                assert remaining() == -1
            assert remaining() == 4
        assert remaining() is None


async def test_a_deadline_and_metadata_do_not_disturb_each_other() -> None:
    async with FakeClock():
        with shoal.with_metadata(a="b"), shoal.deadline(5), shoal.with_metadata(c="d"):
            assert context.metadata() == {"A": "b", "C": "d"}
            assert remaining() == 5


async def test_tasks_inherit_the_deadline() -> None:
    async with FakeClock():

        async def left() -> float | None:
            return remaining()

        with shoal.deadline(5):
            task = asyncio.create_task(left())
        assert remaining() is None
        assert await task == 5


async def test_where_there_is_no_deadline_nobody_asks_for_the_time() -> None:
    assert await asyncio.to_thread(remaining) is None
