"""Who is let in, what handlers are told, and what callers show."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

import shoal
from shoal.auth import ACCOUNT, PUBLIC, Account, Token, account, authorize, bearer
from shoal.auth.jwt import JwtVerifier
from shoal.testing import FakeClock, Network, serve
from tests.auth.keys import AUDIENCE, ISSUER, Key

PATIENCE = 20.0


class Greeter:
    async def hello(self, name: str) -> str:
        return f"Hello {name} from {account().id}"

    async def count(self, until: int) -> AsyncIterator[str]:
        for number in range(until):
            await asyncio.sleep(0)
            yield f"{number} {account().id}"

    def threaded(self, name: str) -> str:
        return account().id

    async def open(self, name: str) -> str:
        try:
            return account().id
        except shoal.Unauthorized:
            return "nobody"


@pytest.fixture
def key() -> Key:
    return Key()


def guard(key: Key, rules: Any = None, **more: Any) -> shoal.Middleware:
    return authorize(JwtVerifier(key.pem, issuer=ISSUER, audience=AUDIENCE), rules, **more)


async def ask(client: Any, endpoint: str, token: str | None, **more: Any) -> Any:
    metadata = {} if token is None else {"Authorization": f"Bearer {token}"}
    request = shoal.Request("greeter", endpoint, "John", str)
    async with asyncio.timeout(PATIENCE):
        return await client.call(request, metadata=metadata, **more)


async def test_without_rules_every_known_caller_may(key: Key) -> None:
    async with serve(Greeter(), middleware=[guard(key)]) as client:
        assert await ask(client, "Greeter.Hello", key.token()) == "Hello John from john"
        assert await ask(client, "Greeter.Threaded", key.token()) == "john"
        for token in (None, "nonsense", key.token(lasts=-99), Key().token()):
            with pytest.raises(shoal.Unauthorized):
                await ask(client, "Greeter.Hello", token)
        for value in ("", "Basic am9objpw", "Bearer", key.token()):
            with pytest.raises(shoal.Unauthorized, match="Authorization: Bearer"):
                await client.call(
                    shoal.Request("greeter", "Greeter.Hello", "John", str),
                    metadata={"Authorization": value},
                )


async def test_scopes_by_endpoint_and_the_rest_is_denied(key: Key) -> None:
    rules = {
        "Greeter.Hello": ["greeter.read", "greeter.admin"],
        "Greeter.Open": PUBLIC,
        "Debug.*": ACCOUNT,
    }
    async with serve(Greeter(), middleware=[guard(key, rules)]) as client:
        for scope in ("greeter.read", "greeter.admin"):
            assert "john" in await ask(client, "Greeter.Hello", key.token(scope))
        for scope in ("other", "greeter", "GREETER.READ", "*", ""):
            with pytest.raises(shoal.Forbidden, match=r"Greeter\.Hello is not allowed for 'john'"):
                await ask(client, "Greeter.Hello", key.token(scope))
        with pytest.raises(shoal.Unauthorized):
            await ask(client, "Greeter.Hello", None)
        # No rule names it: nobody may, with whatever scope.
        with pytest.raises(shoal.Forbidden):
            await ask(client, "Greeter.Threaded", key.token("greeter.admin"))
        with pytest.raises(shoal.Unauthorized):
            await ask(client, "Greeter.Threaded", None)
        assert await ask(client, "Greeter.Open", None) == "nobody"
        assert await ask(client, "Greeter.Open", "nonsense") == "nobody"
        assert await ask(client, "Greeter.Open", key.token()) == "john"
        assert await client.call(
            shoal.Request("greeter", "Debug.Health", {}, dict),
            metadata={"Authorization": f"bearer {key.token()}"},
        )


async def test_the_closest_rule_counts(key: Key) -> None:
    rules = {"*": PUBLIC, "Greeter.*": "all", "Greeter.Open": "open"}
    async with serve(Greeter(), middleware=[guard(key, rules)]) as client:
        assert await ask(client, "Greeter.Open", key.token("open")) == "john"
        assert await ask(client, "Greeter.Threaded", key.token("all")) == "john"
        with pytest.raises(shoal.Forbidden):
            await ask(client, "Greeter.Open", key.token("all"))
        with pytest.raises(shoal.Forbidden):
            await ask(client, "Greeter.Threaded", key.token("open"))


@pytest.mark.parametrize("name", ["Greeter.*.x", "Gre*", "**", "*.Hello"])
def test_a_rule_that_would_match_nothing(name: str, key: Key) -> None:
    with pytest.raises(ValueError, match="is no name"):
        guard(key, {name: ACCOUNT})


def test_a_rule_that_is_no_scope(key: Key) -> None:
    with pytest.raises(TypeError, match="no scope"):
        guard(key, {"Greeter.Hello": [None]})


async def test_no_rule_lets_in_nobody(key: Key) -> None:
    async with serve(Greeter(), middleware=[guard(key, {})]) as client:
        with pytest.raises(shoal.Forbidden):
            await ask(client, "Greeter.Hello", key.token("a"))


async def test_a_stream_knows_its_caller_to_the_end(key: Key) -> None:
    async with serve(Greeter(), middleware=[guard(key, {"Greeter.Count": "count"})]) as client:
        stub = shoal.stub(
            Greeter, "greeter", client, metadata={"Authorization": f"Bearer {key.token('count')}"}
        )
        async with asyncio.timeout(PATIENCE):
            assert [item async for item in stub.count(3)] == ["0 john", "1 john", "2 john"]
            with pytest.raises(shoal.Unauthorized):
                async for _ in shoal.stub(Greeter, "greeter", client).count(3):
                    pass


async def test_who_called_before_is_not_who_calls_now(key: Key) -> None:
    rules = {"Greeter.Open": PUBLIC}
    async with serve(Greeter(), middleware=[guard(key, rules)]) as client:
        for _ in range(3):
            assert await ask(client, "Greeter.Open", key.token()) == "john"
            assert await ask(client, "Greeter.Open", None) == "nobody"


async def test_nobody_outside_a_call() -> None:
    with pytest.raises(shoal.Unauthorized, match="not known"):
        account()


# Events


async def test_events_are_looked_at_if_there_are_rules_for_them(key: Key) -> None:
    got: asyncio.Queue[str] = asyncio.Queue()

    async def take(event: str) -> None:
        got.put_nowait(f"{event} from {account().id}")

    async with Network() as network:
        service = network.service("mail", middleware=[guard(key, events={"news": "news"})])
        service.subscribe("news", take)
        publisher = network.service(
            "publisher", middleware=[bearer(key.token("news"), events=True)]
        )
        await network.start(service, publisher)
        await network.client.publish("news", "unsigned")
        await network.client.publish(
            "news", "wrong", metadata={"Authorization": f"Bearer {key.token()}"}
        )
        await publisher.client.publish("news", "signed")
        async with asyncio.timeout(PATIENCE):
            assert await got.get() == "signed from john"
        assert got.empty()


# What a client shows


class Shop:
    """Calls the greeter on its own account, and on that of its caller."""

    def __init__(self, service: shoal.Service) -> None:
        self._client = service.client

    async def own(self, name: str) -> str:
        return await ask_plainly(self._client)


async def ask_plainly(client: Any) -> str:
    request = shoal.Request("greeter", "Greeter.Threaded", "John", str)
    async with asyncio.timeout(PATIENCE):
        reply: str = await client.call(request)
    return reply


@pytest.mark.parametrize("own", [True, False])
async def test_nested_calls_go_on_own_account_or_on_the_callers(key: Key, own: bool) -> None:
    middleware = [bearer(key.token(sub="shop"))] if own else []
    async with Network() as network:
        await network.serve(Greeter(), middleware=[guard(key)])
        shop = network.service("shop", middleware=middleware)
        shop.handle(Shop(shop))
        await network.start(shop)
        async with asyncio.timeout(PATIENCE):
            reply = await network.client.call(
                shoal.Request("shop", "Shop.Own", "", str),
                metadata={"Authorization": f"Bearer {key.token()}"},
            )
        assert reply == ("shop" if own else "john")


async def test_a_token_is_asked_for_before_the_old_one_is_over(key: Key) -> None:
    asked = 0

    async def fetch() -> Token:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0)
        return Token(key.token(sub=f"number {asked}"), seconds=100.0)

    async with FakeClock() as clock, Network() as network:
        await network.serve(Greeter(), middleware=[guard(key)])
        caller = network.service("caller", middleware=[bearer(fetch)])
        await network.start(caller)
        every = await asyncio.gather(*(ask_plainly(caller.client) for _ in range(10)))
        assert (set(every), asked) == ({"number 1"}, 1)
        await clock.advance(79)
        assert await ask_plainly(caller.client) == "number 1"
        await clock.advance(2)
        assert await ask_plainly(caller.client) == "number 2"


async def test_a_token_that_cannot_be_renewed_is_used_until_it_is_over(
    key: Key, caplog: pytest.LogCaptureFixture
) -> None:
    fails = False

    async def fetch() -> Token:
        if fails:
            raise OSError("password swordfish was not accepted")
        return Token(key.token(), seconds=100.0)

    async with FakeClock() as clock, Network() as network:
        await network.serve(Greeter(), middleware=[guard(key)])
        caller = network.service("caller", middleware=[bearer(fetch)])
        await network.start(caller)
        assert await ask_plainly(caller.client) == "john"
        fails = True
        await clock.advance(90)
        assert await ask_plainly(caller.client) == "john"
        await clock.advance(11)
        with pytest.raises(
            shoal.Unavailable, match="the token for calls cannot be fetched: OSError"
        ):
            await ask_plainly(caller.client)
        fails = False
        assert await ask_plainly(caller.client) == "john"
    assert "swordfish" not in caplog.text
    assert "cannot be renewed" in caplog.text


def test_an_empty_token_is_none() -> None:
    with pytest.raises(ValueError, match="no token"):
        bearer("")


def test_what_is_shown_of_an_account_and_a_token() -> None:
    assert repr(Token("abc", 5)) == "Token(seconds=5)"
    assert "abc" not in repr(Account("john", claims={"email": "abc"}, metadata={"mail": "abc"}))
