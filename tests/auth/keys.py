"""Keys and tokens of an issuer, for tests."""

from __future__ import annotations

import asyncio
import datetime
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm

ISSUER = "https://issuer.example/"
AUDIENCE = "greeter"


class Key:
    """A key of the issuer."""

    def __init__(self, id: str = "one") -> None:
        self.id = id
        self.private = ec.generate_private_key(ec.SECP256R1())
        public = self.private.public_key()
        self.pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
        self.jwk: dict[str, Any] = {
            **json.loads(ECAlgorithm.to_jwk(public)),
            "kid": id,
            "use": "sig",
            "alg": "ES256",
        }

    def token(self, *scopes: str, lasts: float = 300.0, named: bool = True, **claims: Any) -> str:
        """Return a token for John; a claim that is None is left out."""
        now = datetime.datetime.now(datetime.UTC)
        every = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": "john",
            "type": "user",
            "scopes": list(scopes),
            "metadata": {"team": "sea"},
            "exp": now + datetime.timedelta(seconds=lasts),
            **claims,
        }
        kept = {name: value for name, value in every.items() if value is not None}
        headers = {"kid": self.id} if named else None
        return jwt.encode(kept, self.private, "ES256", headers=headers)


class Issuer:
    """Serves keys over HTTP."""

    def __init__(self, *keys: Key) -> None:
        self.keys = list(keys)
        self.asked = 0
        self.answer = ""
        """What to send instead of keys."""

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        """Yield the address of the keys."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        async with server:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/keys"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        self.asked += 1
        body = json.dumps({"keys": [key.jwk for key in self.keys]})
        answer = self.answer or f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n{body}"
        try:
            writer.write(answer.encode())
            await writer.drain()
            writer.close()
            await writer.wait_closed()
        except OSError:
            pass
