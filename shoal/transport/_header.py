"""Module _header turns headers into the lines of HTTP/1.1 and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from shoal.errors import BadRequest
from shoal.message import Header, Message, canonical, clean
from shoal.message import _names as _canonical

# What belongs to one connection and is written by it alone, whatever a message says.
_FRAMING = frozenset(
    """Connection Content-Length Expect Host Keep-Alive Te Trailer Transfer-Encoding Upgrade
    User-Agent""".split()
)

# Those of users do not begin like the special ones.
_PLAIN = frozenset(("Micro-Id", "X-Micro-Id", "Timeout"))
_SPECIAL = ("Micro-", "X-Micro-", "Content-")

# Both tables hold what a function of its key returns. They are emptied when full, so that a peer
# that sends ever new names can neither grow them nor keep them useless; long names are not kept.
_LIMIT = 4096
_LONGEST = 64
_FORMS = 64  # kept for each shared header
_LAST = b"Content-Length: %d\r\n\r\n%b"
_names: dict[bytes, str] = {}
_prefixes: dict[str, str] = {}


def read_name(raw: bytes) -> str:
    """Return the canonical form of a name as it came; raises ValueError if it cannot be one."""
    name = _names.get(raw)
    if name is None:
        name = canonical(raw.decode("latin-1"))
        if len(raw) <= _LONGEST:
            if len(_names) >= _LIMIT:
                _names.clear()
            _names[raw] = name
    return name


def encode(header: Mapping[str, str]) -> bytes:
    """Return the lines of a header, without those that are the connection's own.

    Line breaks and other control characters in values become blanks, so that no value can make
    another line. Raises BadRequest for a name that HTTP cannot carry.
    """
    lines = []
    for name, value in header.items():
        prefix = _prefixes.get(name)
        if prefix is None:
            prefix = _prefix(name)
        if prefix:
            if not value.isprintable():
                value = clean(value)
            lines.append(f"{prefix}{value}\r\n")
    return "".join(lines).encode("utf-8", "replace")


def encode_message(start: bytes, message: Message) -> bytes:
    """Return a message whose first lines are given.

    Of its header, what it shares with others comes first, so that the peer can know it again,
    unless both have a name: a reader takes the first of two. Raises BadRequest as `encode` does.
    """
    header, body, shared = message.header, message.body, message.shared
    if shared is None:
        return b"".join((start, encode(header), _LAST % (len(body), body)))
    names = tuple(header)
    try:
        form = shared.forms[names]
    except (AttributeError, KeyError):
        form = _form(names, shared)
    values = []
    for value in header.values():
        # Most are numbers, and of bytes that is told at once.
        data = value.encode("utf-8", "replace")
        values.append(data if data.isalnum() else clean(value).encode("utf-8", "replace"))
    return form % (start, *values, len(body), body)


def _form(names: tuple[str, ...], shared: Header) -> bytes:
    """Return a message as a format of its start, the values of its own names, length and body."""
    if not hasattr(shared, "forms"):
        shared.forms = {}
    # The connection's own lines are left out: their values become nothing.
    prefixes = (_prefix(name).encode().replace(b"%", b"%%") for name in names)
    own = b"".join(prefix + b"%b\r\n" if prefix else b"%.0b" for prefix in prefixes)
    lines = encode(shared).replace(b"%", b"%%")
    alike = {canonical(name) for name in names}.isdisjoint(map(canonical, shared))
    form = b"%b" + (lines + own if alike else own + lines) + _LAST
    if len(shared.forms) < _FORMS:
        shared.forms[names] = form
    return form


def decide_nothing(names: Iterable[str]) -> bool:
    """Whether a message's own headers leave what it is for to those it shares with others."""
    return all(name in _PLAIN or not name.startswith(_SPECIAL) for name in names)


def carried(header: Mapping[str, str]) -> dict[str, str]:
    """Return a header as a peer gets it over HTTP: canonical names and values of one line.

    Raises BadRequest for a name that HTTP cannot carry.
    """
    result = {}
    try:
        for name, value in header.items():
            field = _canonical.get(name) or canonical(name)
            result[field] = value if value.isalnum() else clean(value)
    except ValueError as error:
        raise _bad(error) from None
    return result


def _prefix(name: str) -> str:
    """Return what a line with this name begins with, empty if there must be no such line."""
    try:
        field = canonical(name)
    except ValueError as error:
        raise _bad(error) from None
    prefix = "" if field in _FRAMING else f"{field}: "
    if len(name) <= _LONGEST:
        if len(_prefixes) >= _LIMIT:
            _prefixes.clear()
        _prefixes[name] = prefix
    return prefix


def _bad(error: ValueError) -> BadRequest:
    return BadRequest(str(error), id="shoal.transport")
