"""Module static is a registry whose nodes are written down by hand."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from shoal.errors import BadRequest, Unavailable
from shoal.registry import Change, Node, Record, Registry
from shoal.registry._feed import Feed
from shoal.registry._records import checked, copied, from_go, merge, parse, split_address

logger = logging.getLogger(__name__)

MAX_FILE = 4 << 20
_METADATA = {"protocol": "mucp", "transport": "http"}

_Nodes = dict[tuple[str, str, str], Record]  # by name, version and id, each with one node


class StaticRegistry(Registry):
    """Knows the nodes of a list: `greeter=127.0.0.1:9000,127.0.0.1:9001; mail=[::1]:9100`.

    A file may have one pair a line, or be a JSON list of records as Go Micro writes them; nodes
    without metadata are taken for ones that speak Go Micro's protocol over HTTP. What
    changes in it is seen by the next `get`, and by watches within `interval` seconds. A file that
    cannot be read any more leaves the nodes as they were, with a warning.

    Registering is accepted and told to nobody: services start as with any other registry, but
    others find them only if their address is in the list.
    """

    tells_others = False  # of what is registered

    def __init__(self, address: str = "", *, interval: float = 1.0) -> None:
        """Take pairs, or the path of a file: what holds no `=`, or begins with `/`, `.` or `~`.

        Raises BadRequest for pairs that cannot be read.
        """
        is_path = address.startswith(("/", ".", "~")) or (bool(address) and "=" not in address)
        self._path = Path(address).expanduser() if is_path else None
        self._interval = interval
        self._nodes: _Nodes = {} if is_path else _index(_pairs(address))
        self._seen: object = None  # of the file: changes when it does
        self._watches: set[Feed] = set()

    def __repr__(self) -> str:
        source = f"{str(self._path)!r}, " if self._path else ""
        return f"StaticRegistry({source}nodes={len(self._nodes)}, watches={len(self._watches)})"

    async def register(self, record: Record, *, ttl: float | None = None) -> None:
        """Tell nobody: the list is as it was written. Raises BadRequest as every registry does."""
        checked(record)
        addresses = ", ".join(node.address for node in record.nodes)
        logger.debug("static: %s is found at %s only if a list says so", record.name, addresses)

    async def deregister(self, record: Record) -> None:
        """Do nothing: the list is as it was written."""

    async def get(self, name: str) -> list[Record]:
        return merge(copied(one) for one in self._read().values() if one.name == name)

    async def services(self) -> list[str]:
        return sorted({record.name for record in self._read().values()})

    async def watch(self, name: str | None = None) -> AsyncIterator[Change]:
        known = self._read()
        feed = Feed(limit=1 << 30)  # filled by this side alone, with what the file has
        self._watches.add(feed)
        try:
            while True:
                try:
                    async with asyncio.timeout(self._interval if self._path else None):
                        change = await feed.next()
                except TimeoutError:
                    before, known = known, self._read()
                    for change in _differences(before, known):
                        if name in (None, change.record.name):
                            feed.put(change)
                    continue
                if change is None:
                    return
                yield change
        finally:
            self._watches.discard(feed)

    async def close(self) -> None:
        for feed in self._watches:
            feed.end()
        self._watches.clear()

    def _read(self) -> _Nodes:
        if self._path is None:
            return self._nodes
        try:
            status = self._path.stat()
            seen = (status.st_mtime_ns, status.st_size, status.st_ino)
            if seen != self._seen:
                self._nodes = _index(_parse(self._path))
                self._seen = seen
        except (OSError, BadRequest) as error:
            problem = f"static: cannot read the nodes in {self._path}: {error}"
            if self._seen is None:
                raise Unavailable(problem) from error
            if self._seen != str(error):  # once for each problem
                logger.warning("%s; the nodes stay as they were", problem)
            self._seen = str(error)
        return self._nodes


def _parse(path: Path) -> list[Record]:
    with path.open("rb") as file:
        data = file.read(MAX_FILE + 1)
    if len(data) > MAX_FILE:
        raise BadRequest(f"it is larger than {MAX_FILE} bytes")
    try:
        content = data.decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise BadRequest(f"it is no UTF-8: {error}") from None
    if not content.startswith(("[", "{")):
        lines = (line.partition("#")[0] for line in content.splitlines())
        return _pairs("\n".join(lines))
    records = parse(content)
    if not isinstance(records, list):
        raise BadRequest("it must hold a JSON list of records")
    return [from_go(record) for record in records]


def _pairs(content: str) -> list[Record]:
    return [_pair(pair) for pair in re.split(r"[;\s]+", content) if pair]


def _pair(pair: str) -> Record:
    name, equals, addresses = pair.partition("=")
    if not name or not equals:
        raise BadRequest(f"{pair!r} must be name=host:port, with more addresses after commas")
    nodes = []
    for address in addresses.split(","):
        split_address(address)
        nodes.append(Node(f"{name}-{address}", address))
    return Record(name, nodes=tuple(nodes))


def _index(records: Iterable[Record]) -> _Nodes:
    return {
        (record.name, record.version, node.id): replace(
            record, nodes=(replace(node, metadata=node.metadata or _METADATA),)
        )
        for record in records
        for node in record.nodes
    }


def _differences(before: _Nodes, after: _Nodes) -> Iterator[Change]:
    for key, record in before.items():
        if key not in after:
            yield Change("delete", copied(record))
    for key, record in after.items():
        if key not in before:
            yield Change("create", copied(record))
        elif before[key] != record:
            yield Change("update", copied(record))
