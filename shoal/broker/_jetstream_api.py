"""Module _jetstream_api asks a server's JetStream, in the JSON of its own API."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Any

import msgspec

from shoal._nats import Link
from shoal.errors import Unavailable

ID = "shoal.broker"

_SECOND = 1_000_000_000
_NOT_FOUND = 404
_EXISTS = 10148, 10058, 10013, 10105  # codes for a consumer or stream that somebody made before
_PLAIN = re.compile(r"[A-Za-z0-9_-]{1,128}")

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(dict[str, Any]).decode


@dataclass(frozen=True, slots=True, kw_only=True)
class JetStreamSettings:
    """How streams and their consumers are made; what exists already is taken as it is."""

    events: bool = False
    """Whether events have the form of Go Micro's events streams, instead of its brokers'."""
    start: str = "new"
    """What a queue or subscriber that is new begins with: `new` events, or `all` that are kept."""
    max_age: float = 7 * 24 * 3600.0
    """Seconds events are kept; 0 is for ever."""
    max_bytes: int = -1
    """Bytes a topic's events may take, before the oldest are dropped; -1 is any number."""
    replicas: int = 1
    """Servers of a cluster that keep each event."""
    in_memory: bool = False
    """Whether events are kept in memory only, and lost with the server."""
    ack_wait: float = 30.0
    """Seconds after which an event comes again whose subscriber has died."""

    def __post_init__(self) -> None:
        if self.start not in ("new", "all"):
            raise ValueError(f"start is 'new' or 'all', not {self.start!r}")
        if self.ack_wait <= 0:
            raise ValueError("ack_wait must be more than 0 seconds")


class Refused(Unavailable):
    """The server's JetStream says no."""

    number = 0
    """JetStream's own code for it."""


class JetStreamApi:
    """Makes and finds streams and consumers."""

    def __init__(self, link: Link, settings: JetStreamSettings) -> None:
        self.settings = settings
        self._link = link

    async def check(self) -> None:
        """Raise Unavailable if the server has no JetStream."""
        try:
            await self.ask("INFO")
        except Unavailable as error:
            if error.unsent or isinstance(error, Refused):
                where = self._link.where
                raise Unavailable(
                    f"NATS at {where} runs without JetStream: start it with -js", id=ID
                ) from error
            raise

    async def stream(self, topic: str) -> str:
        """Return the name of the stream that keeps a topic's events, which is made if need be."""
        for _ in range(2):
            found = (await self.ask("STREAM.NAMES", {"subject": topic})).get("streams")
            if found:
                return str(found[0])
            name = plain(topic)
            try:
                await self.ask(f"STREAM.CREATE.{name}", self._stream(name, topic))
            except Refused as error:
                if error.number not in _EXISTS:
                    raise
            else:
                return name
        raise Unavailable(f"a stream {plain(topic)!r} is there, but not for {topic!r}", id=ID)

    def _stream(self, name: str, topic: str) -> dict[str, Any]:
        settings = self.settings
        return {
            "name": name,
            "subjects": [topic],
            "retention": "limits",
            "storage": "memory" if settings.in_memory else "file",
            "max_age": round(settings.max_age * _SECOND),
            "max_bytes": settings.max_bytes,
            "max_msgs": -1,
            "max_consumers": -1,
            "max_msg_size": -1,
            "discard": "old",
            "num_replicas": settings.replicas,
        }

    async def created(self, stream: str) -> str:
        """Return when a stream was made: another time is another stream. Empty if it is gone."""
        try:
            return str((await self.ask(f"STREAM.INFO.{stream}")).get("created"))
        except Refused as error:
            if error.code == _NOT_FOUND:
                return ""
            raise

    async def consumer(self, stream: str, name: str) -> dict[str, Any] | None:
        """Return the configuration of a consumer, None if there is none."""
        try:
            config = (await self.ask(f"CONSUMER.INFO.{stream}.{name}")).get("config")
        except Refused as error:
            if error.code == _NOT_FOUND:
                return None
            raise
        return config if isinstance(config, dict) else {}

    async def make_consumer(self, stream: str, config: dict[str, Any]) -> str:
        """Make a consumer and return its name; one that is there already is left as it is."""
        durable = config.get("durable_name")
        subject = f"CONSUMER.DURABLE.CREATE.{stream}.{durable}" if durable else (
            f"CONSUMER.CREATE.{stream}"
        )  # fmt: skip
        try:
            made = await self.ask(subject, {"stream_name": stream, "config": config})
        except Refused as error:
            if durable and error.number in _EXISTS:
                return str(durable)
            raise
        return str(made.get("name"))

    async def delete_consumer(self, stream: str, name: str) -> None:
        """Delete a consumer."""
        await self.ask(f"CONSUMER.DELETE.{stream}.{name}")

    def consumer_config(self, topic: str, deliver: str, prefetch: int) -> dict[str, Any]:
        """Return what all consumers have in common: events are pushed, and acknowledged singly."""
        return {
            "filter_subject": topic,
            "deliver_subject": deliver,
            "deliver_policy": self.settings.start,
            "replay_policy": "instant",
            "ack_policy": "explicit",
            "ack_wait": round(self.settings.ack_wait * _SECOND),
            "max_deliver": -1,  # the subscriber counts, and buries what is dead
            "max_ack_pending": prefetch,
        }

    async def ask(self, subject: str, question: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the answer to a question; raises Refused with the server's reason."""
        payload = b"" if question is None else _encode(question)
        return read((await self._link.request(f"$JS.API.{subject}", payload)).data)


def read(data: bytes) -> dict[str, Any]:
    """Return what JetStream says; raises Refused if that is no."""
    try:
        answer = _decode(data)
    except msgspec.DecodeError as error:
        raise Unavailable(f"JetStream said what nobody understands: {error}", id=ID) from None
    said = answer.get("error")
    if isinstance(said, dict):
        refused = Refused(f"JetStream: {said.get('description')}", id=ID)
        refused.code, refused.number = int(said.get("code", 0)), int(said.get("err_code", 0))
        raise refused
    return answer


def plain(name: str) -> str:
    """Return a name as streams and consumers can have: itself if it can be."""
    if _PLAIN.fullmatch(name):
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:12]
    return f"{re.sub('[^A-Za-z0-9_-]', '_', name)[:100]}-{digest}"


def nak(pause: float) -> bytes:
    """Return the word that an event shall come again, after so many seconds."""
    return b"-NAK " + _encode({"delay": round(pause * _SECOND)}) if pause else b"-NAK"
