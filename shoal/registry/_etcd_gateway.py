"""Module _etcd_gateway speaks etcd's v3 API through its JSON gateway (etcd 3.4 and later)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

import msgspec

from shoal.errors import BadRequest, Unavailable
from shoal.registry._etcd_http import EtcdHttp, TooMuch
from shoal.registry._etcd_login import (
    INVALID_ARGUMENT,
    NOT_FOUND,
    OUT_OF_RANGE,
    Login,
    Refused,
    refusal,
)
from shoal.registry._etcd_probe import Probe
from shoal.registry._etcd_settings import EtcdSettings
from shoal.registry._etcd_store import (
    Deliver,
    Event,
    HistoryLost,
    Position,
    Snapshot,
    Store,
)

PAGE = 1000  # keys of one answer
MAX_KEYS = 500_000
_LEASES = 500  # of one question

T = TypeVar("T")

_json = msgspec.json.encode  # writes bytes in base64, as the gateway reads them


class _Header(msgspec.Struct):
    revision: int = 0
    raft_term: int = 0


class _KeyValue(msgspec.Struct):
    key: bytes = b""
    value: bytes = b""
    mod_revision: int = 0
    lease: int = 0


class _Range(msgspec.Struct):
    header: _Header
    kvs: list[_KeyValue] = []
    more: bool = False


class _Lease(msgspec.Struct):
    ID: int = 0
    TTL: int = 0


class _Done(msgspec.Struct):
    header: _Header


class _Event(msgspec.Struct):
    kv: _KeyValue
    type: str = "PUT"


class _Watched(msgspec.Struct):
    header: _Header
    created: bool = False
    canceled: bool = False
    fragment: bool = False
    compact_revision: int = 0
    cancel_reason: str = ""
    events: list[_Event] = []


class _StreamError(msgspec.Struct):
    message: str = ""
    grpc_code: int = 0
    code: int = 0  # what newer gateways call it


class _WatchLine(msgspec.Struct):
    result: _Watched | None = None
    error: _StreamError | None = None


class _LeaseLine(msgspec.Struct):
    result: _Lease | None = None
    error: _StreamError | None = None


class Gateway(Store):
    """A store of leases and revisions (etcd v3)."""

    def __init__(self, http: EtcdHttp, settings: EtcdSettings) -> None:
        self._http = http
        self._login = Login(http, settings)
        self._sure = settings.consistency == "linearizable"
        self._seen = 0  # the newest revision that an answer was about
        self._probe = Probe(self._count)

    @property
    def member(self) -> str:
        return self._http.member

    def avoid(self, member: str) -> None:
        self._http.avoid(member)

    async def read(self, prefix: str, *, sure: bool = False) -> Snapshot:
        sure = sure or self._sure
        seen = self._seen
        snapshot = await self._read(prefix, sure)
        if not sure and snapshot.position.revision < seen:  # this member is behind the others
            sure, snapshot = True, await self._read(prefix, True)
        if sure:  # also when that is less than before, as it is in a cluster that began anew
            self._seen = snapshot.position.revision
        return snapshot

    async def _read(self, prefix: str, sure: bool) -> Snapshot:
        key, end = prefix.encode(), _after(prefix)
        values: dict[str, bytes] = {}
        page, position = PAGE, None
        while True:
            asked = {"key": key, "range_end": end, "limit": page, "serializable": not sure}
            if position is not None:
                asked["revision"] = position.revision
            try:
                found = await self._ask("kv/range", asked, _Range)
            except TooMuch:
                if page == 1:
                    raise
                page = max(page // 10, 1)
                continue
            if position is None:
                position = Position(found.header.revision, found.header.raft_term)
            values.update((one.key.decode(errors="replace"), one.value) for one in found.kvs)
            if not found.more or not found.kvs:
                self._seen = max(self._seen, position.revision)
                return Snapshot(position, values)
            if len(values) > MAX_KEYS:
                raise Unavailable(f"etcd has more than {MAX_KEYS} keys below {prefix}")
            key = found.kvs[-1].key + b"\0"

    async def follow(self, member: str, prefix: str, position: Position, deliver: Deliver) -> None:
        asked = {
            "key": prefix.encode(),
            "range_end": _after(prefix),
            "start_revision": position.revision + 1,
            "fragment": True,
        }
        headers = await self._login.headers()
        content = _json({"create_request": asked})
        async with self._http.open(
            member, "POST", "/v3/watch", content=content, headers=headers
        ) as response:
            if response.status_code != 200:
                # Refused before it began: a plain question finds out why, and logs in anew.
                await self.probe(member)
                raise Unavailable(f"etcd at {member} answers {response.status_code} to a watch")
            events: list[Event] = []
            async for line in self._http.lines(response):
                watched = self._watched(member, line, position)
                if watched.created:
                    await deliver(())
                events += (_event(one) for one in watched.events)
                if events and not watched.fragment:
                    await deliver(events)
                    self._seen = max(self._seen, events[-1].revision)
                    events = []
        raise Unavailable(f"etcd at {member} has ended the watch")

    def _watched(self, member: str, line: bytes, position: Position) -> _Watched:
        said = _decoded(member, line, _WatchLine)
        if said.error is not None:
            raise self._refused(member, said.error)
        watched = said.result
        if watched is None:
            raise Unavailable(f"etcd at {member} sends {line[:100]!r} to a watch")
        if watched.compact_revision:
            raise HistoryLost(f"etcd at {member} has compacted its history")
        if watched.canceled:
            raise self._refused(member, _StreamError(watched.cancel_reason))
        behind = watched.header.revision < position.revision
        if watched.created and (behind or watched.header.raft_term < position.term):
            raise HistoryLost(f"etcd at {member} is behind what it was, or began anew")
        return watched

    async def probe(self, member: str) -> None:
        await self._probe(member)

    async def _count(self, member: str) -> None:
        asked = {"key": b"/", "count_only": True}
        await self._ask("kv/range", asked, _Range, member)

    async def place(self, key: str, value: bytes, seconds: int, lease: int) -> int:
        if lease:
            try:
                await self._put(key, value, lease)
                return lease
            except Refused as problem:
                if problem.reason != NOT_FOUND:
                    raise
        if seconds:
            lease = (await self._ask("lease/grant", {"TTL": seconds}, _Lease)).ID
        await self._put(key, value, lease)
        return lease

    async def _put(self, key: str, value: bytes, lease: int) -> None:
        try:
            asked = {"key": key.encode(), "value": value, "lease": lease}
            await self._write("kv/put", asked)
        except Refused as problem:
            if problem.reason == INVALID_ARGUMENT and "too large" in problem.text:
                raise BadRequest(f"the record in {key} is too large for etcd") from problem
            raise

    async def present(self, key: str, value: bytes, seconds: int, lease: int) -> bool:
        if lease and await self.renew([(key, seconds, lease)]):
            return False
        found = await self._ask("kv/range", {"key": key.encode()}, _Range)
        return any(one.value == value and one.lease == lease for one in found.kvs)

    async def renew(self, held: Iterable[tuple[str, int, int]]) -> set[tuple[str, int]]:
        keys = {lease: key for key, _, lease in held if lease}
        leases, lost = list(keys), set()
        for start in range(0, len(leases), _LEASES):
            asked = b"".join(_json({"ID": one}) for one in leases[start : start + _LEASES])
            for line in (await self._answer("lease/keepalive", asked)).splitlines():
                said = _decoded(self._http.member, line, _LeaseLine)
                if said.error is not None:
                    raise self._refused(self._http.member, said.error)
                if said.result is not None and said.result.TTL <= 0 and said.result.ID in keys:
                    lost.add((keys[said.result.ID], said.result.ID))
        return lost

    async def remove(self, key: str, lease: int) -> None:
        await self._write("kv/deleterange", {"key": key.encode()})
        if lease:  # which nothing holds any more
            try:
                await self._ask("lease/revoke", {"ID": lease}, _Done)
            except Refused as problem:
                if problem.reason != NOT_FOUND:
                    raise

    async def _write(self, path: str, asked: dict[str, Any]) -> None:
        done = await self._ask(path, asked, _Done)
        self._seen = max(self._seen, done.header.revision)

    async def _ask(self, path: str, asked: dict[str, Any], into: type[T], member: str = "") -> T:
        return _decoded(member, await self._answer(path, _json(asked), member), into)

    async def _answer(self, path: str, content: bytes, member: str = "") -> bytes:
        for again in (True, False):
            headers = await self._login.headers()
            reply = await self._http.send(
                "POST", f"/v3/{path}", content=content, headers=headers, member=member
            )
            if reply.status == 200:
                return reply.body
            problem = await refusal(self._http, reply)
            if problem.reason == OUT_OF_RANGE:
                raise HistoryLost(str(problem)) from problem
            if not (again and problem.about_login and self._login.wanted):
                break
            self._login.forget()  # it has expired, or the server was started anew
        raise problem

    def _refused(self, member: str, error: _StreamError) -> Refused:
        problem = Refused(member, error.message, error.grpc_code or error.code)
        if problem.about_login:
            self._login.forget()
        return problem


def _decoded(member: str, data: bytes, into: type[T]) -> T:
    try:
        return msgspec.json.decode(data, type=into, strict=False)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise Unavailable(f"etcd at {member} sends no answer that makes sense: {error}") from None


def _event(one: _Event) -> Event:
    gone = one.type == "DELETE"
    key = one.kv.key.decode(errors="replace")
    return Event(key, None if gone else one.kv.value, one.kv.mod_revision)


def _after(prefix: str) -> bytes:
    """Return the first key behind all that begin with a prefix that ends in a slash."""
    return prefix.encode()[:-1] + b"0"
