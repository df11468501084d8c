"""Module _nats_wire is what registries tell each other over NATS, in Go Micro's JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import msgspec

from shoal.errors import BadRequest
from shoal.registry import Record
from shoal.registry._records import from_go, members_of, parse, to_go

Action = Literal["create", "update", "delete"]

_ACTIONS: dict[object, Action] = {
    "create": "create",
    "update": "update",
    "put": "update",  # an action Go Micro's registrations can be told to have
    "delete": "delete",
}
_encode = msgspec.json.Encoder().encode


class Question(NamedTuple):
    """What somebody wants to know: of one service, or of all without a name."""

    name: str | None


class News(NamedTuple):
    """What became of a record, and for how many seconds that holds if nothing else is heard."""

    action: Action
    record: Record
    ttl: float | None


# Objects have the members of Go Micro's registry.Result, and two it does not know: `Subjects`,
# all that the same message is sent to, of which who hears several takes the first, and `TTL`.


def question(name: str | None, subjects: Sequence[str]) -> bytes:
    """Return the question for a service, or for all (registry/nats, `query`)."""
    service = None
    if name is not None:
        service = {"name": name, "version": "", "metadata": None, "endpoints": None, "nodes": None}
    action = "list" if name is None else "get"
    return _encode({"Action": action, "Service": service, "Subjects": subjects})


def news(action: Action, record: Record, ttl: float | None, subjects: Sequence[str]) -> bytes:
    """Return the word that a record came or went (registry/nats, `Register`)."""
    members = {"Action": action, "Service": to_go(record), "Subjects": subjects}
    return _encode(members if ttl is None else {**members, "TTL": ttl})


def answer(record: Record) -> bytes:
    """Return the answer to a question: one version of a service."""
    return _encode(to_go(record))


def read_answer(data: bytes) -> Record:
    """Return the record of an answer; raises BadRequest."""
    return from_go(parse(data))


def read_question(data: bytes, subject: str, heard: Sequence[str]) -> Question | None:
    """Return a question, None if it is not for us at this subject; raises BadRequest."""
    members = members_of(parse(data), "question")
    if not _first(members, subject, heard):
        return None
    match members.get("action"):
        case "get":
            return Question(str(members_of(members.get("service"), "service").get("name")))
        case "list":
            return Question(None)
        case _:
            return None


def read_news(data: bytes, subject: str, heard: Sequence[str]) -> News | None:
    """Return news, None if there are none for us at this subject; raises BadRequest."""
    members = members_of(parse(data), "news")
    action = _ACTIONS.get(members.get("action"))
    if action is None or not _first(members, subject, heard):
        return None
    ttl = members.get("ttl")
    if ttl is not None and not (isinstance(ttl, int | float) and 0 < ttl < 10**9):
        raise BadRequest("ttl: must be a number of seconds")
    return News(action, from_go(members.get("service")), ttl)


def _first(members: dict[str, Any], subject: str, heard: Sequence[str]) -> bool:
    sent = members.get("subjects")
    if not isinstance(sent, list):
        return True
    return next((one for one in sent if one in heard), subject) == subject
