"""Module _advertise finds the address under which others can reach a server."""

from __future__ import annotations

import ipaddress
import os
import socket

from shoal.errors import BadRequest


def advertised(bound: str, advertise: str) -> tuple[str, str]:
    """Return the address to register for a bound one, and the rule that chose it.

    In this order: the address that was set, the host that was bound, POD_IP, the address of the
    default route, loopback. An address without a port (a queue's name) is taken as it is.
    """
    host, colon, port = bound.rpartition(":")
    if not colon or not port.isdigit():
        return advertise or bound, "set" if advertise else "bound"
    if advertise:
        given, _, given_port = advertise.rpartition(":")
        if not given or not given_port.isdigit():
            given, given_port = advertise, port
        return f"{_bracket(given)}:{given_port}", "--server_advertise"
    plain = host.strip("[]")
    if plain not in ("", "0.0.0.0", "::"):
        return bound, "the address it listens on"
    pod = os.environ.get("POD_IP", "")
    if pod:
        try:
            ipaddress.ip_address(pod)
        except ValueError:
            raise BadRequest(f"POD_IP is {pod!r}, which is no IP address") from None
        return f"{_bracket(pod)}:{port}", "POD_IP"
    found = _default_route()
    if found:
        return f"{_bracket(found)}:{port}", "the default route"
    return f"127.0.0.1:{port}", "loopback, as there is no default route"


def _bracket(host: str) -> str:
    host = host.strip("[]")
    return f"[{host}]" if ":" in host else host


def _default_route() -> str:
    """Return this host's address on the way to the outside; nothing is sent to find out."""
    targets = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))
    for family, target in targets:
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((target, 9))
                return str(probe.getsockname()[0])
        except OSError:
            continue
    return ""
