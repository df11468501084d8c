"""Package wire is Go Micro's RPC protocol ("mucp") as functions on messages: no sockets, no tasks.

Source: Go Micro v6, client/rpc_codec.go, server/rpc_codec.go and the headers they exchange.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import Any

from shoal.codec import Codec
from shoal.errors import BadRequest, Error, Unavailable, from_wire, to_wire
from shoal.message import Header, Message

EOS = "EOS"
REFUSED = "Shoal-Refused"  # on a reply: no handler has seen the request, send it to another node
RETRY_AFTER = "Retry-After"  # on a reply with an error: seconds, with decimals
AGENT = "shoal"  # the User-Agent of Shoal's clients, where a transport has one
JSON = "application/json"
PROTOBUF = "application/protobuf"
CLIENT = "shoal.client"
SERVER = "shoal.server"

# What a node that announces no protocol is sent instead.
_LEGACY_NODE = {JSON: "application/json-rpc", PROTOBUF: "application/proto-rpc"}

# What a request without mucp headers means by its content type.
LEGACY = {
    **_LEGACY_NODE,
    "application/octet-stream": "application/proto-rpc",
}


class Codecs:
    """The codecs of one client or server, by content type."""

    def __init__(self, codecs: Iterable[Codec]) -> None:
        self._by_type = {codec.content_type: codec for codec in codecs}
        self._names: dict[type, str] = {}

    def __getitem__(self, content_type: str) -> Codec:
        """Return the codec; parameters are tolerated. Raises BadRequest naming the known ones."""
        codec = self._by_type.get(content_type)
        if codec is None:
            codec = self._by_type.get(content_type.partition(";")[0].strip().lower())
        if codec is None:
            raise BadRequest(
                f"unsupported Content-Type: {content_type[:100]}"
                f" (known are {', '.join(sorted(self._by_type))})",
                id=SERVER,
            )
        return codec

    def content_type(self, message: object) -> str:
        """Return the content type a message travels in: protobuf for its own, else JSON."""
        kind = type(message)
        name = self._names.get(kind)
        if name is None:
            name = PROTOBUF if is_protobuf(kind) else JSON
            if len(self._names) < 4096:
                self._names[kind] = name
        return name


def is_protobuf(kind: object) -> bool:
    """Whether a type hint is a protobuf message class; protobuf need not be installed."""
    return hasattr(kind, "DESCRIPTOR") and hasattr(kind, "SerializeToString")


# Requests


def request_header(service: str, endpoint: str, content_type: str) -> Header:
    """Return the headers every request to an endpoint has."""
    return Header(
        {
            "Accept": content_type,
            "Content-Type": content_type,
            "Micro-Endpoint": endpoint,
            "Micro-Method": endpoint,
            "Micro-Service": service,
        }
    )


def envelope(codec: Codec) -> Any:
    """Return the functions that put a body into a legacy codec's envelope, None for others."""
    return getattr(codec, "envelope", None)


def timeout_value(seconds: float) -> str:
    """Return the `Timeout` header for seconds: nanoseconds, at least one.

    From a tenth of a second on these are whole milliseconds, so that most calls say the same.
    """
    if seconds < 0.1:
        return str(int(seconds * 1e9)) if seconds >= 1e-9 else "1"
    return _milliseconds(int(seconds * 1000 + 0.5))


@functools.lru_cache(1024)
def _milliseconds(count: int) -> str:
    return f"{count}000000"


def timeout(header: Mapping[str, str]) -> float | None:
    """Return the seconds a request gives its handler; None if it says none or nonsense.

    Go Micro takes 0 for a deadline that is over and still runs the handler; here it is none.
    """
    text = header.get("Timeout")
    return None if text is None or len(text) > 20 else _timeout(text)


@functools.lru_cache(1024)
def _timeout(text: str) -> float | None:
    return int(text) / 1e9 or None if text.isascii() and text.isdigit() else None


def id_of(header: Mapping[str, str]) -> str:
    """Return the id of a message, empty if it has none."""
    return header.get("Micro-Id") or header.get("X-Micro-Id") or ""


def endpoint_of(header: Mapping[str, str]) -> str:
    """Return the endpoint a request names, empty if it names none."""
    return (
        header.get("Micro-Endpoint")
        or header.get("Micro-Method")
        or header.get("X-Micro-Endpoint")
        or header.get("X-Micro-Method")
        or ""
    )


def is_legacy(header: Mapping[str, str]) -> bool:
    """Whether the request's body is the envelope of a peer that knows no mucp headers."""
    if header.get("Micro-Protocol") or header.get("Micro-Topic"):
        return False
    if header.get("Micro-Target") or header.get("X-Micro-Target"):
        return True
    return not (endpoint_of(header) or header.get("Micro-Service") or header.get("X-Micro-Service"))


# Metadata of a node whose server always tells the end of a stream; the value counts generations.
SHOAL = {"shoal": "1"}

# What a client sends on a stream of which it has sent the end and may have missed the server's: a
# content type nobody knows. Go Micro answers it in text/plain if the stream is over, else not.
_NO_TYPE = "application/x-end"
END_QUESTION = {"Content-Type": _NO_TYPE, "Micro-Error": "is this stream over?"}


def is_end_answer(message: Message) -> bool:
    """Whether a message says that the stream of END_QUESTION is over."""
    return (
        message.header.get("Content-Type") == "text/plain"
        and _NO_TYPE.encode() in message.body[:500]
    )


# Replies


def reply_header(content_type: str) -> Header:
    """Return the headers every successful reply of a content type has."""
    return Header({"Content-Type": content_type})


def reply_ids(header: Mapping[str, str]) -> dict[str, str]:
    """Return what a reply repeats of its request, nothing if that has no id."""
    id = header.get("Micro-Id") or header.get("X-Micro-Id")
    return {"Micro-Id": id, "X-Micro-Id": id} if id else {}


def error_reply(
    request: Mapping[str, str], error: Error | str, codec: Codec | None = None
) -> Message:
    """Return the reply that carries an error (or EOS), with the request's headers as Go has it.

    A legacy codec's envelope carries it too: its readers want one in every reply.
    """
    text = error if isinstance(error, str) else to_wire(error)
    header = {
        name: value
        for name, value in request.items()
        if name.startswith("Micro-") or name == "Content-Type"
    }
    id = id_of(request)
    if id:
        header["X-Micro-Id"] = id
    header["Micro-Error"] = header["X-Micro-Error"] = text
    if isinstance(error, Error) and error.retry_after is not None:
        header[RETRY_AFTER] = f"{error.retry_after:.3f}"
    functions = None if codec is None else envelope(codec)
    return Message(header, functions.pack_response("", text, b"") if functions else b"")


def goodbye(error: Error) -> Message:
    """Return the last message of a server on a connection: a reply to nothing.

    Whoever reads it as the reply to a request that was under way knows that nobody has read that.
    """
    text = to_wire(error)
    header = {"Micro-Error": text, "X-Micro-Error": text, REFUSED: "1", "Connection": "close"}
    return Message(header, b"")


def error_in(header: Mapping[str, str]) -> str:
    """Return the error text of a reply, empty if there is none."""
    return header.get("Micro-Error") or header.get("X-Micro-Error") or ""


def reply_body(message: Message, content_type: str, codec: Codec) -> bytes:
    """Return the body of a reply to be decoded.

    Raises the error it carries, and BadRequest if the server did not know the content type.
    """
    header = message.header
    if text := error_in(header):
        error = from_wire(text)
        error.unsent = REFUSED in header
        if RETRY_AFTER in header:
            error.retry_after = _seconds(header[RETRY_AFTER])
        raise error
    got = header.get("Content-Type", content_type)
    if got != content_type and got == "text/plain":
        # Go Micro answers an unknown content type so, without an error header.
        raise BadRequest(message.body[:500].decode("utf-8", "replace"), id=CLIENT)
    functions = envelope(codec)
    if functions is None:
        return message.body
    answer = functions.unpack_response(message.body)
    if answer.error:
        raise from_wire(answer.error)
    body: bytes = answer.body
    return body


def _seconds(text: str) -> float | None:
    try:
        seconds = float(text[:16])
    except ValueError:  # HTTP also allows a date
        return None
    return seconds if 0 <= seconds < 86_400 else None


def node_content_type(content_type: str, metadata: Mapping[str, str]) -> str:
    """Return the content type to use with a node, by the protocol it announces.

    Raises Unavailable for a node that speaks another protocol.
    """
    protocol = metadata.get("protocol")
    if protocol == "mucp":
        return content_type
    if not protocol:
        return _LEGACY_NODE.get(content_type, content_type)
    raise Unavailable(f"the node speaks {protocol}, this client only mucp", id=CLIENT)
