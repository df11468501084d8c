"""Which tokens are believed, and where the keys come from."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import subprocess
import sys
from typing import Any

import jwt
import pytest

from shoal.auth import Account
from shoal.auth.jwt import JwtVerifier
from shoal.errors import Unauthorized, Unavailable
from tests.auth.keys import AUDIENCE, ISSUER, Issuer, Key

PATIENCE = 20.0
SECRET = "a secret of more than thirty-two bytes"


def verifier(keys: Any, **settings: Any) -> JwtVerifier:
    return JwtVerifier(keys, **{"issuer": ISSUER, "audience": AUDIENCE, **settings})


def unsigned(claims: dict[str, Any], header: dict[str, Any], signature: bytes = b"") -> str:
    parts = (json.dumps(header).encode(), json.dumps(claims).encode(), signature)
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)


async def test_an_account_is_what_the_token_says() -> None:
    key = Key()
    account = await verifier(key.pem)(key.token("read", "write"))
    assert account == Account(
        "john",
        issuer=ISSUER,
        type="user",
        scopes=frozenset({"read", "write"}),
        metadata={"team": "sea"},
        claims=account.claims,
    )
    assert account.claims["aud"] == AUDIENCE


@pytest.mark.parametrize(
    "claims",
    [{"scopes": None, "scope": "read write"}, {"scopes": None, "scp": ["read", "write"]}],
    ids=["scope", "scp"],
)
async def test_scopes_as_oauth_has_them(claims: dict[str, Any]) -> None:
    key = Key()
    account = await verifier(key.pem)(key.token(**claims))
    assert account.scopes == {"read", "write"}


async def test_a_token_cannot_have_the_scopes_that_mean_everybody() -> None:
    key = Key()
    assert (await verifier(key.pem)(key.token("*", "", "read"))).scopes == {"read"}


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"lasts": -60.0}, "has expired"),
        ({"exp": None}, "no valid token"),
        ({"sub": None}, "no valid token"),
        ({"aud": "another"}, "for somebody else"),
        ({"aud": None}, "no valid token"),
        ({"iss": "https://another.example/"}, "from somebody else"),
        ({"iss": None}, "no valid token"),
        ({"nbf": 4e9}, "not valid yet"),
    ],
    ids=lambda value: str(value),
)
async def test_what_is_not_believed(changed: dict[str, Any], why: str) -> None:
    key = Key()
    token = key.token(**changed)
    with pytest.raises(Unauthorized, match=why) as caught:
        await verifier(key.pem)(token)
    assert token not in repr(caught.value)


async def test_clocks_may_differ_a_little() -> None:
    key = Key()
    assert (await verifier(key.pem)(key.token(lasts=-10.0))).id == "john"
    with pytest.raises(Unauthorized, match="expired"):
        await verifier(key.pem, leeway=0.0)(key.token(lasts=-10.0))


@pytest.mark.parametrize("name", ["none", "None", "nOnE", "NONE", ""])
async def test_unsigned_tokens_are_refused(name: str) -> None:
    key = Key()
    claims = jwt.decode(key.token(), options={"verify_signature": False})
    for signature in (b"", b"x" * 64):
        with pytest.raises(Unauthorized, match="not accepted"):
            await verifier(key.pem)(unsigned(claims, {"alg": name, "typ": "JWT"}, signature))
    with pytest.raises(ValueError, match="signs nothing"):
        verifier(key.pem, algorithms=[name])


async def test_a_public_key_is_no_secret() -> None:
    key = Key()
    claims = jwt.decode(key.token(), options={"verify_signature": False})
    # What an attacker does who has the public key: use it as the secret of a shared signature.
    import hashlib
    import hmac

    text = unsigned(claims, {"alg": "HS256", "typ": "JWT"}).rpartition(".")[0]
    signature = hmac.new(key.pem.encode(), text.encode(), hashlib.sha256).digest()
    forged = f"{text}.{base64.urlsafe_b64encode(signature).decode().rstrip('=')}"
    with pytest.raises(Unauthorized, match="not accepted"):
        await verifier(key.pem)(forged)
    with pytest.raises(ValueError, match="no secret"):
        verifier(key.pem, algorithms=["HS256"])
    with pytest.raises(ValueError, match="do not mix"):
        verifier(key.pem, algorithms=["ES256", "HS256"])


async def test_another_s_signature() -> None:
    key, other = Key(), Key()
    with pytest.raises(Unauthorized, match="signature"):
        await verifier(key.pem)(other.token())
    head, body, signature = key.token().split(".")
    for changed in (f"{head}.{body}.", f"{head}.{body}", f"{body}.{head}.{signature}", "", "a.b.c"):
        with pytest.raises(Unauthorized):
            await verifier(key.pem)(changed)
    with pytest.raises(Unauthorized, match="too long"):
        await verifier(key.pem)("a" * 20_000)


async def test_secrets() -> None:
    token = jwt.encode({"sub": "john", "exp": 4e9}, SECRET, "HS256")
    check = JwtVerifier(SECRET, issuer=None, audience=None, algorithms=["HS256"])
    assert (await check(token)).id == "john"
    assert SECRET not in repr(check)
    with pytest.raises(ValueError, match="needs 64 bytes"):
        JwtVerifier(SECRET, issuer=None, audience=None, algorithms=["HS512"])
    with pytest.raises(ValueError, match="not fetched"):
        JwtVerifier("https://a/b", issuer=None, audience=None, algorithms=["HS256"])


async def test_several_keys_and_tokens_that_name_none() -> None:
    old, new = Key("old"), Key("new")
    check = verifier({"old": old.pem, "new": new.pem})
    for token in (old.token(), new.token(), new.token(named=False)):
        assert (await check(token)).id == "john"
    with pytest.raises(Unauthorized, match="unknown key"):
        await check(Key("third").token())


# Keys that are fetched


@pytest.mark.parametrize(
    "url",
    ["http://issuer.example/keys", "file:///etc/passwd", "ftp://a/b", "https:///keys",
     "https://john:secret@issuer.example/keys", "https://issuer.example/a b"],
)  # fmt: skip
def test_keys_come_from_an_address_nobody_else_answers(url: str) -> None:
    with pytest.raises(ValueError, match="keys"):
        verifier(url)


async def test_keys_are_fetched_once_and_again_for_a_new_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("shoal.auth._renewed.PAUSE", 0.0)
    old, new = Key("old"), Key("new")
    issuer = Issuer(old)
    async with asyncio.timeout(PATIENCE), issuer.serving() as url:
        check = verifier(url)
        every = await asyncio.gather(*(check(old.token()) for _ in range(20)))
        assert {account.id for account in every} == {"john"}
        assert issuer.asked == 1
        issuer.keys = [old, new]  # rotated
        assert (await check(new.token())).id == "john"
        assert (await check(old.token())).id == "john"
        assert issuer.asked == 2
        issuer.keys = [new]
        await check._remote._keys.newer()  # type: ignore[union-attr]  # as it does when they are old
        with pytest.raises(Unauthorized, match="unknown key"):
            await check(old.token())


async def test_unknown_keys_do_not_make_it_ask_every_time() -> None:
    issuer = Issuer(Key("one"))
    async with asyncio.timeout(PATIENCE), issuer.serving() as url:
        check = verifier(url)
        for _ in range(50):
            with pytest.raises(Unauthorized, match="unknown key"):
                await check(Key("made up").token())
        assert issuer.asked == 1


async def test_the_issuer_is_away(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    key = Key()
    issuer = Issuer(key)
    async with asyncio.timeout(PATIENCE):
        async with issuer.serving() as url:
            check = verifier(url)
            assert (await check(key.token())).id == "john"
        monkeypatch.setattr("shoal.auth._renewed.PAUSE", 0.0)
        await check._remote._keys.newer()  # type: ignore[union-attr]  # as it does when they are old
        assert (await check(key.token())).id == "john"
        assert [r for r in caplog.records if "the old stays in use" in r.getMessage()]
        with pytest.raises(Unavailable, match="cannot be fetched"):
            await verifier(url)(key.token())


@pytest.mark.parametrize(
    "answer",
    [
        "HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}",
        "HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2097152\r\n\r\n" + "x" * 2097152,
        "nonsense\r\n\r\n",
        'HTTP/1.1 200 OK\r\n\r\n{"keys": [{"kty": "oct", "k": "AAAA", "kid": "one"}]}',
    ],
    ids=["error", "no keys", "cut", "elsewhere", "too large", "nonsense", "a secret"],
)
async def test_answers_that_are_no_keys(answer: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    issuer = Issuer()
    issuer.answer = answer
    async with asyncio.timeout(PATIENCE), issuer.serving() as url:
        with pytest.raises(Unavailable, match="cannot be fetched"):
            await verifier(url)(Key("one").token())


def test_what_is_missing_is_named_with_the_command() -> None:
    code = (
        "import sys; sys.modules['jwt'] = None\n"
        "try:\n    import shoal.auth.jwt\nexcept Exception as error:\n    print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "verifying tokens needs 'jwt': pip install 'shoal[jwt]'\n"
