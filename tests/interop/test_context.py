"""What travels with a call: metadata, its deadline, and the end of the caller's interest."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

import shoal
from shoal.client import Client

from .conftest import Facts
from .greeter import Empty, Greeter, SlowRequest
from .matrix import GO_TO_PYTHON, PYTHON_TO_GO
from .peers import Peer, Running

METADATA = {"Trace": "a=b; c", "Who-Is": "größe 蛇", "X-Empty-Not": "0"}


async def test_metadata_from_go(go: Peer, service: shoal.Service, fact: Facts) -> None:
    with fact("metadata, also beyond ASCII", GO_TO_PYTHON):
        answer = await go.call(
            "x", "Greeter.Meta", {}, metadata=METADATA, address=service.server.address
        )
        header = answer["reply"]["header"]
        assert {name: header[name] for name in METADATA} == METADATA


async def test_metadata_to_go(server: Running, client: Client, fact: Facts) -> None:
    with fact("metadata, also beyond ASCII", PYTHON_TO_GO):
        greeter = shoal.stub(Greeter, "greeter", client, address=server.address)
        with shoal.with_metadata(METADATA):
            header = (await greeter.meta(Empty())).header
        assert {name: header[name] for name in METADATA} == METADATA
        assert header["Micro-Service"] == "greeter"


async def test_deadline_from_go(
    version: str, go: Peer, service: shoal.Service, greeter: Greeter, fact: Facts
) -> None:
    """v5 and v6 announce their connection timeout, v1 and v2 their request timeout."""
    with fact("the caller's deadline is known to the handler", GO_TO_PYTHON):
        modern = version in ("v5", "v6")
        limit = {"connection_timeout": 3} if modern else {"timeout": 3}
        answer = await go.call(
            "x", "Greeter.Slow", {"ms": 1}, address=service.server.address, retries=0, **limit
        )
        assert 1000 < answer["reply"]["deadline_ms"] <= 3000


@pytest.mark.parametrize("version", ["v6", "v5"], indirect=True)
async def test_what_modern_go_announces(go: Peer, service: shoal.Service, fact: Facts) -> None:
    why = "Go Micro v5 and v6 announce their connection timeout (5 s), not the call's timeout"
    with fact.limit("the timeout of a call is announced", GO_TO_PYTHON, why):
        answer = await go.call(
            "x", "Greeter.Slow", {"ms": 1}, address=service.server.address, timeout=2
        )
        assert answer["reply"]["deadline_ms"] > 4000


async def test_deadline_to_go(server: Running, client: Client, fact: Facts) -> None:
    with fact("the caller's deadline is known to the handler", PYTHON_TO_GO):
        greeter = shoal.stub(Greeter, "greeter", client, address=server.address)
        with shoal.deadline(3.0):
            assert 1000 < (await greeter.slow(SlowRequest(1))).deadline_ms <= 3000


async def test_go_gives_up(
    version: str, go: Peer, service: shoal.Service, greeter: Greeter, fact: Facts
) -> None:
    with fact("a caller that gives up ends the handler", GO_TO_PYTHON):
        limit = {"timeout": 0.3, "connection_timeout": 0.3} if version in ("v5", "v6") else {
            "timeout": 0.3
        }  # fmt: skip
        answer = await go.call(
            "x", "Greeter.Slow", {"ms": 30_000}, address=service.server.address, retries=0, **limit
        )
        assert answer["error"]["code"] == 408
        await greeter._event("cancelled")


async def test_our_deadline_passes(server: Running, client: Client, fact: Facts) -> None:
    """Both sides see it pass at the same time: Go's handler may still reply, or be too late."""
    with fact("a handler that is over its deadline is told", PYTHON_TO_GO):
        greeter = shoal.stub(Greeter, "greeter", client, address=server.address)
        with shoal.deadline(0.3), contextlib.suppress(shoal.Timeout):
            assert not (await greeter.slow(SlowRequest(60_000))).slept
        assert (await server.event("cancelled"))["endpoint"] == "Greeter.Slow"


async def test_we_cancel(server: Running, client: Client, fact: Facts) -> None:
    """Cancelling closes the connection, which ends the context of the handler."""
    with fact("a caller that gives up ends the handler", PYTHON_TO_GO):
        greeter = shoal.stub(Greeter, "greeter", client, address=server.address)
        task = asyncio.create_task(greeter.slow(SlowRequest(60_000)))
        await asyncio.sleep(0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert "canceled" in (await server.event("cancelled"))["text"]
