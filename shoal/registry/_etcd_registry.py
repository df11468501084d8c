"""Module _etcd_registry is what the registries etcd and etcdv2 have in common."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import msgspec

from shoal.errors import BadRequest
from shoal.registry import Change, Record, Registry
from shoal.registry._complaints import Complaints
from shoal.registry._etcd_http import EtcdHttp
from shoal.registry._etcd_keeper import Keeper
from shoal.registry._etcd_settings import EtcdSettings, read_address
from shoal.registry._etcd_store import Store
from shoal.registry._etcd_watch import Watch
from shoal.registry._records import checked, decode, encode, merge
from shoal.tls import Tls

logger = logging.getLogger(__name__)


class _Named(msgspec.Struct):
    name: str = ""


_named = msgspec.json.Decoder(_Named).decode


class EtcdBase(Registry):
    """Keeps every node in a key of its own, as Go Micro does: `<prefix><service>/<node>`."""

    def __init__(
        self,
        address: str,
        tls: Tls | None,
        settings: EtcdSettings | None,
        prefix: str,
        store: Callable[[EtcdHttp, EtcdSettings], Store],
    ) -> None:
        target = read_address(address, settings, prefix, os.environ)
        if tls is None and target.secure:
            tls = Tls()
        self._members = ",".join(target.members)
        self._timeout = target.settings.timeout
        self._prefixes = target.settings.prefixes()
        self._http = EtcdHttp(target.members, tls, self._timeout)
        self._store = store(self._http, target.settings)
        self._keeper = Keeper(self._store)
        self._watches: set[Watch] = set()
        self._complaints = Complaints(logger)

    def __repr__(self) -> str:
        state = f"nodes={self._keeper.keys}, watches={len(self._watches)}"
        if self.error is not None:
            state += f", error={str(self.error)!r}"
        return f"{type(self).__name__}({self._members!r}, {state})"

    @property
    def error(self) -> Exception | None:
        """Why what is registered or watched here may not be up to date, None if it is."""
        watches = (watch.error for watch in self._watches)
        return self._keeper.error or next((error for error in watches if error is not None), None)

    async def register(self, record: Record, *, ttl: float | None = None) -> None:
        """Add or refresh the nodes. Their lease is kept alive until `ttl` seconds are over."""
        record = checked(record)
        await self._settled()
        for node in record.nodes:
            value = encode(replace(record, nodes=(node,)))  # readers append nodes: never two
            await self._keeper.hold(self._key(record.name, node.id), value, ttl)

    async def deregister(self, record: Record) -> None:
        await self._settled()
        for node in record.nodes:
            await self._keeper.drop(self._key(record.name, node.id))

    async def get(self, name: str) -> list[Record]:
        await self._settled()
        prefixes = [self._folder(prefix, name) for prefix in self._prefixes]
        found = [await self._store.read(prefix) for prefix in prefixes]
        values = [item for snapshot in found for item in snapshot.values.items()]
        records = [self._decoded(name, key, value) for key, value in values]
        return merge(record for record in records if record is not None)

    async def services(self) -> list[str]:
        found = [await self._store.read(prefix) for prefix in self._prefixes]
        names = {
            self._name(key, value) for snapshot in found for key, value in snapshot.values.items()
        }
        return sorted(names - {""})

    async def watch(self, name: str | None = None) -> AsyncIterator[Change]:
        prefixes = self._prefixes
        if name is not None:
            prefixes = [self._folder(prefix, name) for prefix in prefixes]
        watch = Watch(self._store, prefixes, lambda key, value: self._decoded(name, key, value))
        self._watches.add(watch)
        watch.start()
        try:
            while change := await watch.next():
                yield change
        finally:
            self._watches.discard(watch)
            await watch.stop()

    async def close(self) -> None:
        watches = list(self._watches)
        await asyncio.gather(*(watch.stop() for watch in watches))
        self._watches.difference_update(watches)
        await self._keeper.close(self._timeout)
        await self._http.close()

    async def _settled(self) -> None:
        """Wait for watches that have just begun: what is read or written now, they follow."""
        for watch in list(self._watches):
            await watch.started.wait()

    def _folder(self, prefix: str, name: str) -> str:
        return f"{prefix}{name.replace('/', '-')}/"

    def _key(self, name: str, node: str) -> str:
        return self._folder(self._prefixes[0], name) + node.replace("/", "-")

    def _decoded(self, name: str | None, key: str, value: bytes) -> Record | None:
        """Return what stands in a key, None if it is no node of the service."""
        try:
            record = decode(value)
        except BadRequest as error:
            self._complaints.add(error, key)
            return None
        return record if record.nodes and name in (None, record.name) else None

    def _name(self, key: str, value: bytes) -> str:
        try:
            return _named(value).name
        except (msgspec.DecodeError, UnicodeError) as error:
            self._complaints.add(error, key)
            return ""
