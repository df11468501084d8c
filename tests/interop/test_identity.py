"""Who is calling, when the caller is a Go program: its token, and the errors it gets."""

from __future__ import annotations

import asyncio

import shoal
from shoal.auth import account, authorize
from shoal.auth.jwt import JwtVerifier
from shoal.registry.memory import MemoryRegistry
from tests.auth.keys import AUDIENCE, ISSUER, Key

from .conftest import Facts
from .matrix import GO_TO_PYTHON
from .peers import Peer


class Vault:
    async def open(self, request: dict[str, str]) -> dict[str, str]:
        return {"who": account().id}


async def test_a_go_caller_shows_a_token(go: Peer, fact: Facts) -> None:
    key = Key()
    guard = authorize(
        JwtVerifier(key.pem, issuer=ISSUER, audience=AUDIENCE), {"Vault.Open": "vault"}
    )
    service = shoal.Service(
        "vault", registry=MemoryRegistry(), address="127.0.0.1:0", middleware=[guard]
    )
    service.handle(Vault())
    with fact("a token is verified, its scopes decide", GO_TO_PYTHON):
        async with asyncio.timeout(60), service:
            answers = []
            for token in (key.token("vault"), key.token("other"), "nonsense", ""):
                metadata = {"Authorization": f"Bearer {token}"} if token else {}
                answers.append(
                    await go.call(
                        "vault",
                        "Vault.Open",
                        {},
                        metadata=metadata,
                        address=service.server.address,
                        retries=0,
                    )
                )
        assert answers[0]["reply"] == {"who": "john"}
        assert [answer["error"]["code"] for answer in answers[1:]] == [403, 401, 401]
