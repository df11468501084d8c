"""What is an address and what is none."""

from __future__ import annotations

import pytest

from shoal.errors import BadRequest
from shoal.transport._address import candidates, join, one, split


@pytest.mark.parametrize(
    ("address", "host", "ports"),
    [
        ("127.0.0.1:80", "127.0.0.1", [80]),
        ("localhost:0", "localhost", [0]),
        (":0", "", [0]),
        ("[::1]:80", "::1", [80]),
        ("[fe80::1%eth0]:80", "fe80::1%eth0", [80]),
        ("[::]:0", "::", [0]),
        ("my_host-1.example.org:5000-5002", "my_host-1.example.org", [5000, 5001, 5002]),
        ("greeter:65535", "greeter", [65535]),
    ],
)
def test_addresses(address: str, host: str, ports: list[int]) -> None:
    assert split(address) == (host, range(ports[0], ports[-1] + 1))
    assert list(candidates(address)) == [(host, port) for port in ports]


def test_joined_again() -> None:
    assert join("127.0.0.1", 80) == "127.0.0.1:80"
    assert join("::1", 80) == "[::1]:80"
    assert split(join("::1", 80)) == ("::1", range(80, 81))


@pytest.mark.parametrize("address", ["127.0.0.1:0", "127.0.0.1:80-81", ":0"])
def test_only_one_port_can_be_dialled(address: str) -> None:
    with pytest.raises(BadRequest, match="needs one port"):
        one(address)
    assert one("127.0.0.1:80-80") == ("127.0.0.1", 80)
