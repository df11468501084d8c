"""Module _mdns_watch tells one watcher what is announced."""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal

from shoal.registry import Change
from shoal.registry import _mdns_zone as zone
from shoal.registry._feed import Feed
from shoal.registry._records import copied

_REMEMBERED = 4096


class Watch:
    """Tells announcements as changes, but not each repetition: every one comes several times."""

    def __init__(self, name: str | None, unread: int) -> None:
        """Hear of one service, or all; `unread` bytes may wait to be read."""
        self.feed = Feed(unread)
        self._name = name
        self._known: OrderedDict[tuple[str, str], tuple[int, bool]] = OrderedDict()

    def __repr__(self) -> str:
        return f"Watch({self._name!r}, {self.feed!r})"

    def put(self, entry: zone.Entry) -> None:
        """Take what was announced."""
        if self._name not in (None, entry.record.name):
            return
        key = (entry.record.name, entry.record.nodes[0].id)
        before, now = self._known.pop(key, None), (entry.mark, entry.gone)
        self._known[key] = now
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        if before == now:
            return
        action: Literal["create", "update", "delete"] = "create"
        if entry.gone:
            action = "delete"
        elif before is not None and not before[1]:
            action = "update"
        self.feed.put(Change(action, copied(entry.record)), entry.weight)
