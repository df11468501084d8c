"""What lets somebody in is in no log line, no repr and no error, whatever goes wrong."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import shoal
from shoal._nats._settings import NatsSettings
from shoal._rabbitmq._settings import RabbitSettings
from shoal.auth import Token, account, authorize, bearer
from shoal.auth.jwt import JwtVerifier
from shoal.broker._redis_settings import RedisSettings
from shoal.message import Message
from shoal.options import Options
from shoal.registry.memory import MemoryRegistry
from shoal.testing import Network
from shoal.tls import Tls, TlsError
from shoal.transport.http import HttpTransport
from tests.auth.keys import AUDIENCE, ISSUER, Key
from tests.test_tls import Authority

PATIENCE = 30.0
PASSWORD = "swordfish"
SHARED = "a shared secret of more than thirty-two bytes"


class Vault:
    async def open(self, name: str) -> str:
        shoal.metadata()
        return account().id

    async def fail(self, name: str) -> str:
        raise RuntimeError(f"no vault {name}")

    async def hang(self, name: str) -> str:
        await asyncio.sleep(PATIENCE)
        return name

    async def count(self, until: int) -> AsyncIterator[int]:
        for number in range(until):
            yield number
        raise shoal.Conflict("counted")


class Seen:
    """Every text that could be read: log lines with their tracebacks, and reprs of our objects."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self._caplog = caplog
        self.errors: list[str] = []

    def error(self, error: BaseException) -> None:
        """Add an error with all it came from."""
        self.errors += [repr(error), str(error), repr(getattr(error, "__dict__", ""))]

    def texts(self) -> list[str]:
        formatter = logging.Formatter("%(name)s %(message)s %(args)r")
        lines = [formatter.format(record) for record in self._caplog.records]
        ours = [
            one
            for one in gc.get_objects()
            if str(type(one).__module__).startswith("shoal") or isinstance(one, asyncio.Task)
        ]
        return [*lines, *self.errors, *(repr(one) for one in ours)]

    def check(self, *secrets: str) -> None:
        """Fail if a secret can be read anywhere."""
        texts = self.texts()
        assert any(text.startswith("shoal.") for text in texts), "nothing was logged"
        for secret in secrets:
            assert len(secret) > 8
            assert not [text for text in texts if secret in text]


@pytest.fixture
def seen(caplog: pytest.LogCaptureFixture) -> Seen:
    caplog.set_level(logging.DEBUG)
    return Seen(caplog)


async def _call(client: Any, endpoint: str, seen: Seen, **more: Any) -> None:
    try:
        async with asyncio.timeout(PATIENCE):
            await client.call(shoal.Request("vault", endpoint, "John", str), **more)
    except shoal.Error as error:
        seen.error(error)


@pytest.mark.parametrize("over", ["memory", "http"])
async def test_tokens(over: str, seen: Seen) -> None:
    asyncio.get_running_loop().set_debug(True)
    asyncio.get_running_loop().slow_callback_duration = 0.0  # so that it logs every callback
    key = Key()
    good, bad, asked = key.token("vault"), Key().token(), key.token("vault", sub="asked")

    async def fetch() -> Token:
        return Token(asked, seconds=60.0)

    checks = authorize(JwtVerifier(key.pem, issuer=ISSUER, audience=AUDIENCE), {"Vault.*": "vault"})
    own: dict[str, Any] = {"transport": HttpTransport()} if over == "http" else {}
    async with Network() as network:
        await network.serve(Vault(), middleware=[checks], **own)
        for sent in (bearer(good), bearer(bad), bearer(fetch)):
            caller = network.service("caller", middleware=[sent], **own)
            await network.start(caller)
            for endpoint in ("Vault.Open", "Vault.Fail", "Vault.None"):
                await _call(caller.client, endpoint, seen)
            try:
                async for _ in shoal.stub(Vault, "vault", caller.client).count(2):
                    pass
            except shoal.Error as error:
                seen.error(error)
            hanging = asyncio.ensure_future(_call(caller.client, "Vault.Hang", seen, timeout=0.3))
            await asyncio.sleep(0.05)
            seen.check(good, bad, asked)  # while it runs, so that its objects are there
            await hanging
            with shoal.with_metadata(Authorization=f"Bearer {good}"):
                seen.errors.append(repr(shoal.metadata()))
                seen.errors.append(repr(Message(dict(shoal.metadata()), b"body")))
        seen.check(good, bad, asked)


def test_settings(seen: Seen, tmp_path: Path) -> None:
    logging.getLogger("shoal.test").info("begun")
    certificate, key = Authority(tmp_path, "authority").issue("node", password=PASSWORD)
    tls = Tls(cert_file=certificate, key_file=key, key_password=PASSWORD)
    tls.server_context()
    with pytest.raises(TlsError) as caught:
        Tls(cert_file=certificate, key_file=key, key_password=f"{PASSWORD} no").server_context()
    seen.error(caught.value)
    every = [
        tls,
        Options(tls=tls, broker=f"redis://john:{PASSWORD}@127.0.0.1", registry=MemoryRegistry()),
        shoal.Service("vault", tls=tls, nats_address=f"nats://john:{PASSWORD}@127.0.0.1"),
        NatsSettings(password=PASSWORD, token=PASSWORD),
        RabbitSettings(password=PASSWORD),
        RedisSettings(password=PASSWORD),
        JwtVerifier(SHARED, issuer=None, audience=None, algorithms=["HS256"]),
        bearer(PASSWORD),
        Token(PASSWORD, 1.0),
    ]
    seen.errors += [repr(one) for one in every]
    seen.check(PASSWORD, SHARED)


async def test_a_token_that_came_with_a_call_goes_to_no_broker(seen: Seen) -> None:
    """Brokers keep what they carry; nested calls take it along, events do not."""
    token = Key().token()
    got: asyncio.Queue[dict[str, str]] = asyncio.Queue()

    async def take(event: str) -> None:
        got.put_nowait(dict(shoal.metadata()))

    class Publisher:
        async def go(self, name: str) -> str:
            await network.client.publish("news", name)
            with shoal.with_metadata(Authorization="Bearer meant for it"):
                await network.client.publish("news", name)
            return name

    async with Network() as network:
        service = network.service("reader")
        service.subscribe("news", take)
        await network.start(service)
        await network.serve(Publisher())
        async with asyncio.timeout(PATIENCE):
            await network.client.call(
                shoal.Request("publisher", "Publisher.Go", "John", str),
                metadata={"Authorization": f"Bearer {token}", "Tenant": "sea"},
            )
            first, second = await got.get(), await got.get()
    assert (first.get("Authorization"), first["Tenant"]) == (None, "sea")
    assert second["Authorization"] == "Bearer meant for it"
