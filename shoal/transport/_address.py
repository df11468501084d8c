"""Module _address reads the addresses that transports dial and listen at."""

from __future__ import annotations

import re
from collections.abc import Iterator

from shoal.errors import BadRequest

# A name or an IP address, with a zone perhaps; what it stands for the resolver says.
_HOST = re.compile(r"[^\s/\\@?#\[\]\x00-\x20\x7f]*")
_PORTS = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")


_UNIX = re.compile(r"unix://(/[^\x00?]+)(?:\?mode=([0-7]{3,4}))?")


def unix_path(address: str) -> tuple[str, int] | None:
    """Return the path and the mode of `unix:///path` or `unix:///path?mode=660`, None for others.

    The mode is the file's permissions, of its owner alone if none is given.
    """
    found = _UNIX.fullmatch(address)
    return (found[1], int(found[2] or "600", 8)) if found else None


def split(address: str) -> tuple[str, range]:
    """Return the host and the ports of `host:port`, `host:first-last`, `[::1]:port` or `:port`.

    Raises BadRequest for anything else.
    """
    host, colon, port = address.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        colon = ""  # an IPv6 address without brackets: where its port begins nobody can tell
    found = _PORTS.fullmatch(port) if colon and _HOST.fullmatch(host) else None
    if found is not None:
        first, last = int(found[1]), int(found[2] or found[1])
        if first <= last <= 65535:
            return host, range(first, last + 1)
    raise BadRequest(
        f"{address!r} is no address: write host:port, host:first-last or [ipv6]:port",
        id="shoal.transport",
    )


def one(address: str) -> tuple[str, int]:
    """Return the host and the port of an address to dial; raises BadRequest for a range."""
    host, ports = split(address)
    if len(ports) > 1 or not ports[0]:
        raise BadRequest(f"{address!r} cannot be dialled: it needs one port", id="shoal.transport")
    return host, ports[0]


def join(host: str, port: int) -> str:
    """Return `host:port`, with brackets around an IPv6 host."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def candidates(address: str) -> Iterator[tuple[str, int]]:
    """Yield every host and port an address to listen at stands for."""
    host, ports = split(address)
    for port in ports:
        yield host, port
