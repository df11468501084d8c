"""Module _output prints for people on a terminal, and for programs everywhere else."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import click
import msgspec

_TONES = {"ok": "green", "dead": "red", "unknown": "yellow", "stopping": "yellow"}
_JSON = re.compile(
    r'(?P<key>"(?:[^"\\]|\\.)*")(?=:)|(?P<text>"(?:[^"\\]|\\.)*")|(?P<word>[\w.+-]+)'
)
_JSON_TONES = {"key": "blue", "text": "green", "word": "cyan"}


def plain(text: str) -> str:
    """Return a text without what could drive a terminal: names come from a network."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or char == "\n" else char.encode("unicode_escape").decode()
        for char in text
    )


def say(text: str = "") -> None:
    """Print a line."""
    click.echo(plain(text))


def note(text: str) -> None:
    """Print a line that is no result: on stderr."""
    click.echo(f"shoal: {plain(text)}", err=True)


def print_json(value: Any, *, indent: int = 2) -> None:
    """Print a value as one JSON document; `msgspec.Raw` keeps its numbers as they are.

    A negative indent gives one line.
    """
    text = msgspec.json.format(msgspec.json.encode(value), indent=indent).decode()
    if not text.isprintable():
        text = "".join(c if c == "\n" or c.isprintable() else _escaped(c) for c in text)
    click.echo(_JSON.sub(_toned, text) if _colours() else text)


def as_json(data: bytes) -> msgspec.Raw:
    """Return JSON that `print_json` can print as it is; raises ValueError for what is none."""
    data.decode()
    try:
        return msgspec.json.decode(data.strip(), type=msgspec.Raw)
    except RecursionError as error:
        raise ValueError(str(error)) from None


def _escaped(char: str) -> str:
    units = char.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))


def _toned(found: re.Match[str]) -> str:
    return click.style(found[0], fg=_JSON_TONES[found.lastgroup or "word"])


def _colours() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], indent: int = 0) -> None:
    """Print rows under the names of their columns; never cut when it is piped."""
    cleaned = [[plain(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        _rich_table(columns, cleaned, indent)
        return
    rows = [[name.upper() for name in columns], *cleaned]
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    for row in rows:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo(f"{' ' * indent}{line}".rstrip())


def _rich_table(columns: Sequence[str], rows: Iterable[Sequence[str]], indent: int) -> None:
    # Imported late: it costs more than all else a command imports.
    from rich.console import Console
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in columns:
        table.add_column(name.upper(), overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell, style=_TONES.get(cell.partition(":")[0], "")) for cell in row))
    Console().print(Padding(table, (0, 0, 0, indent)))
