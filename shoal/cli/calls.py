"""Module calls holds the commands that call endpoints."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import click
import msgspec

from shoal.cli import _complete, _exits, _input, _output, _parts
from shoal.cli._command import Command
from shoal.cli._exits import NOT_FOUND, USAGE, Failure
from shoal.client import CallOptions, Request, Stream
from shoal.errors import ConnectionClosed, Error, ServiceNotFound, Timeout
from shoal.registry import Record

logger = logging.getLogger(__name__)

_Decorator = Callable[[Any], Any]

_SHARED: tuple[_Decorator, ...] = (
    click.option(
        "--address", multiple=True, metavar="HOST:PORT", help="Call here, without the registry."
    ),
    click.option("--timeout", type=_input.duration, help="Limit of the whole, such as 500ms."),
    click.option(
        *("--metadata", "-m", "--header", "-H", "pairs"),
        multiple=True,
        metavar="NAME=VALUE",
        help="Metadata to send with it; NAME:VALUE does too.",
    ),
    click.option(
        "--content-type",
        default="",
        metavar="TYPE",
        help="How it is encoded, such as application/json-rpc.",
    ),
)


def _shared(command: Any) -> Any:
    for option in reversed(_SHARED):
        command = option(command)
    return command


@click.command(cls=Command)
@click.argument("name", shell_complete=_complete.services)
@click.argument("endpoint", shell_complete=_complete.endpoints)
@click.argument("request", nargs=-1, metavar="[JSON]")
@_shared
@click.option(
    "--retries", type=click.IntRange(0), help="Further attempts, even if it may have run."
)
@click.option("--json", "line", is_flag=True, help="Print the reply on one line.")
@click.option("--raw", is_flag=True, help="Print the reply as it came.")
@click.pass_context
def call(ctx: click.Context, /, name: str, endpoint: str, **given: Any) -> None:
    """Call an endpoint and print its reply.

    JSON is the request, {} without one; - reads it from stdin, @PATH from a file.
    """
    content_type: str = given["content_type"]
    message = _input.message(given["request"], is_json=_is_json(content_type))
    request = Request(name, endpoint, message, msgspec.Raw, content_type)
    options = _options(given)
    if given["retries"] is not None:
        options["retries"] = given["retries"]

    async def work(fleet: _parts.Fleet) -> msgspec.Raw:
        try:
            return await fleet.client.call(request, **options)
        except Error as error:
            raise await _explained(error, fleet, request, options) from error

    reply = bytes(_parts.run(ctx, work))
    if given["raw"] or not _is_json(content_type):
        click.echo(reply, nl=_is_json(content_type))
    else:
        _print_reply(reply, -1 if given["line"] else 2)


@click.command(cls=Command)
@click.argument("name", shell_complete=_complete.services)
@click.argument("endpoint", shell_complete=_complete.endpoints)
@click.argument("items", nargs=-1, metavar="[JSON]...")
@_shared
@click.option("--count", type=click.IntRange(1), help="End after so many replies.")
@click.option(
    "--idle",
    type=_input.duration,
    help="End when all is sent and no reply came for so long: Go's services do not answer the end"
    " of what a caller sends.",
)
@click.option("--json", "_json", is_flag=True, expose_value=False, hidden=True)
@click.pass_context
def stream(ctx: click.Context, /, name: str, endpoint: str, **given: Any) -> None:
    """Open a stream and print each reply as a line of JSON.

    Each JSON is an item to send, {} without one; - sends the lines of stdin, as they come.
    """
    content_type: str = given["content_type"]
    if not _is_json(content_type):
        raise click.UsageError("items are lines of JSON: choose a content type of JSON's")
    items = [word if word == "-" else _input.message([word]) for word in given["items"] or ["{}"]]
    request: Request[Any] = Request(name, endpoint, None, msgspec.Raw, content_type)
    options = _options(given)

    async def work(fleet: _parts.Fleet) -> None:
        try:
            if not options.get("address") and not any(fleet.options.route()):
                await _check_stream(fleet, name, endpoint)
            async with fleet.client.stream(request, **options) as opened:
                limit = fleet.options.max_message_size
                failures: list[Exception] = []
                sending = asyncio.create_task(_send(opened, _items(items, limit), failures))
                try:
                    await _print_replies(opened, sending, given["count"], given["idle"])
                except ConnectionClosed:
                    if failures:
                        raise failures[0] from None
                    raise
                finally:
                    sending.cancel()
                    await asyncio.wait([sending])
        except Error as error:
            raise await _explained(error, fleet, request, options) from error

    _parts.run(ctx, work)


async def _items(items: Sequence[str | msgspec.Raw], limit: int) -> AsyncIterator[msgspec.Raw]:
    for item in items:
        if isinstance(item, msgspec.Raw):
            yield item
            continue
        async for line in _input.stdin_lines(limit):
            yield _input.json_message(line, "a line of stdin")


async def _send(
    opened: Stream[Any], items: AsyncIterator[msgspec.Raw], failures: list[Exception]
) -> None:
    """Send all items, and then that no more come; what fails here is kept and ends the stream."""
    try:
        async for item in items:
            await opened.send(item)
        await opened.close_send()
    except ConnectionClosed:
        return  # who receives is told why
    except Exception as error:
        failures.append(error)
        await opened.close()


async def _print_replies(
    opened: Stream[Any], sending: asyncio.Task[None], count: int | None, idle: float | None
) -> None:
    loop = asyncio.get_running_loop()
    quiet = asyncio.timeout(None)

    def replied(_: object = None) -> None:
        if idle is not None and sending.done():
            quiet.reschedule(loop.time() + idle)

    try:
        async with quiet:
            sending.add_done_callback(replied)
            replied()
            printed = 0
            async for reply in opened:
                _print_reply(bytes(reply), -1)
                replied()
                printed += 1
                if printed == count:
                    break
    except TimeoutError:
        if not quiet.expired():
            raise
    finally:
        sending.remove_done_callback(replied)


def _print_reply(reply: bytes, indent: int) -> None:
    try:
        _output.print_json(_output.as_json(reply or b"{}"), indent=indent)
    except ValueError:  # the server's mistake, to be seen
        click.echo(reply)


def _is_json(content_type: str) -> bool:
    return not content_type or "json" in content_type


def _options(given: dict[str, Any]) -> CallOptions:
    options: CallOptions = {"metadata": _input.metadata(given["pairs"])}
    if given["address"]:
        options["address"] = [one for text in given["address"] for one in text.split(",") if one]
    if given["timeout"] is not None:
        options["timeout"] = given["timeout"]
    return options


async def _check_stream(fleet: _parts.Fleet, name: str, endpoint: str) -> None:
    """End the command for an endpoint that is registered and no stream: nothing would end it."""
    found = _endpoints(await fleet.records(name)).get(endpoint)
    if found is not None and not found:
        raise Failure(f"{endpoint} is no stream: use shoal call {name} {endpoint}", USAGE)


def _endpoints(records: Sequence[Record]) -> dict[str, bool]:
    """Return which endpoints there are, and whether they are streams."""
    return {
        endpoint.name: endpoint.metadata.get("stream") == "true"
        for record in records
        for endpoint in record.endpoints
        if endpoint.metadata.get("subscriber") != "true"
    }


async def _explained(
    error: Error, fleet: _parts.Fleet, request: Request[Any], options: CallOptions
) -> Failure:
    """Return how the command ends, with what the registry knows about the mistake."""
    name, endpoint = request.service, request.endpoint
    if isinstance(error, ServiceNotFound):
        return await fleet.missing(name)
    about = "" if error.detail.startswith(name) else f"{name} {endpoint}"
    failure = _exits.failure(error, about)
    if options.get("address") or any(fleet.options.route()):
        return failure
    known: dict[str, bool] = {}
    if _exits.is_unknown(error) or isinstance(error, Timeout):
        try:
            known = _endpoints(await fleet.parts.registry.get(name))
        except Error as another:
            logger.debug("%s", another)
    if _exits.is_unknown(error) and known and endpoint not in known:
        close = _parts.nearest(endpoint, known)
        hint = f"did you mean {close}?" if close else f"it has {', '.join(sorted(known))}"
        return Failure(f"{name} has no endpoint {endpoint!r}: {hint}", NOT_FOUND)
    if request.message is not None and known.get(endpoint):
        failure.message += f"; it is a stream: use shoal stream {name} {endpoint}"
    return failure
