"""Module _dns reads and writes the DNS messages mDNS is made of (RFC 1035, RFC 6762)."""

from __future__ import annotations

import struct
from dataclasses import dataclass

A, PTR, TXT, AAAA, SRV, ANY = 1, 12, 16, 28, 33, 255
IN = 1
TOP_BIT = 0x8000  # in a class: "answer by unicast" of a question, "flush" of a record
RESPONSE, AUTHORITATIVE = 0x8000, 0x0400

MAX_MESSAGE = 0xFFFF
MAX_QUESTIONS = 32
MAX_RECORDS = 256  # a Go Micro answer has four; more are a burden, not a message

_HEADER = struct.Struct("!6H")
_QUESTION = struct.Struct("!HH")
_RECORD = struct.Struct("!HHIH")
_SRV = struct.Struct("!HHH")

Name = tuple[bytes, ...]


class DnsError(ValueError):
    """The bytes are no DNS message, or a message has no bytes that could stand for it."""


@dataclass(frozen=True, slots=True)
class Question:
    """What somebody wants to know."""

    name: Name
    type: int
    klass: int = IN


@dataclass(frozen=True, slots=True)
class Service:
    """The data of an SRV record: where an instance can be reached."""

    priority: int
    weight: int
    port: int
    target: Name


@dataclass(frozen=True, slots=True)
class Resource:
    """A record. Data: a name for PTR, strings for TXT, Service for SRV, else the bytes."""

    name: Name
    type: int
    ttl: int
    data: Service | tuple[bytes, ...] | bytes
    klass: int = IN


@dataclass(frozen=True, slots=True)
class Message:
    """A DNS message."""

    id: int = 0
    flags: int = 0
    questions: tuple[Question, ...] = ()
    answers: tuple[Resource, ...] = ()
    authorities: tuple[Resource, ...] = ()
    additionals: tuple[Resource, ...] = ()


def encode(message: Message, *, compress: bool = True) -> bytes:
    """Return a message's bytes; raises DnsError if a part of it is too long."""
    writer = _Writer(compress)
    sections = (message.answers, message.authorities, message.additionals)
    try:
        counts = (len(message.questions), *map(len, sections))
        writer.out += _HEADER.pack(message.id, message.flags, *counts)
        for question in message.questions:
            writer.name(question.name)
            writer.out += _QUESTION.pack(question.type, question.klass)
        for section in sections:
            for resource in section:
                writer.resource(resource)
    except struct.error as error:
        raise DnsError(f"a number does not fit its field: {error}") from None
    if len(writer.out) > MAX_MESSAGE:
        raise DnsError(f"a message of {len(writer.out)} bytes is over the {MAX_MESSAGE} of UDP")
    return bytes(writer.out)


def decode(data: bytes) -> Message:
    """Return the message; raises DnsError, and nothing else, for bytes that are none."""
    if len(data) > MAX_MESSAGE:
        raise DnsError("longer than a datagram")
    reader = _Reader(data)
    try:
        number, flags, *counts = _HEADER.unpack_from(data)
        reader.at = _HEADER.size
        if counts[0] > MAX_QUESTIONS or sum(counts[1:]) > MAX_RECORDS:
            raise DnsError("more questions or records than anybody needs")
        questions = tuple(reader.question() for _ in range(counts[0]))
        answers, authorities, additionals = (
            tuple(reader.resource() for _ in range(count)) for count in counts[1:]
        )
    except (struct.error, IndexError):
        raise DnsError("the message ends too early") from None
    return Message(number, flags, questions, answers, authorities, additionals)


class _Writer:
    def __init__(self, compress: bool) -> None:
        self.out = bytearray()
        self._compress = compress
        self._known: dict[Name, int] = {}

    def name(self, name: Name, *, pointer: bool = True) -> None:
        if sum(map(len, name)) + len(name) + 1 > 255:
            raise DnsError(f"the name {text(name)!r} is longer than 255 bytes")
        for index, label in enumerate(name):
            rest = name[index:]
            if pointer and self._compress and rest in self._known:
                self.out += (0xC000 | self._known[rest]).to_bytes(2, "big")
                return
            if not 0 < len(label) < 64:
                raise DnsError(f"{text(name)!r} has a part that is empty or longer than 63 bytes")
            if len(self.out) < 0x4000:
                self._known.setdefault(rest, len(self.out))
            self.out.append(len(label))
            self.out += label
        self.out.append(0)

    def resource(self, resource: Resource) -> None:
        self.name(resource.name)
        start = len(self.out) + _RECORD.size
        self.out += _RECORD.pack(resource.type, resource.klass, resource.ttl, 0)
        data = resource.data
        if isinstance(data, Service):
            self.out += _SRV.pack(data.priority, data.weight, data.port)
            self.name(data.target, pointer=False)  # RFC 2782: the target is never compressed
        elif isinstance(data, bytes):
            self.out += data
        elif resource.type == PTR:
            self.name(data)
        else:
            for part in data:
                if len(part) > 255:
                    raise DnsError(f"a string of {len(part)} bytes is over the 255 TXT can hold")
                self.out.append(len(part))
                self.out += part
        struct.pack_into("!H", self.out, start - 2, len(self.out) - start)


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self.at = 0

    def question(self) -> Question:
        name = self.name()
        kind, klass = self._unpack(_QUESTION)
        return Question(name, kind, klass)

    def resource(self) -> Resource:
        name = self.name()
        kind, klass, ttl, length = self._unpack(_RECORD)
        end = self.at + length
        if end > len(self._data):
            raise DnsError("a record ends after its message")
        data: Service | tuple[bytes, ...] | bytes
        if kind == PTR:
            data = self.name()
        elif kind == SRV:
            priority, weight, port = self._unpack(_SRV)
            data = Service(priority, weight, port, self.name())
        elif kind == TXT:
            data = self._strings(end)
        else:
            data = self._data[self.at : end]
            self.at = end
        if self.at != end:
            raise DnsError("a record's data has not the length it says")
        return Resource(name, kind, ttl, data, klass)

    def name(self) -> Name:
        labels: list[bytes] = []
        at, length, after, jumps = self.at, 1, 0, 0
        limit = len(self._data)
        while size := self._data[at]:
            if size >= 0xC0:
                target = (size & 0x3F) << 8 | self._data[at + 1]
                after = after or at + 2
                jumps += 1
                if target >= min(limit, at) or jumps > 127:  # ever further back: no loops
                    raise DnsError("a name points forward, or about too often")
                limit = at = target
                continue
            length += size + 1
            if size > 63 or length > 255 or at + 1 + size > len(self._data):
                raise DnsError("a name is too long")
            labels.append(self._data[at + 1 : at + 1 + size])
            at += 1 + size
        self.at = after or at + 1
        return tuple(labels)

    def _strings(self, end: int) -> tuple[bytes, ...]:
        parts: list[bytes] = []
        while self.at < end:
            stop = self.at + 1 + self._data[self.at]
            if stop > end:
                raise DnsError("a string ends after its record")
            parts.append(self._data[self.at + 1 : stop])
            self.at = stop
        return tuple(parts)

    def _unpack(self, form: struct.Struct) -> tuple[int, ...]:
        values = form.unpack_from(self._data, self.at)
        self.at += form.size
        return values


def text(name: Name) -> str:
    """Return a name for people to read."""
    return ".".join(label.decode(errors="backslashreplace") for label in name)
