"""Module _workers_health answers probes for all workers of a program, in their parent."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec

from shoal.options import Options
from shoal.service._health import METRICS
from shoal.service._health_port import JSON, HealthPort, Page

LIMIT = 2.0  # seconds for the answer of one worker
LONGEST = 64 << 20  # bytes of it

Addresses = Callable[[], Mapping[int, str]]
"""Gives where each worker answers probes, empty for one that has not started yet."""


class WorkersHealth:
    """One port for all workers: it asks theirs, which are on the loopback and of any number.

    The program lives while no worker is dead, and is ready while one of them is. Metrics are
    those of all, told apart by the label `worker`.
    """

    def __init__(self, options: Options, addresses: Addresses) -> None:
        self._addresses = addresses
        pages = {"/healthz": self._live, "/readyz": self._ready}
        if "prometheus" in options.telemetry:
            pages["/metrics"] = self._metrics
        self.port = HealthPort(options.health, pages)

    def _live(self) -> Page:
        told = {number: told for number, told in self._ask("/healthz") if told is not None}
        well = all(status == 200 for status, _ in told.values())
        return _json(well, {number: _read(body) for number, (_, body) in told.items()})

    def _ready(self) -> Page:
        told = dict(self._ask("/readyz"))
        well = any(one is not None and one[0] == 200 for one in told.values())
        silent = {"status": "not started"}
        return _json(
            well,
            {number: silent if one is None else _read(one[1]) for number, one in told.items()},
        )

    def _metrics(self) -> Page:
        found = (
            (number, told[1].decode())
            for number, told in self._ask("/metrics")
            if told is not None and told[0] == 200
        )
        return Page(200, merged(found).encode(), METRICS)

    def _ask(self, path: str) -> Iterator[tuple[int, tuple[int, bytes] | None]]:
        """Yield the status and body each worker answers; None for one that has not started."""
        for number, address in sorted(self._addresses().items()):
            if not address:
                yield number, None
                continue
            try:
                yield number, fetch(address, path)
            except (OSError, ValueError) as error:
                yield number, (503, msgspec.json.encode({"status": f"no answer: {error}"}))


def fetch(address: str, path: str) -> tuple[int, bytes]:
    """Return the status and body of a page. Raises OSError and ValueError."""
    host, _, port = address.rpartition(":")
    end = time.monotonic() + LIMIT
    answer = bytearray()
    with socket.create_connection((host, int(port)), timeout=LIMIT) as sock:
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n".encode())
        while data := sock.recv(1 << 16):
            answer += data
            left = end - time.monotonic()
            if left <= 0 or len(answer) > LONGEST:
                raise TimeoutError("the answer was too long")
            sock.settimeout(left)
    head, _, body = bytes(answer).partition(b"\r\n\r\n")
    return int(head.split(b" ", 2)[1]), body


def merged(pages: Iterator[tuple[int, str]]) -> str:
    """Return several pages in Prometheus' text format as one, with a label for each.

    The lines of a metric have to stand together.
    """
    heads: dict[str, list[str]] = {}
    lines: dict[str, list[str]] = {}
    for number, page in pages:
        family = ""
        for line in page.splitlines():
            if line.startswith("# "):
                family = line.split(" ", 3)[2]
                known = heads.setdefault(family, [])
                if line not in known and len(known) < 2:
                    known.append(line)
            elif line:
                lines.setdefault(family, []).append(_labelled(line, number))
    parts = [line for family, head in heads.items() for line in (*head, *lines.get(family, ()))]
    return "\n".join([*parts, ""])


def _labelled(line: str, number: int) -> str:
    """Return a sample with the label `worker`; only values of labels may hold a brace before it."""
    name, brace, rest = line.partition("{")
    if brace and " " not in name:
        return f'{name}{{worker="{number}",{rest}'
    name, _, rest = line.partition(" ")
    return f'{name}{{worker="{number}"}} {rest}'


def _read(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except msgspec.DecodeError:
        return {"status": body.decode(errors="replace")}


def _json(well: bool, workers: Mapping[int, Any]) -> Page:
    status = "ok" if well else "not well"
    value = {"status": status, "workers": {str(number): told for number, told in workers.items()}}
    return Page(200 if well else 503, msgspec.json.encode(value) + b"\n", JSON)
