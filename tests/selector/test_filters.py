"""Tests of the filters."""

from __future__ import annotations

from shoal.registry import Endpoint, Node, Record
from shoal.selector.filters import endpoint, label, version

ONE = Node("one", "h:1", {"zone": "a", "empty": ""})
TWO = Node("two", "h:2", {"zone": "b"})
BARE = Node("bare", "h:3")
OLD = Record("greeter", "1.0.0", (ONE, TWO), (Endpoint("Greeter.Hello"),))
NEW = Record("greeter", "2.0.0", (TWO, BARE), (Endpoint("Greeter.Hello"), Endpoint("Greeter.Bye")))


def test_a_version_is_compared_exactly() -> None:
    assert list(version("1.0.0")([OLD, NEW])) == [OLD]
    assert list(version("1.0")([OLD, NEW])) == []
    assert list(version("")([OLD, Record("greeter", "")])) == [Record("greeter", "")]


def test_a_label_keeps_nodes_and_drops_records_without_any() -> None:
    (kept,) = label("zone", "a")([OLD, NEW])
    assert kept.nodes == (ONE,)
    assert (kept.version, kept.endpoints) == (OLD.version, OLD.endpoints)
    assert [record.nodes for record in label("zone", "b")([OLD, NEW])] == [(TWO,), (TWO,)]
    assert OLD.nodes == (ONE, TWO)


def test_a_label_that_is_missing_is_empty_as_in_go() -> None:
    assert [record.nodes for record in label("empty", "")([OLD, NEW])] == [(ONE, TWO), (TWO,)]


def test_an_endpoint_is_one_of_the_version() -> None:
    assert list(endpoint("Greeter.Bye")([OLD, NEW])) == [NEW]
    assert list(endpoint("Greeter.Hello")([OLD, NEW])) == [OLD, NEW]
    assert list(endpoint("greeter.hello")([OLD, NEW])) == []


def test_equal_filters_are_interchangeable() -> None:
    assert version("1") == version("1")
    assert hash(label("a", "b")) == hash(label("a", "b"))
    assert endpoint("A.B") != endpoint("A.C")
    assert len({version("1"), label("1", "1"), endpoint("1")}) == 3
