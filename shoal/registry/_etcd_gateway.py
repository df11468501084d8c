"""Module _etcd_gateway speaks etcd's v3 API through its JSON gateway (etcd 3.4 and later)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import msgspec

from shoal.errors import BadRequest, Unavailable
from shoal.registry._etcd_http import EtcdHttp, Reply, TooMuch
from shoal.registry._etcd_login import (
    NOT_FOUND,
    OUT_OF_RANGE,
    Login,
    Refused,
    refusal,
)
from shoal.registry._etcd_messages import (
    Done,
    Lease,
    LeaseLine,
    Range,
    StreamError,
    Watched,
    WatchLine,
    decoded,
    event,
)
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
_KEYS = 100  # removed at once; etcd takes 128
_TRIES = 2

T = TypeVar("T")

_json = msgspec.json.encode  # writes bytes in base64, as the gateway reads them


class Gateway(Store):
    """A store of leases and revisions (etcd v3)."""

    def __init__(self, http: EtcdHttp, settings: EtcdSettings) -> None:
        super().__init__(http, settings)
        self._login = Login(http, settings)

    async def _read(self, prefix: str, sure: bool) -> Snapshot:
        for _ in range(_TRIES):
            with contextlib.suppress(HistoryLost):  # between two pages
                return await self._pages(prefix, sure)
        return await self._pages(prefix, sure)

    async def _pages(self, prefix: str, sure: bool) -> Snapshot:
        key, end = prefix.encode(), _after(prefix)
        values: dict[str, bytes] = {}
        page, position = PAGE, None
        while True:
            asked = {"key": key, "range_end": end, "limit": page, "serializable": not sure}
            if position is not None:
                asked["revision"] = position.revision
            try:
                found = await self._ask("kv/range", asked, Range)
            except TooMuch:
                if page == 1:
                    raise
                page = max(page // 10, 1)
                continue
            if position is None:
                position = Position(found.header.revision, found.header.raft_term)
            values.update((one.key.decode(errors="replace"), one.value) for one in found.kvs)
            if not found.more or not found.kvs:
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
                body = b"".join([line async for line in self._http.lines(response)])
                reply = Reply(member, response.status_code, response.headers, body)
                raise self._noted(await refusal(self._http, reply))
            events: list[Event] = []
            async for line in self._http.lines(response):
                watched = self._watched(member, line, position)
                if watched.created:
                    await deliver(())
                events += (event(one) for one in watched.events)
                if events and not watched.fragment:
                    await deliver(events)
                    self.saw(events[-1].revision)
                    events = []
        raise Unavailable(f"etcd at {member} has ended the watch")

    def _watched(self, member: str, line: bytes, position: Position) -> Watched:
        said = decoded(member, line, WatchLine)
        if said.error is not None:
            raise self._refused(member, said.error)
        watched = said.result
        if watched is None:
            raise Unavailable(f"etcd at {member} sends {line[:100]!r} to a watch")
        if watched.compact_revision:
            raise HistoryLost(f"etcd at {member} has compacted its history")
        if watched.canceled:
            raise self._refused(member, StreamError(watched.cancel_reason))
        behind = watched.header.revision < position.revision
        if watched.created and (behind or watched.header.raft_term < position.term):
            raise HistoryLost(f"etcd at {member} is behind what it was, or began anew")
        return watched

    async def _ask_alive(self, member: str) -> None:
        asked = {"key": b"/", "count_only": True}
        await self._ask("kv/range", asked, Range, member)

    async def place(self, key: str, value: bytes, seconds: int, lease: int) -> int:
        if lease:
            try:
                await self._put(key, value, lease)
                return lease
            except Refused as problem:
                if problem.reason != NOT_FOUND:
                    raise
        if seconds:
            lease = (await self._ask("lease/grant", {"TTL": seconds}, Lease)).ID
        await self._put(key, value, lease)
        return lease

    async def _put(self, key: str, value: bytes, lease: int) -> None:
        try:
            asked = {"key": key.encode(), "value": value, "lease": lease}
            await self._write("kv/put", asked)
        except Refused as problem:
            if "too large" in problem.text or "larger than max" in problem.text:
                raise BadRequest(f"the record in {key} is too large for etcd") from problem
            raise

    async def present(self, key: str, value: bytes, seconds: int, lease: int) -> bool:
        if lease and await self.renew([(key, seconds, lease)]):
            return False
        found = await self._ask("kv/range", {"key": key.encode()}, Range)
        return any(one.value == value and one.lease == lease for one in found.kvs)

    async def renew(self, held: Iterable[tuple[str, int, int]]) -> set[tuple[str, int]]:
        keys = {lease: key for key, _, lease in held if lease}
        leases, lost = list(keys), set()
        for start in range(0, len(leases), _LEASES):
            asked = b"".join(_json({"ID": one}) for one in leases[start : start + _LEASES])
            reply = await self._answer("lease/keepalive", asked)
            for line in reply.body.splitlines():
                said = decoded(reply.member, line, LeaseLine)
                if said.error is not None:
                    raise self._refused(reply.member, said.error)
                if said.result is not None and said.result.TTL <= 0 and said.result.ID in keys:
                    lost.add((keys[said.result.ID], said.result.ID))
        return lost

    async def remove(self, keys: Sequence[str]) -> None:
        for start in range(0, len(keys), _KEYS):
            some = keys[start : start + _KEYS]
            gone = [{"request_delete_range": {"key": key.encode()}} for key in some]
            await self._write("kv/txn", {"success": gone})

    async def _write(self, path: str, asked: dict[str, Any]) -> None:
        done = await self._ask(path, asked, Done)
        self.saw(done.header.revision)

    async def _ask(self, path: str, asked: dict[str, Any], into: type[T], member: str = "") -> T:
        reply = await self._answer(path, _json(asked), member)
        return decoded(reply.member, reply.body, into)

    async def _answer(self, path: str, content: bytes, member: str = "") -> Reply:
        for again in (True, False):
            headers = await self._login.headers()
            reply = await self._http.send(
                "POST", f"/v3/{path}", content=content, headers=headers, member=member
            )
            if reply.status == 200:
                return reply
            problem = self._noted(await refusal(self._http, reply))
            if problem.reason == OUT_OF_RANGE:
                raise HistoryLost(str(problem)) from problem
            if not (again and problem.about_login and self._login.wanted):
                break
        raise problem

    def _refused(self, member: str, error: StreamError) -> Refused:
        return self._noted(Refused(member, error.message, error.grpc_code or error.code))

    def _noted(self, problem: Refused) -> Refused:
        if problem.about_login:
            self._login.forget()  # the token has expired, or the server was started anew
        return problem


def _after(prefix: str) -> bytes:
    """Return the first key behind all that begin with a prefix that ends in a slash."""
    return prefix.encode()[:-1] + b"0"
