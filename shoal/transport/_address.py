"""Module _address reads the addresses that transports dial and listen at."""

from __future__ import annotations

from collections.abc import Iterator

from shoal.errors import BadRequest


def split(address: str) -> tuple[str, range]:
    """Return the host and the ports of `host:port`, `host:first-last`, `[::1]:port` or `:port`."""
    host, colon, port = address.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        colon = ""  # an IPv6 address without brackets: where its port begins nobody can tell
    first, _, last = port.partition("-")
    try:
        if not colon:
            raise ValueError
        ports = range(int(first), int(last or first) + 1)
        if not ports or ports[0] < 0 or ports[-1] > 65535:
            raise ValueError
    except ValueError:
        raise BadRequest(
            f"{address!r} is no address: write host:port, host:first-last or [ipv6]:port",
            id="shoal.transport",
        ) from None
    return host, ports


def join(host: str, port: int) -> str:
    """Return `host:port`, with brackets around an IPv6 host."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def candidates(address: str) -> Iterator[tuple[str, int]]:
    """Yield every host and port an address to listen at stands for."""
    host, ports = split(address)
    for port in ports:
        yield host, port
