"""Tests of what is known of the nodes of one service."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.errors import ConnectionClosed, Unavailable
from shoal.registry import Endpoint, Node, Record
from shoal.selector import Load
from shoal.selector._nodes import Nodes
from shoal.selector._pool import Choice, Pool
from shoal.selector.filters import Pure, endpoint, label, version

from .parts import Clock, make_node, make_nodes


def record(*numbers: int, release: str = "latest") -> Record:
    return Record("greeter", release, tuple(map(make_node, numbers)), (Endpoint("Greeter.Hello"),))


def ids(pool: Pool) -> list[int]:
    return [int(load.node.id[-4:]) for load in pool.live]


def test_nodes_are_sorted_by_id() -> None:
    nodes = make_nodes(Clock())
    nodes.update(record(3, 1))
    nodes.update(record(2))
    nodes.remove(record(3))
    nodes.update(record(0))
    assert ids(nodes.pool) == [0, 1, 2]
    assert nodes.replace([record(5, 1)])
    assert ids(nodes.pool) == [0, 1, 2, 5]  # an answer can get lost
    assert not nodes.replace([record(5, 1)])
    assert ids(nodes.pool) == [1, 5]


def test_what_a_watch_told_during_a_look_up_wins() -> None:
    nodes = make_nodes(Clock())
    nodes.update(record(0, 1, 2))
    nodes.remove(record(1))
    nodes.update(record(4))
    for _ in range(2):
        nodes.replace([record(0, 1)], keep={make_node(1).id, make_node(4).id})
    assert ids(nodes.pool) == [0, 4]


def test_loads_outlive_updates_of_their_node() -> None:
    nodes = make_nodes(Clock())
    nodes.update(record(0, 1))
    load = nodes.pool.live[0]
    old = Choice(nodes.pool, lambda service, loads: loads[0])()
    changed = Node(old.id, old.address, {"zone": "b"})
    nodes.update(Record("greeter", "2", (changed,)))
    assert nodes.pool.live[0] is load
    assert load.node is changed
    nodes.mark(old, None, 0.1)
    assert (load.in_flight, load.latency) == (0, 0.1)
    nodes.replace([Record("greeter", "2", (replace(changed),)), record(1)])
    assert nodes.pool.live[0] is load


def test_a_node_with_a_new_address_starts_afresh() -> None:
    nodes = make_nodes(Clock())
    nodes.update(record(0))
    choose = Choice(nodes.pool, lambda service, loads: loads[0])
    old = choose()
    nodes.update(Record("greeter", nodes=(make_node(0, "10.0.0.9:80"),)))
    new = choose()
    (load,) = nodes.pool.live
    nodes.mark(old, ConnectionClosed(), 0.1)
    assert (load.in_flight, load.errors) == (1, 0)
    nodes.mark(new, None, 0.2)
    assert (load.in_flight, load.latency) == (0, 0.2)
    assert not nodes.busy()


def test_calls_of_a_node_that_came_back_are_counted_right() -> None:
    nodes = make_nodes(Clock())
    nodes.update(record(0))
    choose = Choice(nodes.pool, lambda service, loads: loads[0])
    first = choose()
    nodes.update(record(1))
    nodes.remove(record(0))
    assert nodes.busy()
    nodes.update(record(0))
    second = choose()
    load = nodes.pool.live[0]
    assert load.in_flight == 2
    nodes.mark(first, None, 0.1)
    nodes.mark(second, None, 0.1)
    assert load.in_flight == 0
    assert not nodes.busy()


def test_a_node_has_one_version() -> None:
    nodes = make_nodes(Clock())
    nodes.update(record(0, 1, release="1"))
    nodes.update(record(0, release="2"))
    assert ids(nodes.view([version("1")])) == [1]
    assert ids(nodes.view([version("2")])) == [0]
    nodes.remove(record(0, release="1"))  # its old registration has expired
    assert ids(nodes.pool) == [0, 1]


def test_the_last_node_may_leave_between_choice_and_call() -> None:
    nodes = make_nodes(Clock())
    nodes.update(record(0))
    choose = Choice(nodes.pool, lambda service, loads: loads[0])
    assert repr(choose) == "Choice('greeter', 1 live nodes)"
    nodes.mark(choose(), ConnectionClosed(), 0.1)
    nodes.remove(record(0))
    with pytest.raises(Unavailable, match="no node of service 'greeter' is left"):
        choose()


def test_equal_pure_filters_are_asked_once_until_something_changes() -> None:
    nodes = make_nodes(Clock())
    nodes.update(record(0, 1))
    view = nodes.view([version("latest")])
    assert nodes.view([version("latest")]) is view
    nodes.update(record(0, 1))  # tells nothing new
    assert nodes.view([version("latest")]) is view
    nodes.update(record(2))
    assert ids(nodes.view([version("latest")])) == [0, 1, 2]
    nodes.update(Record("greeter", nodes=(make_node(0),)))  # an endpoint less
    with pytest.raises(Unavailable, match=r"none of the 3 nodes .* _Endpoint"):
        nodes.view([endpoint("Greeter.Hello")])


def test_views_that_are_kept_are_bounded() -> None:
    nodes = make_nodes(Clock())
    nodes.update(record(0))
    for number in range(200):
        with pytest.raises(Unavailable):
            nodes.view([label("zone", str(number))])
    assert len(nodes._views) <= 64


def test_a_view_leaves_out_who_cannot_be_reached() -> None:
    nodes = make_nodes(Clock())
    nodes.update(record(0, 1, release="1"))
    nodes.update(record(2, release="2"))
    view = nodes.view([version("1")])
    choose = Choice(view, lambda service, loads: loads[0])
    nodes.mark(choose(), ConnectionClosed(), 0.1)
    assert ids(view) == [1]
    nodes.mark(choose(), ConnectionClosed(), 0.1)
    assert ids(view) == []
    assert choose().id == make_node(0).id  # all that pass the filter are out
    assert ids(nodes.pool) == [2]


def test_a_filter_may_bring_nodes_of_its_own() -> None:
    nodes = make_nodes(Clock())
    nodes.update(record(0))

    def proxy(records: Sequence[Record]) -> Sequence[Record]:
        return [Record("greeter", nodes=(Node("proxy", "10.0.0.1:80"),))]

    node = Choice(nodes.view([proxy]), lambda service, loads: loads[0])()
    assert node.address == "10.0.0.1:80"
    nodes.mark(node, None, 0.1)


def test_a_pure_filter_of_ones_own() -> None:
    asked = []

    class Even(Pure):
        def __call__(self, records: Sequence[Record]) -> Sequence[Record]:
            asked.append(len(records))
            return [
                replace(one, nodes=tuple(node for node in one.nodes if node.id[-1] in "02468"))
                for one in records
            ]

    nodes, even = make_nodes(Clock()), Even()
    nodes.update(record(0, 1, 2))
    assert ids(nodes.view([even])) == ids(nodes.view([even])) == [0, 2]
    assert asked == [1]


@pytest.mark.parametrize("count", [2, 40])
def test_loads_that_were_seen_never_change(count: int) -> None:
    nodes = make_nodes(Clock())
    nodes.update(record(*range(count)))
    seen, before = nodes.pool.live, list(nodes.pool.live)
    nodes.update(record(*range(100, 100 + count)))
    nodes.mark(make_node(0), ConnectionClosed(), 0.1)
    nodes.update(Record("greeter", nodes=(Node(make_node(1).id, "127.0.0.1:1", {"a": "b"}),)))
    assert seen == before
    assert nodes.pool.live is not seen


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["update", "remove", "replace", "move", "fail", "reach", "wait", "call"]),
        st.sets(st.integers(0, 45), max_size=45),
    ),
    max_size=30,
)


@given(STEPS, st.integers())
def test_the_books_are_right_whatever_happens(steps: list[tuple[str, set[int]]], seed: int) -> None:
    clock, rng = Clock(), random.Random(seed)
    nodes = make_nodes(clock)
    choose = Choice(nodes.pool, lambda service, loads: rng.choice(loads))
    running: list[Node] = []
    for step, numbers in steps:
        if step == "update":
            nodes.update(record(*numbers))
        elif step == "remove":
            nodes.remove(record(*numbers))
        elif step == "replace":
            nodes.replace([record(*numbers)])
        elif step == "move":
            moved = (make_node(one, f"10.0.0.1:{rng.randrange(3)}") for one in numbers)
            nodes.update(Record("greeter", nodes=tuple(moved)))
        elif step == "wait":
            clock.now += len(numbers)
        elif step == "call":
            running += [choose() for _ in numbers if nodes.loads]
        else:
            for _ in range(min(len(numbers), len(running))):
                node = running.pop(rng.randrange(len(running)))
                nodes.mark(node, ConnectionClosed() if step == "fail" else None, 0.1)
        check(nodes)
    for node in running:
        nodes.mark(node, None, 0.1)
    check(nodes)
    assert not nodes.busy()


def check(nodes: Nodes) -> None:
    pool = nodes.pool
    everyone: list[Load] = sorted(nodes.loads.values(), key=lambda load: load.node.id)
    assert pool.everyone == everyone
    assert pool.live == [load for load in everyone if nodes.health.available(load)]
    assert nodes.health.out.keys() <= nodes.loads.keys()
    assert all(load.in_flight >= 0 for load in everyone)
