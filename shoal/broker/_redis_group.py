"""Module _redis_group is one consumer of one group of a stream, in Redis's commands."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import msgspec

from shoal.broker._envelope import received
from shoal.broker._redis_keeper import Keeper
from shoal.broker._redis_link import ID, Refused, TooLong
from shoal.errors import BadRequest
from shoal.message import Message

HEADER, BODY = b"header", b"body"  # the two fields of an entry
EPHEMERAL = "broadcast:"  # what the groups of subscriptions without a queue begin with
_LONG_AGO = 30 * 24 * 3600 * 1000  # ms; an entry idle for that long is anybody's
_START = (0, 0)
_NEWEST = "18446744073709551615-0"  # no id is after it but the last of all, which is Redis's `>`

# Removes consumers that have nothing pending and have not asked for anything in ARGV[3] ms, of
# the group ARGV[1]: the one called ARGV[2], or if that is empty all. In one piece, since what a
# consumer gets between the question and its removal would be lost.
_FORGET = """
for _, one in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  local is = {}
  for i = 1, #one, 2 do is[one[i]] = one[i + 1] end
  if is.pending == 0 and is.idle >= tonumber(ARGV[3]) and (ARGV[2] == '' or is.name == ARGV[2]) then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], is.name)
  end
end
"""

# Removes the groups beginning with ARGV[1] whose consumers have not asked for anything in ARGV[2]
# ms: their process died.
_FORGET_GROUPS = """
for _, group in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local name = group[2]
  if string.sub(name, 1, #ARGV[1]) == ARGV[1] then
    local alive = false
    for _, one in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], name)) do
      for i = 1, #one, 2 do
        if one[i] == 'idle' and one[i + 1] < tonumber(ARGV[2]) then alive = true end
      end
    end
    if not alive then redis.call('XGROUP', 'DESTROY', KEYS[1], name) end
  end
end
"""

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(dict[str, str]).decode


@dataclass(frozen=True, slots=True)
class Entry:
    """An event in a stream, and how often it was given to a consumer."""

    id: bytes
    fields: dict[bytes, bytes]
    count: int

    def message(self) -> Message:
        """Return the event; raises BadRequest saying why it is none."""
        for name, value in self.fields.items():
            if isinstance(value, TooLong):
                size = value.decode()
                raise BadRequest(f"its {name.decode()} is over the limit: {size} bytes", id=ID)
        try:
            header = _decode(self.fields[HEADER])
            return Message(received(header), self.fields[BODY])
        except (KeyError, msgspec.DecodeError, UnicodeError) as error:
            raise BadRequest(
                f"it is no event, which has a header and a body: {error}", id=ID
            ) from None


def header(names: dict[str, str]) -> bytes:
    """Return the header of an event as an entry holds it."""
    try:
        return _encode(names)
    except UnicodeEncodeError as error:
        raise BadRequest(f"a header holds no valid text: {error}", id=ID) from None


class Group:
    """What a consumer says to Redis. All raise Refused or Unavailable."""

    def __init__(self, keeper: Keeper, key: bytes, name: str, consumer: str) -> None:
        self.name = name
        self.consumer = consumer
        self._keeper = keeper
        self._key = key
        self._seen = _START
        """The newest entry that was given to a consumer, as far as this one knows."""
        self._cursor = b"0-0"

    def __repr__(self) -> str:
        return f"Group({self._key!r}, {self.name!r}, {self.consumer!r})"

    async def create(self) -> None:
        """Make it, for events from now on; one that is there stays as it is."""
        await self._create("$")
        for one in await self._keeper.call("XINFO", "GROUPS", self._key):
            group = _pairs(one)
            if group[b"name"] == self.name.encode():
                self._seen = _order(group[b"last-delivered-id"])

    async def repair(self) -> None:
        """Make it again after it or the whole stream was lost, for what was not given out yet."""
        start = self._seen
        try:
            stream = _pairs(await self._keeper.call("XINFO", "STREAM", self._key))
            if _order(stream[b"last-generated-id"]) < start:
                start = _START  # another stream, by a clock that went back
        except Refused:
            start = _START  # there is none
        await self._create(f"{start[0]}-{start[1]}")

    async def read(self, reader: Keeper, count: int, block: float) -> list[Entry]:
        """Return up to so many new entries, waiting up to so many seconds for the first."""
        words = ("XREADGROUP", "GROUP", self.name, self.consumer, "COUNT", count)
        answer = await reader.call(
            *words, "BLOCK", _ms(block), "STREAMS", self._key, ">", wait=block
        )
        entries = [Entry(id, _pairs(fields), 1) for id, fields in answer[0][1]] if answer else []
        if entries:
            self._seen = max(self._seen, _order(entries[-1].id))
        return entries

    async def ack(self, ids: Iterable[bytes]) -> None:
        """Tell that entries are done with."""
        await self._keeper.call("XACK", self._key, self.name, *ids)

    async def keep(self, ids: Iterable[bytes], *, count: int | None = None) -> None:
        """Make entries this consumer's and not idle; with `count` as given out so often."""
        await self._claim(ids, *(() if count is None else ("RETRYCOUNT", count)))

    async def give_back(self, id: bytes, count: int) -> None:
        """Make an entry the next one's who looks for idle ones."""
        await self._claim([id], "IDLE", _LONG_AGO, "RETRYCOUNT", count)

    async def mine(self, limit: int) -> dict[bytes, int]:
        """Return what is pending for this consumer: how often each was given out."""
        words = ("XPENDING", self._key, self.name, "-", "+", limit, self.consumer)
        return {id: count for id, _, _, count in await self._keeper.call(*words)}

    async def take(self, ids: Sequence[bytes]) -> tuple[list[Entry], int]:
        """Return entries that are pending for this consumer, and how many were trimmed."""
        counts = [("XPENDING", self._key, self.name, id, id, 1) for id in ids]
        ranges = [("XRANGE", self._key, id, id) for id in ids]
        calls = (self._keeper.call(*words) for words in (*counts, *ranges))
        answers: list[Any] = await asyncio.gather(*calls, return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        told = zip(ids, answers[: len(ids)], answers[len(ids) :], strict=True)
        entries = [
            Entry(id, _pairs(one[0][1]), pending[0][3] if pending else 1)
            for id, pending, one in told
            if one
        ]
        lost = set(ids) - {one.id for one in entries}
        if lost:
            await self.ack(lost)
        return entries, len(lost)

    async def take_idle(self, idle: float, limit: int) -> tuple[list[Entry], int]:
        """Return entries that nobody has touched for so many seconds, and how many were trimmed.

        That does not count as given to a consumer: it may have died before it came to them.
        """
        words = ("XAUTOCLAIM", self._key, self.name, self.consumer, _ms(idle), self._cursor)
        answer = await self._keeper.call(*words, "COUNT", limit, "JUSTID")
        self._cursor = answer[0]
        entries, trimmed = await self.take(answer[1])
        return entries, trimmed + (len(answer[2]) if len(answer) > 2 else 0)  # since Redis 7

    async def live(self) -> None:
        """Show that this consumer lives: before Redis 7.2 waiting for events does not."""
        words = ("XREADGROUP", "GROUP", self.name, self.consumer, "COUNT", 1)
        await self._keeper.call(*words, "STREAMS", self._key, _NEWEST)

    async def leave(self) -> None:
        """Remove this consumer, and the group if it is only for this one."""
        if self.name.startswith(EPHEMERAL):
            await self._keeper.call("XGROUP", "DESTROY", self._key, self.name)
        else:
            await self._script(_FORGET, self.name, self.consumer, 0)

    async def tidy(self, idle: float) -> None:
        """Remove consumers and groups of processes that died so many seconds ago."""
        await self._script(_FORGET, self.name, "", _ms(idle))
        await self._script(_FORGET_GROUPS, EPHEMERAL, _ms(idle))

    async def _create(self, start: str) -> None:
        try:
            words = ("XGROUP", "CREATE", self._key, self.name, start, "MKSTREAM")
            await self._keeper.call(*words)
        except Refused as refused:
            if refused.code != "BUSYGROUP":
                raise
        await self._keeper.call("XGROUP", "CREATECONSUMER", self._key, self.name, self.consumer)

    async def _claim(self, ids: Iterable[bytes], *words: str | int) -> None:
        who = ("XCLAIM", self._key, self.name, self.consumer, 0)
        await self._keeper.call(*who, *ids, *words, "JUSTID")

    async def _script(self, script: str, *arguments: str | int) -> None:
        with suppress(Refused):  # it may not be permitted: nothing needs it
            await self._keeper.call("EVAL", script, 1, self._key, *arguments)


def _pairs(flat: Sequence[Any]) -> dict[bytes, Any]:
    return dict(zip(flat[::2], flat[1::2], strict=False))


def _order(id: bytes) -> tuple[int, int]:
    time, _, number = id.partition(b"-")
    return int(time), int(number or 0)


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))
