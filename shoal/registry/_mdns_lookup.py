"""Module _mdns_lookup is one question asked by multicast, and the answers that come in time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from shoal.errors import BadRequest
from shoal.registry import _dns
from shoal.registry import _mdns_zone as zone
from shoal.registry._complaints import Complaints
from shoal.registry._mdns_sockets import Address, Multicast

_ENTRIES = 10_000
_BYTES = 16 << 20


class Lookup:
    """Asks for a service, or with the name `_services` for all, and gathers what is answered.

    Any number of tasks may wait for it; when the last is cancelled the socket is closed. `entries`
    are by node id.
    """

    def __init__(self, name: str, domain: str, interface: str, complaints: Complaints) -> None:
        """Open the socket; raises Unavailable if that is impossible."""
        self.name = name
        self.entries: dict[str, zone.Entry] = {}
        self.names: set[str] = set()
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._timer: asyncio.TimerHandle | None = None
        self._then: Callable[[], object] = lambda: None
        self._domain = domain
        self._complaints = complaints
        self._waiting = 0
        self._weight = 0
        self._question = _dns.Question(zone.dns_name(name, domain), _dns.PTR)
        self._multicast = Multicast(self._received, listen=False, interface=interface)

    def __repr__(self) -> str:
        return f"Lookup({self.name!r}, entries={len(self.entries)}, names={len(self.names)})"

    def start(self, timeout: float, then: Callable[[], object]) -> None:
        """Ask, and gather for so many seconds; `then` is called at the end.

        Raises Unavailable if the question cannot be sent.
        """
        try:
            self._multicast.send(_dns.encode(_dns.Message(questions=(self._question,))))
        except BaseException:
            self._multicast.close()
            raise
        self._timer = asyncio.get_running_loop().call_later(timeout, self._over)
        self._then = then

    async def wait(self) -> Lookup:
        """Return this when its time is over; raises the error it was finished with."""
        self._waiting += 1
        try:
            await asyncio.shield(self._done)
        finally:
            self._waiting -= 1
            if not self._waiting:
                self.finish()
        return self

    def finish(self, error: Exception | None = None) -> None:
        """Stop gathering."""
        if self._done.done():
            return
        if self._timer is not None:
            self._timer.cancel()
        self._multicast.close()
        self._then()
        if error is not None:
            self._done.set_exception(error)
        else:
            self._done.set_result(None)

    def _over(self) -> None:
        self._multicast.drain()
        self.finish()

    def _received(self, _: Multicast, data: bytes, address: Address) -> None:
        try:
            message = _dns.decode(data)
        except _dns.DnsError as error:
            self._complaints.add(error, address)
            return
        asked = not message.questions or message.questions[0].name == self._question.name
        if not message.flags & _dns.RESPONSE or not asked:
            return
        if self.name == zone.LIST:
            for name in zone.read_names(message, self._domain):
                if len(self.names) < _ENTRIES:
                    self.names.add(name)
            return
        for entry in zone.read_entries(message, self._domain):
            if isinstance(entry, BadRequest):
                self._complaints.add(entry, address)
            elif entry.record.name == self.name and not entry.gone:
                self._add(entry, address)

    def _add(self, entry: zone.Entry, address: Address) -> None:
        key = entry.record.nodes[0].id
        before = self.entries.get(key)
        weight = self._weight + entry.weight - (before.weight if before else 0)
        if weight > _BYTES or (before is None and len(self.entries) >= _ENTRIES):
            self._complaints.add(BadRequest("more nodes than one look-up can hold"), address)
            return
        self.entries[key], self._weight = entry, weight
