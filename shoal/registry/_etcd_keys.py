"""Module _etcd_keys speaks etcd's v2 keys API (up to etcd 3.5, started with --enable-v2)."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from urllib.parse import quote, urlencode

import msgspec

from shoal.errors import BadRequest, Unavailable
from shoal.registry._etcd_http import Reply
from shoal.registry._etcd_login import Refused, version_of
from shoal.registry._etcd_store import (
    Deliver,
    Event,
    HistoryLost,
    Position,
    Snapshot,
    Store,
)

_MISSING, _NOT_A_FILE, _NOT_EMPTY, _CLEARED = 100, 102, 108, 401  # codes of etcd's errors
_AT_ONCE = 16
MAX_DEPTH = 8  # of folders; nodes are in the third


class _Node(msgspec.Struct, rename="camel"):
    key: str = ""
    value: str = ""
    dir: bool = False
    modified_index: int = 0
    nodes: list[_Node] = []


class _Answer(msgspec.Struct, rename="camel"):
    action: str = ""
    node: _Node | None = None
    error_code: int = 0
    message: str = ""
    cause: str = ""


_decode = msgspec.json.Decoder(_Answer).decode


class Keys(Store):
    """A store of folders and times to live (etcd v2). Leases are always 0."""

    async def _read(self, prefix: str, sure: bool) -> Snapshot:
        asked = {"recursive": "true", "sorted": "true", "quorum": "true" if sure else "false"}
        answer, index = await self._ask("GET", prefix, asked, (_MISSING,))
        found = _files(answer.node) if answer.node is not None else ()
        return Snapshot(Position(index), {one.key: one.value.encode() for one in found})

    async def follow(self, member: str, prefix: str, position: Position, deliver: Deliver) -> None:
        index = position.revision
        while True:
            event = await self._next(member, prefix, index, deliver)
            index = event.revision
            await deliver([event])
            self.saw(index)

    async def _next(self, member: str, prefix: str, index: int, deliver: Deliver) -> Event:
        """Return the next event after an index, however long that takes."""
        asked = {"wait": "true", "recursive": "true", "waitIndex": str(index + 1)}
        async with self._http.open(
            member, "GET", self._path(prefix, asked), headers=self._headers()
        ) as response:
            now = int(response.headers.get("x-etcd-index", "0"))
            if response.status_code == 200 and now < index:
                raise HistoryLost(f"etcd at {member} is behind what it was, or began anew")
            if response.status_code == 200:
                await deliver(())
            async for line in self._http.lines(response):
                reply = Reply(member, response.status_code, response.headers, line)
                answer = await self._answer(reply, ())
                node = answer.node
                if node is None:
                    break
                if node.dir:  # what was in it is told by no event of its own
                    raise HistoryLost(f"etcd at {member} has had a folder removed")
                gone = answer.action in ("delete", "expire", "compareAndDelete")
                return Event(node.key, None if gone else node.value.encode(), node.modified_index)
        raise Unavailable(f"etcd at {member} has ended the watch")

    async def _ask_alive(self, member: str) -> None:
        asked = {"quorum": "true"}
        await self._ask("GET", self._settings.prefix, asked, (_MISSING,), member=member)

    async def place(self, key: str, value: bytes, seconds: int, lease: int) -> int:
        form = {"value": value.decode()} | ({"ttl": str(seconds)} if seconds else {})
        _, index = await self._ask("PUT", key, {}, (), form=form)
        self.saw(index)
        return 0

    async def present(self, key: str, value: bytes, seconds: int, lease: int) -> bool:
        answer, _ = await self._ask("GET", key, {"quorum": "true"}, (_MISSING,))
        if answer.node is None or answer.node.value.encode() != value:
            return False
        return not await self.renew([(key, seconds, 0)])

    async def renew(self, held: Iterable[tuple[str, int, int]]) -> set[tuple[str, int]]:
        lost: set[tuple[str, int]] = set()

        async def one(key: str, seconds: int) -> None:
            form = {"ttl": str(seconds), "refresh": "true", "prevExist": "true"}
            answer, _ = await self._ask("PUT", key, {}, (_MISSING,), form=form)
            if answer.node is None:
                lost.add((key, 0))

        await _together(partial(one, key, seconds) for key, seconds, _ in held if seconds)
        return lost

    async def remove(self, keys: Sequence[str]) -> None:
        async def one(key: str) -> None:
            await self._ask("DELETE", key, {}, (_MISSING, _NOT_A_FILE))
            folder = key.rpartition("/")[0]
            _, index = await self._ask("DELETE", folder, {"dir": "true"}, (_MISSING, _NOT_EMPTY))
            self.saw(index)

        await _together(partial(one, key) for key in keys)

    async def _ask(
        self,
        method: str,
        key: str,
        parameters: Mapping[str, str],
        fine: tuple[int, ...],
        *,
        form: Mapping[str, str] | None = None,
        member: str = "",
    ) -> tuple[_Answer, int]:
        """Return the answer and the index it is of; errors that are fine are answers too."""
        headers = self._headers()
        if form is not None:
            headers["content-type"] = "application/x-www-form-urlencoded"
        reply = await self._http.send(
            method,
            self._path(key, parameters),
            content=urlencode(form or {}).encode(),
            headers=headers,
            member=member,
        )
        answer = await self._answer(reply, fine)
        index = reply.headers.get("x-etcd-index", "")
        return answer, int(index) if index.isdecimal() else 0

    async def _answer(self, reply: Reply, fine: tuple[int, ...]) -> _Answer:
        try:
            answer = _decode(reply.body)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            answer = _Answer(error_code=-1)
        if (reply.status in (200, 201) and not answer.error_code) or answer.error_code in fine:
            return answer
        if answer.error_code == _CLEARED:
            raise HistoryLost(f"etcd at {reply.member} has forgotten its history")
        if reply.status == 413:
            raise BadRequest("the record is too large for etcd")
        if answer.message and answer.error_code >= 0:
            cause = f" ({answer.cause})" if answer.cause else ""
            raise Refused(reply.member, f"{answer.message}{cause}", answer.error_code)
        raise await self._explained(reply)

    async def _explained(self, reply: Reply) -> Unavailable:
        if reply.status in (401, 403):
            who = f"the user {self._settings.user!r}" if self._settings.user else "nobody"
            return Unavailable(f"etcd at {reply.member} does not let {who} do this")
        version = await version_of(self._http, reply.member)
        if not version:
            return Unavailable(f"etcd at {reply.member}: this is no etcd")
        return Unavailable(
            f"etcd {version} at {reply.member} answers nothing below /v2: up to 3.5 it does when"
            " started with --enable-v2, later ones have no v2 API: use the registry etcd"
        )

    def _headers(self) -> dict[str, str]:
        if not self._settings.user:
            return {}
        login = f"{self._settings.user}:{self._settings.secret()}".encode()
        return {"authorization": f"Basic {base64.b64encode(login).decode()}"}

    def _path(self, key: str, parameters: Mapping[str, str]) -> str:
        query = f"?{urlencode(parameters)}" if parameters else ""
        return f"/v2/keys{quote(key.rstrip('/'))}{query}"


async def _together(work: Iterable[Callable[[], Awaitable[None]]]) -> None:
    """Do things side by side, but not too many; raises what the first one that fails raises."""
    turns = asyncio.Semaphore(_AT_ONCE)

    async def taken(one: Callable[[], Awaitable[None]]) -> None:
        async with turns:
            await one()

    try:
        async with asyncio.TaskGroup() as group:
            for one in work:
                group.create_task(taken(one))
    except ExceptionGroup as problems:
        raise problems.exceptions[0] from None


def _files(node: _Node, depth: int = MAX_DEPTH) -> Iterator[_Node]:
    """Yield the nodes that are no folders."""
    if not node.dir:
        yield node
    elif depth:
        for each in node.nodes:
            yield from _files(each, depth - 1)
