"""Tests of what is told between two looks at the same services."""

from __future__ import annotations

from shoal.registry import Endpoint, Node, Record
from shoal.registry._differences import differences, with_missing

A, B = Node("a", "h:1"), Node("b", "h:2")


def told(before: list[Record], after: list[Record]) -> list[tuple[str, str, list[str]]]:
    return [
        (change.action, change.record.version, [node.id for node in change.record.nodes])
        for change in differences(before, after)
    ]


def test_what_is_told() -> None:
    one, both = Record("s", "1", (A,)), Record("s", "1", (A, B))
    assert told([], []) == []
    assert told([one], [one]) == []
    assert told([], [both]) == [("create", "1", ["a", "b"])]
    assert told([one], [both]) == [("create", "1", ["b"])]
    assert told([both], [one]) == [("delete", "1", ["b"])]
    assert told([both], []) == [("delete", "1", ["a", "b"])]
    moved = Record("s", "1", (A, Node("b", "h:3")))
    assert told([both], [moved]) == [("update", "1", ["b"])]
    said = Record("s", "1", (A, B), (Endpoint("S.Do"),))
    assert told([both], [said]) == [("update", "1", ["a", "b"])]


def test_a_node_of_another_version_is_gone_first() -> None:
    before, after = [Record("s", "1", (A,))], [Record("s", "2", (A,))]
    assert told(before, after) == [("delete", "1", ["a"]), ("create", "2", ["a"])]


def test_services_are_apart() -> None:
    changes = list(differences([Record("s", "1", (A,))], [Record("t", "1", (A,))]))
    assert [(c.action, c.record.name) for c in changes] == [("delete", "s"), ("create", "t")]


def test_what_is_missing_is_kept() -> None:
    before = [Record("s", "1", (A, B)), Record("t", "1", (A,))]
    changed = Node("a", "h:9")
    kept = with_missing(before, [Record("s", "2", (changed,))])
    assert kept == [
        Record("s", "1", (B,)), Record("s", "2", (changed,)), Record("t", "1", (A,))
    ]  # fmt: skip
    assert with_missing(before, before) == before
