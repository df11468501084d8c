"""Module events holds the commands that publish events and print those that come."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import click

from shoal.cli import _complete, _input, _output, _parts
from shoal.cli._command import Command
from shoal.errors import ConnectionClosed, Timeout
from shoal.message import Message


@click.command(cls=Command)
@click.argument("topic", shell_complete=_complete.topics)
@click.argument("event", nargs=-1, metavar="[JSON]")
@click.option(
    *("--metadata", "-m", "--header", "-H", "pairs"),
    multiple=True,
    metavar="NAME=VALUE",
    help="Metadata to send with it; NAME:VALUE does too.",
)
@click.pass_context
def publish(ctx: click.Context, topic: str, event: tuple[str, ...], pairs: tuple[str, ...]) -> None:
    """Publish an event.

    JSON is the event, {} without one; - reads it from stdin, @PATH from a file.
    """
    message, metadata = _input.message(event), _input.metadata(pairs)

    async def work(fleet: _parts.Fleet) -> None:
        await fleet.client.publish(topic, message, metadata=metadata)

    _parts.run(ctx, work)


@click.command(cls=Command)
@click.argument("topic", shell_complete=_complete.topics)
@click.option("--queue", default="", help="Share the events with all that name this queue.")
@click.option("--count", type=click.IntRange(1), help="End after so many events.")
@click.option("--timeout", type=_input.duration, help="End after this time, with exit code 5.")
@click.option("--header", is_flag=True, help="Print the header of each event above it.")
@click.option("--json", "as_json", is_flag=True, help="Print topic, header and body as JSON.")
@click.pass_context
def subscribe(ctx: click.Context, /, topic: str, **given: Any) -> None:
    """Print each event of a topic as a line, until interrupted."""

    async def work(fleet: _parts.Fleet) -> None:
        printer = _Printer(topic, given["count"], given["as_json"], given["header"])
        await fleet.broker.connect()
        subscription = await fleet.broker.subscribe(topic, printer.print, queue=given["queue"])
        try:
            broker = fleet.options.plugin("broker")[0]
            _output.note(f"subscribed to {topic} (broker {broker} at {fleet.broker.address})")
            async with asyncio.timeout(given["timeout"]):
                await printer.finished
        except TimeoutError:
            limit = f"{given['timeout']:g} s"
            raise Timeout(f"{printer.printed} events of {topic} came within {limit}") from None
        finally:
            await subscription.unsubscribe()

    _parts.run(ctx, work)


class _Printer:
    """Prints events; they are acknowledged when they are printed, those that are too many not."""

    def __init__(self, topic: str, count: int | None, as_json: bool, header: bool) -> None:
        self.printed = 0
        self.finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._topic = topic
        self._count = count
        self._as_json = as_json
        self._header = header

    async def print(self, message: Message) -> None:
        """Print an event."""
        if self.finished.done():
            raise ConnectionClosed("the command ends after the events it was asked for")
        try:
            _print(self._topic, message, self._as_json, self._header)
        except OSError as error:  # who read the output is gone
            self.finished.set_exception(error)
            raise
        self.printed += 1
        if self.printed == self._count:
            self.finished.set_result(None)


def _print(topic: str, message: Message, as_json: bool, header: bool) -> None:
    if as_json:
        encoding, body = _decoded(message.body)
        event = {"topic": topic, "header": message.headers(), "encoding": encoding, "body": body}
        _output.print_json(event, indent=-1)
        return
    if header:
        for name, value in sorted(message.headers().items()):
            _output.say(f"{name}: {value}")
    encoding, body = _decoded(message.body)
    if encoding == "json":
        _output.print_json(body, indent=-1)
    else:
        _output.say(body)
    if header:
        _output.say()


def _decoded(body: bytes) -> tuple[str, Any]:
    """Return how a body can be shown, and that: as the JSON or the text it is, else as base64."""
    try:
        return "json", _output.as_json(body)
    except ValueError:
        pass
    try:
        return "text", body.decode()
    except UnicodeDecodeError:
        return "base64", base64.b64encode(body).decode()
