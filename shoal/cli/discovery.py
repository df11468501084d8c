"""Module discovery holds the commands that tell what is registered."""

from __future__ import annotations

from collections.abc import Mapping

import click

from shoal.cli import _complete, _output, _parts
from shoal.cli._command import Command, Group
from shoal.registry import Endpoint, Record, Value

as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
_WIDTH = 76
_GO_STREAM = ("Context", "Stream")
"""What Go Micro tells of a stream instead of its items (server/extractor.go)."""


@click.command(cls=Command)
@click.option("--all", "everything", is_flag=True, help="Also what brokers register for theirs.")
@as_json
@click.pass_context
def services(ctx: click.Context, everything: bool, as_json: bool) -> None:
    """List the names of all services."""

    async def work(fleet: _parts.Fleet) -> list[str]:
        return await fleet.names(everything=everything)

    names = _parts.run(ctx, work)
    if as_json:
        _output.print_json(names)
        return
    for name in names:
        _output.say(name)


@click.command(cls=Command)
@click.argument("name", shell_complete=_complete.services)
@as_json
@click.pass_context
def describe(ctx: click.Context, name: str, as_json: bool) -> None:
    """Show the versions, nodes and endpoints of a service."""

    async def work(fleet: _parts.Fleet) -> list[Record]:
        return await fleet.records(name)

    records = _parts.run(ctx, work)
    if as_json:
        from shoal.registry._records import to_go

        _output.print_json([to_go(record) for record in records])
        return
    _output.say(name)
    for record in records:
        _tell(record)


def _tell(record: Record) -> None:
    _output.say(f"\nversion {record.version}")
    for key, value in sorted(record.metadata.items()):
        _output.say(f"  {key}={value}")
    nodes = [(node.id, node.address, _pairs(node.metadata)) for node in record.nodes]
    _output.say()
    _output.print_table(("id", "address", "metadata"), nodes, indent=2)
    for endpoint in record.endpoints:
        _tell_endpoint(endpoint)


def _tell_endpoint(endpoint: Endpoint) -> None:
    about = dict(endpoint.metadata)
    description = about.pop("description", "")
    kind = " (stream)" if about.pop("stream", "") == "true" else ""
    topic = about.pop("topic", "")
    if about.pop("subscriber", "") == "true":
        kind = f" (subscriber of {topic})" if topic else " (subscriber)"
    _output.say(f"\n  {endpoint.name}{kind}")
    for line in description.splitlines():
        _output.say(f"    {line}")
    for label, value in (("request ", endpoint.request), ("response", endpoint.response)):
        if value is not None and value.type not in _GO_STREAM:
            _output.say(f"    {label} {_shape(value, 13)}")
    if about:
        _output.say(f"    metadata {_pairs(about)}")


def _shape(value: Value, indent: int) -> str:
    """Return the type and fields of a value, on one line if they fit."""
    name = value.type or "any"
    if not value.values:
        return name
    line = f"{name} {{{', '.join(_field(field) for field in value.values)}}}"
    if len(line) + indent <= _WIDTH:
        return line
    margin = " " * (indent + 2)
    fields = [f"{margin}{one.name} {_shape(one, indent + 2)}" for one in value.values]
    return "\n".join([f"{name} {{", *fields, f"{' ' * indent}}}"])


def _field(value: Value) -> str:
    return f"{value.name} {_shape(value, -10_000)}"


def _pairs(metadata: Mapping[str, str]) -> str:
    return " ".join(f"{key}={value}" for key, value in sorted(metadata.items()))


list_group = Group(
    name="list", help="`list services` is `services`.", commands={"services": services}
)
get_group = Group(
    name="get", help="`get service NAME` is `describe NAME`.", commands={"service": describe}
)
