"""Tests of the addresses of NATS."""

from __future__ import annotations

import pytest

from shoal._nats import NatsSettings
from shoal._nats._settings import Server, servers
from shoal.errors import BadRequest


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("", [Server("127.0.0.1", 4222)]),
        ("nats.example", [Server("nats.example", 4222)]),
        ("a:1,nats://b:2, tls://c/", [
            Server("a", 1), Server("b", 2), Server("c", 4222, secure=True),
        ]),
        ("[::1]:5", [Server("::1", 5)]),
        ("me:p%40ss%2C@a", [Server("a", 4222, "me", "p@ss,")]),
        ("nats://token@a:7", [Server("a", 7, "token")]),
    ],
)  # fmt: skip
def test_addresses(address: str, expected: list[Server]) -> None:
    assert servers(address, "x") == expected


@pytest.mark.parametrize(
    "address", [":1", "a:b", "a:99999", "http://a", "ws://a", "a/b", "a:1,b:x", "größe:1", "@:"]
)
def test_nonsense_is_refused(address: str) -> None:
    with pytest.raises(BadRequest, match="is no address of NATS") as caught:
        servers(address, "shoal.registry")
    assert caught.value.id == "shoal.registry"


def test_no_secret_is_shown() -> None:
    (server,) = servers("me:secret@a", "x")
    settings = NatsSettings(user="me", password="secret", token="secret")
    assert "secret" not in f"{server!r} {server.where} {server.url} {settings!r}"
    with pytest.raises(BadRequest) as caught:
        servers("me:secret@a:b", "x")
    assert "secret" not in repr(caught.value)
