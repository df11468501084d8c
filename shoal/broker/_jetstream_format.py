"""Module _jetstream_format is the two forms in which Go Micro keeps events in JetStream."""

from __future__ import annotations

import datetime
import uuid

import msgspec

from shoal.broker import _envelope
from shoal.errors import BadRequest
from shoal.message import Message

ID = "shoal.broker"


class _Event(msgspec.Struct):
    # Names and order are Go Micro's (events.Event through encoding/json, v3 to v6).
    id: str = msgspec.field(name="ID", default="")
    topic: str = msgspec.field(name="Topic", default="")
    timestamp: str = msgspec.field(name="Timestamp", default="")
    metadata: dict[str, str | None] | None = msgspec.field(name="Metadata", default=None)
    payload: bytes | None = msgspec.field(name="Payload", default=None)


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Event).decode


def encode(topic: str, message: Message, *, events: bool) -> bytes:
    """Return the JSON of an event; raises BadRequest for a header that cannot be carried."""
    # Go Micro's subscribers look for the topic in the header.
    header = {"Micro-Topic": topic, **_envelope.sendable(message.headers())}
    if not events:
        return _envelope.encode(header, message.body)
    now = datetime.datetime.now(datetime.UTC).isoformat().replace("+00:00", "Z")
    id = header.get("Micro-Id") or str(uuid.uuid4())
    event = _Event(id, topic, now, dict[str, str | None](header), message.body)
    try:
        return _encode(event)
    except UnicodeEncodeError as error:
        raise BadRequest(f"a header holds no valid text: {error}", id=ID) from None


def decode(data: bytes, *, events: bool) -> Message:
    """Return the event some JSON stands for; raises BadRequest.

    Events of Go Micro's streams have a payload in JSON, and need not say so.
    """
    if not events:
        message = _envelope.decode(data)
        message.header = _envelope.received(message.header)
        return message
    try:
        event = _decode(data)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise BadRequest(f"it is no event: {error}", id=ID) from None
    header = {name: value or "" for name, value in (event.metadata or {}).items()}
    known = {
        "Content-Type": "application/json",
        "Micro-Topic": event.topic,
        "Micro-Id": event.id,
        "Event-Timestamp": event.timestamp,
    }
    known.update(_envelope.received(header))
    return Message(known, event.payload or b"")
