"""The interop matrix: which wire facts were shown with which Go Micro, in which direction."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

MATRIX = Path(__file__).resolve().parent / "matrix.json"

PAGE = Path(__file__).resolve().parents[2] / "docs" / "interop.md"

GO_TO_PYTHON, PYTHON_TO_GO = DIRECTIONS = ("go to python", "python to go")
"""Who calls, publishes or looks up, and who answers."""


_BEGIN = "<!-- matrix: begin -->"
_END = "<!-- matrix: end -->"


@dataclass(frozen=True, slots=True, order=True)
class Row:
    """One fact as one peer showed it."""

    fact: str
    peer_version: str
    direction: str
    ok: bool
    detail: str = ""

    @property
    def key(self) -> tuple[str, str, str]:
        return (self.fact, self.peer_version, self.direction)


class Matrix:
    """Collects the rows of a test run; a fact recorded twice holds only if it held each time."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str, str], Row] = {}

    @property
    def rows(self) -> list[Row]:
        return sorted(self._rows.values())

    def record(
        self, fact: str, peer_version: str, direction: str, ok: bool, detail: str = ""
    ) -> None:
        """Add a row; the first failure of a fact is the one that is kept."""
        if direction not in DIRECTIONS:
            raise ValueError(f"{direction!r} is no direction; there are {' and '.join(DIRECTIONS)}")
        row = Row(fact, peer_version, direction, ok, detail)
        known = self._rows.get(row.key)
        if known is None or known.ok:
            self._rows[row.key] = row

    def write(self, path: Path = MATRIX, *, whole: bool = False) -> None:
        """Write the rows over those of the file; its other rows stay, so a short run loses none.

        After a whole run only the rows of peers stay that took no part in it.
        """
        kept = load(path)
        if whole:
            took_part = {row.peer_version for row in self.rows}
            kept = [row for row in kept if row.peer_version not in took_part]
        rows = sorted(({row.key: row for row in kept} | self._rows).values())
        text = json.dumps([asdict(row) for row in rows], indent=1, ensure_ascii=False)
        path.write_text(text + "\n", encoding="utf-8")


def load(path: Path = MATRIX) -> list[Row]:
    """Return the rows of a matrix file; none if there is no file."""
    if not path.exists():
        return []
    return [Row(**row) for row in json.loads(path.read_text(encoding="utf-8"))]


def markdown(rows: list[Row]) -> str:
    """Render the table for the docs: a line per fact, a column per peer and direction."""
    columns = sorted({row.key[1:] for row in rows}, key=_newest_first)
    cells = {row.key: row for row in rows}
    notes: list[str] = []
    lines = [
        "| fact | " + " | ".join(", ".join(column) for column in columns) + " |",
        "|---" * (len(columns) + 1) + "|",
    ]
    for fact in sorted({row.fact for row in rows}):
        marks = [_mark(cells.get((fact, *column)), notes) for column in columns]
        lines.append(f"| {fact} | " + " | ".join(marks) + " |")
    lines += ["", *(f"{number}. {note}" for number, note in enumerate(notes, 1))] if notes else []
    return "\n".join(lines) + "\n"


def write_page(page: Path = PAGE, path: Path = MATRIX) -> None:
    """Put the table between the markers of the page."""
    before, begin, rest = page.read_text(encoding="utf-8").partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not end:
        raise ValueError(f"{page} has no {_BEGIN} and {_END}")
    text = f"{before}{begin}\n\n{markdown(load(path))}\n{end}{after}"
    page.write_text(text, encoding="utf-8")


def _newest_first(column: tuple[str, str]) -> tuple[int, str, str]:
    version, direction = column
    digits = version.removeprefix("v")
    return (-int(digits) if digits.isdigit() else 0, version, direction)


def _mark(row: Row | None, notes: list[str]) -> str:
    """Return yes, no or a dash for what was not tried, with the number of its note."""
    if row is None:
        return "–"  # noqa: RUF001 - a dash is meant
    mark = "yes" if row.ok else "**no**"
    if not row.detail:
        return mark
    if row.detail not in notes:
        notes.append(row.detail)
    return f"{mark} ({notes.index(row.detail) + 1})"


if __name__ == "__main__":
    write_page()
