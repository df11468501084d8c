"""Tests of who gets calls, by how the calls before went."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest

from shoal.errors import (
    BadRequest,
    ConnectionClosed,
    InternalServerError,
    Timeout,
    Unavailable,
    from_wire,
    to_wire,
)
from shoal.registry import Node, Record
from shoal.selector import GaveUp, Load
from shoal.selector._health import unreachable
from shoal.selector._nodes import Nodes
from shoal.selector._pool import Choice

from .parts import Clock, make_node, make_nodes


def refused() -> Unavailable:
    error = Unavailable("cannot connect", id="shoal.transport")
    error.unsent = True
    return error


class Calls:
    """Calls to a service whose strategy takes any wanted node, else the first."""

    def __init__(self, count: int) -> None:
        self.clock = Clock()
        self.nodes: Nodes = make_nodes(self.clock)
        self.nodes.update(Record("greeter", nodes=tuple(map(make_node, range(count)))))
        self.wanted = make_node(0).id
        self.choose = Choice(self.nodes.pool, self.strategy)

    def strategy(self, service: str, loads: Sequence[Load]) -> Load:
        return next((load for load in loads if load.node.id == self.wanted), loads[0])

    def load(self, number: int = 0) -> Load:
        return self.nodes.loads[make_node(number).id]

    def give(self, number: int = 0) -> Node | None:
        """Return the wanted node if it is given a call."""
        self.wanted = make_node(number).id
        node = self.choose()
        if node.id == self.wanted:
            return node
        self.nodes.mark(node, None, 0.01)
        return None

    def fail(self, number: int = 0, error: Exception | None = None) -> None:
        node = self.give(number)
        assert node is not None
        self.nodes.mark(node, error or ConnectionClosed(), 0.01)

    def until_given(self, number: int = 0) -> float:
        """Return the seconds until the node is given again; the call is then under way."""
        for step in itertools.count():
            if self.give(number) is not None:
                return step * 0.01
            self.clock.now += 0.01
            assert step < 10_000
        raise AssertionError


def test_only_what_kept_the_request_from_the_node_means_unreachable() -> None:
    assert unreachable(ConnectionClosed())
    assert unreachable(refused())
    assert unreachable(Unavailable("an outsider's transport"))
    # What came back over the wire was sent by a node that is well, whoever failed behind it.
    assert not unreachable(from_wire(to_wire(refused())))
    assert not unreachable(Unavailable("my database", id="greeter"))
    for error in (Timeout(), InternalServerError(), BadRequest(), ValueError()):
        assert not unreachable(error)


def test_latency_rises_at_once_and_falls_slowly() -> None:
    calls = Calls(1)
    node, load = make_node(0), calls.load()
    calls.nodes.mark(node, None, 0.1)
    assert load.latency == 0.1
    calls.nodes.mark(node, None, 1.1)
    assert load.latency == 1.1
    calls.clock.now += 10
    calls.nodes.mark(node, None, 0.1)
    assert load.latency == pytest.approx(0.1 + 1.0 / 2.71828, rel=1e-4)
    assert load.marked == calls.clock.now


def test_errors_never_make_a_node_look_fast() -> None:
    calls = Calls(1)
    load = calls.load()
    calls.nodes.mark(make_node(0), None, 0.5)
    calls.clock.now += 60
    calls.nodes.mark(make_node(0), InternalServerError(), 0.001)
    assert load.latency == 0.5
    calls.nodes.mark(make_node(0), Timeout(), 3.0)
    assert load.latency == 3.0
    calls.nodes.mark(make_node(0), None, 0.0)  # nobody measured it
    assert load.latency == 3.0


def test_a_node_is_out_at_once_and_probed_by_one_call() -> None:
    calls = Calls(3)
    calls.fail()
    assert calls.load().errors == 1
    assert calls.give() is None
    assert 0.2 <= calls.until_given() <= 0.55
    assert calls.give() is None  # its one call is under way
    calls.nodes.mark(make_node(0), None, 0.01)
    assert calls.load().errors == 0
    assert calls.give() is not None
    assert calls.give() is not None


def test_a_call_that_was_given_up_says_nothing_but_that_it_took_long() -> None:
    calls = Calls(3)
    calls.nodes.mark(make_node(1), None, 0.5)
    calls.nodes.mark(make_node(1), GaveUp(), 0.001)
    assert calls.load(1).latency == 0.5
    calls.nodes.mark(make_node(1), GaveUp(), 2.0)
    assert calls.load(1).latency == 2.0
    calls.fail()
    for _ in range(5):  # the pause stays as it is, and nobody is let in beside the probe
        assert 0.2 <= calls.until_given() <= 0.56
        calls.nodes.mark(make_node(0), GaveUp(), 0.01)
        assert calls.load().errors == 1
        assert calls.give() is None
    calls.until_given()
    calls.nodes.mark(make_node(0), None, 0.01)
    assert calls.give() is not None


def test_the_pause_doubles_while_probes_fail() -> None:
    calls = Calls(3)
    calls.fail()
    for pause in (0.5, 1, 2, 4, 8, 16, 30, 30):
        assert pause / 2 - 0.06 <= calls.until_given() <= pause + 0.06
        calls.nodes.mark(make_node(0), refused(), 0.01)
    calls.until_given()
    calls.nodes.mark(make_node(0), None, 0.01)
    calls.fail()
    assert calls.until_given() <= 0.55  # forgiven


def test_a_probe_that_times_out_is_no_success() -> None:
    calls = Calls(3)
    calls.fail()
    calls.until_given()
    calls.nodes.mark(make_node(0), Timeout(), 0.01)
    assert calls.give() is None
    assert 0.45 <= calls.until_given() <= 1.06


def test_a_probe_that_lasts_is_followed_by_another() -> None:
    calls = Calls(3)
    calls.fail()
    calls.until_given()  # a stream, say, of which nothing is heard
    assert calls.until_given() <= 0.55


def test_calls_that_were_running_do_not_lengthen_the_pause() -> None:
    calls = Calls(3)
    running = [calls.give() for _ in range(50)]
    for node in running:
        assert node is not None
        calls.nodes.mark(node, ConnectionClosed(), 0.01)
    assert calls.load().errors == 50
    assert calls.until_given() <= 0.55


def test_any_answer_brings_a_node_back() -> None:
    for answer in (None, InternalServerError("a bug", id="greeter")):
        calls = Calls(3)
        running = calls.give()
        calls.fail()
        assert running is not None
        calls.nodes.mark(running, answer, 0.01)
        assert calls.give() is not None


def test_when_all_are_out_all_are_candidates() -> None:
    calls = Calls(3)
    for number in range(3):
        calls.fail(number)
    assert [calls.give(number) is not None for number in range(3)] == [True] * 3
    first = calls.choose()
    assert calls.choose([first.id]).id != first.id


def test_after_an_outage_all_nodes_are_back_soon() -> None:
    calls = Calls(10)
    for _ in range(8):  # the pauses have grown to half a minute
        for number in range(10):
            calls.until_given(number)
            calls.nodes.mark(make_node(number), ConnectionClosed(), 0.01)
    node = calls.give(3)
    assert node is not None
    calls.nodes.mark(node, None, 0.01)
    begun = calls.clock.now
    for number in range(10):
        calls.until_given(number)
        calls.nodes.mark(make_node(number), None, 0.01)
    assert calls.clock.now - begun < 2


def test_few_nodes_are_probed_at_a_time() -> None:
    calls = Calls(100)
    for number in range(50):
        calls.fail(number)
    calls.clock.now += 10
    calls.give(99)
    offered = [load for load in calls.nodes.pool.live if load.errors]
    assert 1 <= len(offered) <= 6


def test_of_a_node_that_left_nothing_is_remembered() -> None:
    calls = Calls(3)
    running = calls.give()
    calls.fail()
    calls.nodes.remove(Record("greeter", nodes=(make_node(0),)))
    calls.nodes.update(Record("greeter", nodes=(make_node(0, "10.0.0.1:80"),)))
    assert running is not None
    calls.nodes.mark(running, ConnectionClosed(), 0.01)  # that was the old process
    assert calls.give() is not None
    assert not calls.nodes.health.out
