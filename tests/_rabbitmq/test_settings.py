"""Tests of how RabbitMQ is addressed."""

from __future__ import annotations

from typing import Any

import pytest

from shoal._rabbitmq import RabbitSettings
from shoal._rabbitmq._settings import Server, servers
from shoal.errors import BadRequest


def test_nothing_is_the_usual_server_of_this_machine() -> None:
    assert servers("") == [Server("127.0.0.1", 5672)]


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("host", Server("host", 5672)),
        ("host:1", Server("host", 1)),
        ("me:pw@host:1/fleet", Server("host", 1, "me", "pw", "fleet")),
        ("amqp://me:p%40%2Fw@host/%2F", Server("host", 5672, "me", "p@/w", "/")),
        ("amqps://host", Server("host", 5671, secure=True)),
        ("[::1]:5", Server("::1", 5)),
        ("host/a%2Fb", Server("host", 5672, vhost="a/b")),
    ],
)
def test_an_address_is_read(address: str, expected: Server) -> None:
    assert servers(address) == [expected]


def test_who_one_is_holds_for_all_addresses() -> None:
    one, two, three = servers("a, me:pw@b/fleet, you:no@c/other")
    assert (one.user, one.password, one.vhost) == ("me", "pw", "fleet")
    assert (two.user, two.vhost) == ("me", "fleet")
    assert (three.user, three.password, three.vhost) == ("you", "no", "other")


@pytest.mark.parametrize(
    "address",
    [
        "a,",
        ",",
        "http://host",
        "me:secret@",
        "me:secret@host:x",
        "host:99999",
        "höst",
        "h?x=secret",
    ],
)
def test_what_is_no_address_is_said_without_its_secrets(address: str) -> None:
    with pytest.raises(BadRequest) as caught:
        servers(address)
    assert "of RabbitMQ is not of the form" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_with_tls_the_port_is_another() -> None:
    assert servers("host", secure=True) == [Server("host", 5671, secure=True)]


def test_secrets_are_not_shown() -> None:
    assert "hidden" not in repr(servers("me:hidden@host"))
    assert "hidden" not in repr(RabbitSettings(password="hidden"))


@pytest.mark.parametrize("wrong", [{"prefetch": 0}, {"heartbeat": 0}, {"exchange_type": "headers"}])
def test_settings_that_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"RabbitMQ needs|is no exchange type"):
        RabbitSettings(**wrong)
