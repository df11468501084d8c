"""Module _input reads what the user gives a command: JSON, metadata, durations, lines."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import sys
import threading
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import click
import msgspec

from shoal._settings import TIME_LIMIT
from shoal.cli._output import as_json
from shoal.context import checked
from shoal.errors import BadRequest

_CHUNK = 65536


def duration(text: str) -> float:
    """Return the seconds of a time limit as Go writes it (`500ms`); raises BadParameter."""
    try:
        seconds: float = TIME_LIMIT.parse(text)
    except ValueError as error:
        raise click.BadParameter(f"{text!r} {error}") from None
    return seconds


def metadata(pairs: Sequence[str]) -> dict[str, str]:
    """Return names and values of `name=value` or `name:value`; raises UsageError."""
    result = {}
    for pair in pairs:
        name, mark, value = re.match(r"(?s)([^=:]*)([=:]?)(.*)", pair).groups()  # type: ignore[union-attr]  # matches everything
        if not name.strip() or not mark:
            raise click.UsageError(f"{pair!r} is no metadata: write name=value or name:value")
        result[name.strip()] = value.strip()
    try:
        return checked(result)
    except BadRequest as error:
        raise click.UsageError(error.detail) from None


def message(words: Sequence[str], *, is_json: bool = True) -> msgspec.Raw:
    """Return a message from the words of a command line, `{}` if there are none.

    `-` is what stdin holds, `@path` what a file holds. Raises UsageError for what is no JSON.
    """
    text = " ".join(words)
    try:
        if text == "-":
            data = sys.stdin.buffer.read()
        elif text.startswith("@"):
            data = Path(text[1:]).read_bytes()
        else:
            data = text.encode("utf-8", "surrogateescape")
    except OSError as error:
        raise click.UsageError(f"cannot read {text[1:]}: {error.strerror}") from None
    return json_message(data.strip() or b"{}", text) if is_json else msgspec.Raw(data)


def json_message(data: bytes, source: str) -> msgspec.Raw:
    """Return JSON as it is; raises UsageError for what is none."""
    try:
        return as_json(data)
    except ValueError as error:
        where = "what came" if source == "-" else source if len(source) < 80 else "the message"
        raise click.UsageError(f"{where} is no JSON: {error}") from None


async def stdin_lines(limit: int) -> AsyncIterator[bytes]:
    """Yield the lines of stdin that are not blank, as they come.

    Raises UsageError for one of more than `limit` bytes.
    """
    loop = asyncio.get_running_loop()
    chunks: asyncio.Queue[bytes] = asyncio.Queue()
    free = threading.Semaphore(4)

    def read() -> None:
        # Not sys.stdin: its lock, held by a thread that waits, breaks the interpreter's exit.
        # Not the loop either: it cannot wait for files.
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            while chunk := os.read(0, _CHUNK):
                loop.call_soon_threadsafe(chunks.put_nowait, chunk)
                free.acquire()
            loop.call_soon_threadsafe(chunks.put_nowait, b"")

    threading.Thread(target=read, name="stdin", daemon=True).start()
    rest = b""
    while chunk := await chunks.get():
        free.release()
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line.strip():
                yield line.strip()
        if len(rest) > limit:
            raise click.UsageError(f"a line of stdin is longer than {limit} bytes")
    if rest.strip():
        yield rest.strip()
