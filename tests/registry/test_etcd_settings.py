"""Tests of what can be set of etcd."""

from __future__ import annotations

import pytest

from shoal.errors import BadRequest
from shoal.registry._etcd_settings import PREFIX, EtcdSettings, read_address


@pytest.mark.parametrize(
    ("address", "members"),
    [
        ("", ("127.0.0.1:2379",)),
        ("10.0.0.1", ("10.0.0.1:2379",)),
        ("10.0.0.1:1, b,c:3 ", ("10.0.0.1:1", "b:2379", "c:3")),
        ("::1", ("[::1]:2379",)),
        ("[::1]", ("[::1]:2379",)),
        ("[::1]:80,[::2]:81", ("[::1]:80", "[::2]:81")),
        ("http://a:1,http://b:2", ("a:1", "b:2")),
        ("user:secret@a,b/prefix?timeout=1", ("a:2379", "b:2379")),
        ("/prefix", ("127.0.0.1:2379",)),
    ],
)
def test_members_are_given(address: str, members: tuple[str, ...]) -> None:
    target = read_address(address, None, PREFIX, {})
    assert target.members == members
    assert not target.secure


@pytest.mark.parametrize("address", ["a:b", "a:0", "a:65536", ":80", "a:1,b:", "[::1]:x"])
def test_members_that_make_no_sense_are_refused(address: str) -> None:
    with pytest.raises(BadRequest):
        read_address(address, None, PREFIX, {})


def test_an_address_holds_the_usual_settings() -> None:
    address = (
        "mi%40cro:sec%3Aret%2F@a:1,b:2/micro-registry/?timeout=2.5s&also=/x&also=y"
        "&consistency=linearizable&password_file=/run/secret"
    )
    settings = read_address(address, None, PREFIX, {}).settings
    assert settings == EtcdSettings(
        user="mi@cro",
        password="sec:ret/",
        password_file="/run/secret",
        prefix="micro-registry/",
        also=("/x", "y"),
        consistency="linearizable",
        timeout=2.5,
    )
    assert settings.prefixes() == ["/micro-registry/", "/x/", "/y/"]
    assert "sec" not in repr(EtcdSettings(password="sec:ret/"))


def test_code_wins_over_the_address_and_that_over_the_environment() -> None:
    environ = {"ETCD_USERNAME": "env", "ETCD_PASSWORD": "env-secret"}
    settings = read_address("a", None, PREFIX, environ).settings
    assert (settings.user, settings.password, settings.prefixes()) == (
        "env",
        "env-secret",
        ["/micro/registry/"],
    )
    settings = read_address("address:one@a/there?timeout=1", None, PREFIX, environ).settings
    assert (settings.user, settings.password) == ("address", "one")
    code = EtcdSettings(user="code", password="two", timeout=3, prefix="/here/")
    settings = read_address("address:one@a/there?timeout=1", code, PREFIX, environ).settings
    assert settings == code
    assert read_address("https://a", None, PREFIX, {}).secure


@pytest.mark.parametrize(
    "address", ["a?colour=red", "a?timeout=soon", "a?timeout=0", "a?consistency=x"]
)
def test_settings_that_make_no_sense_are_refused(address: str) -> None:
    with pytest.raises(BadRequest, match="etcd: "):
        read_address(address, None, PREFIX, {})


def test_the_root_may_be_the_prefix() -> None:
    assert read_address("a/", EtcdSettings(prefix="/"), PREFIX, {}).settings.prefixes() == [
        "/micro/registry/"
    ]
