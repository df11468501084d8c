"""Package message is the unit every transport and broker moves: a header and a body."""

from __future__ import annotations

import re
from collections.abc import Mapping

from msgspec import Struct, field

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")  # what a header value cannot hold
# Headers whose values are nobody's to read in a log.
_SECRET = frozenset({"Authorization", "Cookie", "Proxy-Authorization", "Set-Cookie"})
_CACHE_LIMIT = 4096
_CACHED_LENGTH = 64
_names: dict[str, str] = {}


class Header(dict[str, str]):
    """A header many messages share; it must not change once a message carries it.

    A transport may keep in `forms` how it looks encoded beside headers of certain names.
    """

    __slots__ = ("forms",)
    forms: dict[tuple[str, ...], bytes]

    def __repr__(self) -> str:
        return f"Header({shown(self)})"


class Message(Struct):
    """A header and a body. Names are in canonical form (`Micro-Id`), values hold no line breaks.

    `shared` are headers equal in many messages, kept apart so that a transport can encode them
    once; a name in `header` wins. Messages that were received have everything in `header`.
    """

    header: dict[str, str] = field(default_factory=dict[str, str])
    body: bytes = b""
    shared: Header | None = None

    def __repr__(self) -> str:
        shared = f", shared={shown(self.shared)}" if self.shared else ""
        return f"Message({shown(self.header)}, {len(self.body)} bytes{shared})"

    def headers(self) -> dict[str, str]:
        """Return the whole header as a new dict."""
        return {**self.shared, **self.header} if self.shared else dict(self.header)


def shown(header: Mapping[str, str]) -> dict[str, str]:
    """Return headers as people may see them, without the values that let somebody in."""
    return {name: "hidden" if name.title() in _SECRET else value for name, value in header.items()}


def canonical(name: str) -> str:
    """Return a header name in the form Go gives it over HTTP: `micro-ID` becomes `Micro-Id`.

    Raises ValueError for a name that HTTP cannot carry.
    """
    known = _names.get(name)
    if known is not None:
        return known
    if not _TOKEN.fullmatch(name):
        raise ValueError(f"{name!r} cannot be a header name: use letters, digits and dashes")
    result = "-".join(part[:1].upper() + part[1:].lower() for part in name.split("-"))
    if len(name) <= _CACHED_LENGTH:
        if len(_names) >= _CACHE_LIMIT:  # a hostile peer must neither grow it nor make it useless
            _names.clear()
        _names[name] = result
    return result


def clean(value: str) -> str:
    """Return a header value as HTTP carries it: line breaks become blanks, ends are trimmed.

    So do all other control characters but the tab.
    """
    if not value.isprintable():
        value = _CONTROL.sub(" ", value)
    return value.strip(" \t")
