"""Module nodes holds the commands that ask every node by its own address how it is doing."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import click

from shoal import wire
from shoal.cli import _complete, _exits, _input, _output, _parts
from shoal.cli._command import Command
from shoal.cli.discovery import as_json
from shoal.client import Request
from shoal.errors import Error, Timeout
from shoal.registry import Node, Record

_timeout = click.option(
    "--timeout", type=_input.duration, default="5s", show_default=True, help="Limit for each node."
)
_PROTOCOLS = {"rpc": ("", "mucp"), "mucp": ("", "mucp"), "grpc": ("grpc",)}

_YEAR_10000 = 253_402_200_000  # Unix seconds; what no calendar has would be an error


@dataclass(frozen=True, slots=True)
class _Answer:
    """What came of asking one node: `status` is ok, its own word, unknown or dead."""

    service: str
    version: str
    node: Node
    status: str
    detail: str
    reply: dict[str, Any]

    def summary(self) -> str:
        """Return the status with what is behind it."""
        return f"{self.status}: {self.detail}" if self.detail else self.status

    def identity(self) -> dict[str, Any]:
        """Return which node it is, for JSON."""
        return {
            "service": self.service,
            "version": self.version,
            "node": self.node.id,
            "address": self.node.address,
        }


@click.command(cls=Command)
@click.argument("name", required=False, shell_complete=_complete.services)
@_timeout
@click.option("--strict", is_flag=True, help="A node that cannot tell counts as ill.")
@as_json
@click.pass_context
def health(
    ctx: click.Context, name: str | None, timeout: float, strict: bool, as_json: bool
) -> None:
    """Ask every node of a service, or of all, whether it is well.

    Exits with 1 if one is not. Go Micro's services from v4.8 on cannot tell: their status is
    unknown.
    """
    answers = _ask_all(ctx, name, "Debug.Health", timeout)
    if as_json:
        documents = [
            answer.identity() | {"status": answer.status, "detail": answer.detail}
            for answer in answers
        ]
        _output.print_json(documents)
    else:
        rows = [(a.service, a.node.id, a.node.address, a.summary()) for a in answers]
        _output.print_table(("service", "node", "address", "status"), rows)
    well = {"ok"} if strict else {"ok", "unknown"}
    if any(answer.status not in well for answer in answers):
        raise SystemExit(_exits.FAILED)


@click.command(cls=Command)
@click.argument("name", shell_complete=_complete.services)
@_timeout
@as_json
@click.pass_context
def stats(ctx: click.Context, name: str, timeout: float, as_json: bool) -> None:
    """Show what every node of a service uses and has done.

    Exits with 1 if one does not answer.
    """
    answers = _ask_all(ctx, name, "Debug.Stats", timeout)
    if as_json:
        documents = [
            answer.identity()
            | {"status": answer.status, "detail": answer.detail, "stats": answer.reply or None}
            for answer in answers
        ]
        _output.print_json(documents)
    else:
        columns = "node address started uptime memory threads gc requests errors".split()
        _output.print_table(columns, [_row(answer) for answer in answers])
    if any(answer.status == "dead" for answer in answers):
        raise SystemExit(_exits.FAILED)


def _row(answer: _Answer) -> list[str]:
    node, reply = answer.node, answer.reply
    if not reply:
        return [node.id, node.address, answer.summary(), "", "", "", "", "", ""]
    number = {name: _number(reply.get(name)) for name in reply}
    since = min(max(number.get("started", 0), 0), _YEAR_10000)
    started = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(since))
    counted = [str(number.get(name, 0)) for name in ("threads", "gc", "requests", "errors")]
    uptime, memory = number.get("uptime", 0), number.get("memory", 0)
    return [node.id, node.address, started, _time(uptime), f"{memory / 1e6:.1f} MB", *counted]


def _number(value: object) -> int:
    """Return a count: Go Micro's JSON has numbers, protobuf's JSON texts of them."""
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 20:
        return int(value)
    return value if isinstance(value, int) else 0


def _time(seconds: int) -> str:
    days, rest = divmod(seconds, 86400)
    hours, rest = divmod(rest, 3600)
    minutes, rest = divmod(rest, 60)
    parts = ((days, "d"), (hours, "h"), (minutes, "m"), (rest, "s"))
    return "".join(f"{count}{unit}" for count, unit in parts if count) or "0s"


def _ask_all(ctx: click.Context, name: str | None, endpoint: str, timeout: float) -> list[_Answer]:
    async def work(fleet: _parts.Fleet) -> list[_Answer]:
        records = await (fleet.all_records() if name is None else fleet.records(name))
        return await _parts.at_once(
            _ask(fleet, record, node, endpoint, timeout)
            for record in records
            for node in record.nodes
        )

    return _parts.run(ctx, work)


async def _ask(
    fleet: _parts.Fleet, record: Record, node: Node, endpoint: str, timeout: float
) -> _Answer:
    def answer(status: str, detail: str = "", reply: dict[str, Any] | None = None) -> _Answer:
        return _Answer(record.name, record.version, node, status, detail, reply or {})

    protocol = node.metadata.get("protocol", "")
    if protocol not in _PROTOCOLS.get(fleet.options.plugin("client")[0], (protocol,)):
        return answer("unknown", f"it speaks {protocol}")
    content_type = wire.JSON if protocol else wire.node_content_type(wire.JSON, node.metadata)
    # Go's JSON refuses fields it does not know, so the state is asked of Shoal's nodes only.
    message = {"state": True} if endpoint == "Debug.Stats" and "shoal" in node.metadata else {}
    request = Request(record.name, endpoint, message, dict[str, Any], content_type)
    try:
        reply = await fleet.client.call(request, address=node.address, timeout=timeout)
    except Timeout:
        return answer("dead", f"no answer within {timeout:g} s")
    except Error as error:
        if _exits.is_unknown(error):
            return answer("unknown", "no Debug handler")
        dead = _exits.code(error) == _exits.NOT_FOUND
        return answer("dead" if dead else "error", _exits.sentence(error))
    return answer(str(reply.get("status") or "ok"), reply=reply)
