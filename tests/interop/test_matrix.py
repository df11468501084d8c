"""The matrix itself: what is kept, what is replaced, how it is shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from .matrix import GO_TO_PYTHON, PYTHON_TO_GO, Matrix, load, markdown, write_page


def test_the_first_failure_is_kept() -> None:
    table = Matrix()
    table.record("a", "v6", GO_TO_PYTHON, True)
    table.record("a", "v6", GO_TO_PYTHON, False, "first")
    table.record("a", "v6", GO_TO_PYTHON, False, "second")
    table.record("a", "v6", GO_TO_PYTHON, True)
    assert [(row.ok, row.detail) for row in table.rows] == [(False, "first")]


def test_a_short_run_keeps_other_rows_and_a_whole_one_those_of_absent_peers(
    tmp_path: Path,
) -> None:
    path = tmp_path / "matrix.json"
    before = Matrix()
    for version in ("v6", "v5"):
        before.record("gone", version, GO_TO_PYTHON, True)
    before.write(path)
    after = Matrix()
    after.record("new", "v5", PYTHON_TO_GO, True)
    after.write(path)
    assert {row.key[:2] for row in load(path)} == {("gone", "v6"), ("gone", "v5"), ("new", "v5")}
    after.write(path, whole=True)
    assert {row.key[:2] for row in load(path)} == {("gone", "v6"), ("new", "v5")}


def test_the_page_shows_yes_no_and_notes(tmp_path: Path) -> None:
    table = Matrix()
    table.record("a", "v6", GO_TO_PYTHON, True)
    table.record("b", "v1", PYTHON_TO_GO, False, "why not")
    shown = markdown(table.rows).splitlines()
    assert shown[0] == "| fact | v6, go to python | v1, python to go |"
    assert "| a | yes | – |" in shown  # noqa: RUF001 - a dash is meant
    assert "| b | – | **no** (1) |" in shown  # noqa: RUF001 - a dash is meant
    assert "1. why not" in shown
    path = tmp_path / "matrix.json"
    table.write(path)
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- matrix: begin -->\nold\n<!-- matrix: end -->\nafter\n")
    write_page(page, path)
    text = page.read_text()
    assert text.startswith("before\n<!-- matrix: begin -->\n\n| fact |")
    assert text.endswith("<!-- matrix: end -->\nafter\n")
    assert "old" not in text
    write_page(page, path)
    assert page.read_text() == text


def test_a_page_without_markers_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("nothing\n")
    with pytest.raises(ValueError, match="has no"):
        write_page(page, tmp_path / "matrix.json")
