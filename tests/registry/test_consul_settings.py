"""Tests of what can be set of Consul, and where."""

from __future__ import annotations

from typing import Any

import pytest

from shoal.errors import BadRequest
from shoal.registry._consul_settings import (
    ConsulSettings,
    HttpCheck,
    TcpCheck,
    address_tls,
    read_address,
)


@pytest.mark.parametrize(
    ("address", "agents"),
    [
        ("", ["127.0.0.1:8500"]),
        ("10.0.0.1", ["10.0.0.1:8500"]),
        ("10.0.0.1:80,consul.example", ["10.0.0.1:80", "consul.example:8500"]),
        ("[::1]:80,[::2],::3", ["[::1]:80", "[::2]:8500", "[::3]:8500"]),
        ("https://a:8501,http://b:1/?timeout=3", ["a:8501", "b:1"]),
        ("me:secret@a,b:2", ["a:8500", "b:2"]),
    ],
)
def test_agents(address: str, agents: list[str]) -> None:
    assert read_address(address, ConsulSettings(), {})[0] == agents


@pytest.mark.parametrize(
    ("address", "wanted"),
    [
        ("a?token=t&datacenter=eu&namespace=n&partition=p", {"token": "t", "datacenter": "eu",
                                                            "namespace": "n", "partition": "p"}),
        ("a?token_file=/run/t&consistency=consistent", {"token_file": "/run/t",
                                                        "consistency": "consistent"}),
        ("a?tcp_check=10s&connect", {"check": TcpCheck(interval=10), "connect": True}),
        ("a?http_check=http%3A%2F%2F%7Bhost%7D%3A81%2F", {"check": HttpCheck(url="http://{host}:81/")}),
        ("me:p%40ss@a", {"user": "me", "password": "p@ss"}),
        ("a?timeout=2.5&wait=60", {"timeout": 2.5, "wait": 60}),
    ],
)  # fmt: skip
def test_settings_in_the_address(address: str, wanted: dict[str, Any]) -> None:
    assert read_address(address, ConsulSettings(), {})[1] == ConsulSettings(**wanted)


def test_code_wins_over_address_over_environment() -> None:
    environ = {
        "CONSUL_HTTP_ADDR": "https://10.0.0.9:8501",
        "CONSUL_HTTP_TOKEN": "environment",
        "CONSUL_NAMESPACE": "environment",
        "CONSUL_HTTP_AUTH": "me:secret",
    }
    agents, settings = read_address("", ConsulSettings(datacenter="code"), environ)
    assert agents == ["10.0.0.9:8501"]
    assert (settings.token, settings.user, settings.password) == ("environment", "me", "secret")
    agents, settings = read_address(
        "a?token=address&datacenter=address", ConsulSettings(datacenter="code"), environ
    )
    assert agents == ["a:8500"]
    assert (settings.datacenter, settings.token) == ("code", "address")
    assert settings.namespace == "environment"


@pytest.mark.parametrize(
    ("address", "match"),
    [
        ("a?tokn=x", "no setting 'tokn': known are token,"),
        ("a?consistency=strong", "'strong' is none of stale, default, consistent"),
        ("a?timeout=soon", "timeout must be a number of seconds"),
        ("a?tcp_check=0", "tcp_check must be a number of seconds"),
        ("a:none", "port between 1 and 65535"),
    ],
)
def test_what_is_wrong_is_said(address: str, match: str) -> None:
    with pytest.raises(BadRequest, match=match):
        read_address(address, ConsulSettings(), {})


@pytest.mark.parametrize(
    ("address", "environ", "secure"),
    [
        ("", {}, False),
        ("a:1", {}, False),
        ("https://a:1", {}, True),
        ("", {"CONSUL_HTTP_ADDR": "https://a:1"}, True),
        ("b:1", {"CONSUL_HTTP_ADDR": "https://a:1"}, False),
        ("a:1", {"CONSUL_HTTP_SSL": "true"}, True),
    ],
)
def test_when_agents_are_asked_in_secret(
    address: str, environ: dict[str, str], secure: bool
) -> None:
    environ = {**environ, "CONSUL_CACERT": "/ca.pem", "CONSUL_HTTP_SSL_VERIFY": "false"}
    tls = address_tls(address, environ)
    assert (tls is not None) == secure
    assert tls is None or (tls.ca_file, tls.verify) == ("/ca.pem", False)


def test_secrets_are_not_shown() -> None:
    assert "hidden" not in repr(ConsulSettings(token="hidden", password="hidden"))
