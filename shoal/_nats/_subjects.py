"""Module _subjects knows which names NATS can carry."""

from __future__ import annotations

import re

from shoal.errors import BadRequest

LONGEST = 1024  # bytes; a server reads lines of up to 4096, with a queue and a reply in them

_BAD = re.compile(r"[\s\x00-\x20\x7f*>]|^\.|\.$|\.\.")


def check_subject(name: str, what: str, id: str) -> None:
    """Raise BadRequest for a name that is no subject without wildcards, or that is NATS's own."""
    try:
        length = len(name.encode())
    except UnicodeEncodeError:
        raise BadRequest(f"{name!r} is no valid text", id=id) from None
    if not name or _BAD.search(name):
        raise BadRequest(
            f"{name[:80]!r} is no {what} for NATS: words joined by dots, without blanks, * and >",
            id=id,
        )
    if length > LONGEST:
        raise BadRequest(f"a {what} of {length} bytes is too long for NATS: {LONGEST}", id=id)
    if name.startswith("$"):
        raise BadRequest(f"{name[:80]!r} is no {what}: NATS keeps names with $ for itself", id=id)
