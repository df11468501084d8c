"""Module _format is messages as RabbitMQ carries them: names, header tables and properties."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from aiormq import spec
from aiormq.abc import DeliveredMessage

from shoal.errors import BadRequest
from shoal.message import canonical, clean

Delivery = DeliveredMessage
Properties = spec.Basic.Properties

_QUEUE = re.compile(r"[a-zA-Z0-9\-_.:@#,/+ ]+")  # what pamqp takes for the name of a queue

LONGEST = 255  # bytes of a name: AMQP writes its length in one

# RabbitMQ's own headers, about the way a message took; they are no business of a handler.
_OWN = ("x-death", "x-first-death-", "x-last-death-", "x-delivery-count", "x-shoal-")


def check_name(name: str, what: str, id: str, *, pattern: bool = False) -> None:
    """Raise BadRequest for what cannot be the name of a topic, queue or address.

    With `pattern` it will be bound to an exchange that takes some names for patterns.
    """
    try:
        length = len(name.encode())
    except UnicodeEncodeError:
        raise BadRequest(f"{name!r} is no valid text", id=id) from None
    if not name.strip() or "\0" in name:
        raise BadRequest(f"{name!r} is no {what} for RabbitMQ", id=id)
    if length > LONGEST:
        raise BadRequest(f"a {what} of {length} bytes is too long for RabbitMQ: {LONGEST}", id=id)
    if what != "topic" and name.startswith("amq."):
        raise BadRequest(f"{name!r} is no {what}: RabbitMQ keeps names with amq. for itself", id=id)
    if what != "topic" and not _QUEUE.fullmatch(name):
        raise BadRequest(
            f"{name!r} is no {what} for RabbitMQ: write letters, digits and -_.:@#,/+", id=id
        )
    if pattern and {"*", "#"} & set(name.split(".")):
        raise BadRequest(f"{name!r} is no {what}: * and # between dots are patterns", id=id)


def table(header: Mapping[str, str], id: str) -> dict[str, str]:
    """Return a header as a table AMQP can carry; raises BadRequest."""
    for name, value in header.items():
        if len(name) > LONGEST:
            raise BadRequest(f"the header {name[:40]!r}... is too long for RabbitMQ", id=id)
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise BadRequest(f"the header {name!r} holds no valid text: {error}", id=id) from None
    return dict(header)


def read(headers: Mapping[str, Any] | None) -> dict[str, str]:
    """Return a table as a header of text, as Go's `%v` prints it, with canonical names.

    What has no place in a header is left out: tables, lists, names HTTP cannot carry.
    """
    result = {}
    for name, value in (headers or {}).items():
        if name.startswith(_OWN):
            continue
        text = _text(value)
        if text is not None:
            try:
                result[canonical(name)] = clean(text)
            except ValueError:
                continue
    return result


def _text(value: Any) -> str | None:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, bytes | bytearray):
        return value.decode("utf-8", "replace")
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    if isinstance(value, int):
        return str(value)
    return None
