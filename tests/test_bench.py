"""Tests of the benchmarks, in so far as they need no server, and no peers but small ones."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from bench import __main__ as calls
from bench import _command, _process, peers, streams
from bench import load as call_load
from bench.brokers import BROKERS, SERVERS, load
from bench.streams import __main__ as stream_figures

ROOT = Path(__file__).parents[1]


def test_events_have_100_bytes() -> None:
    assert {len(load.body(number)) for number in (0, 1, 999_999)} == {100}
    assert load.number(load.body(12345)) == 12345


def test_brokers_with_a_server_are_compared_with_the_bare_library() -> None:
    for name in SERVERS:
        assert {"shoal", "shoal-service", "bare", "faststream"} <= BROKERS[name].keys()


async def test_a_window_publishes_until_all_was_handled() -> None:
    window = load.Window()
    loop = asyncio.get_running_loop()
    most = 0
    running: set[int] = set()

    def take(number: int) -> None:
        running.discard(number)
        window.take(number)
        window.take(number)  # a duplicate does not count

    async def publish(number: int) -> None:
        nonlocal most
        running.add(number)
        most = max(most, len(running))
        loop.call_soon(take, number)

    async with asyncio.timeout(30):
        for in_flight, limit in (1, 1), (8, 32):
            most = 0
            await window.run(publish, in_flight, 0.05)
            assert 0 < most <= limit
            assert not running


def test_a_command_line_takes_names_in_both_spellings() -> None:
    parser = _command.parser("bench", "", ["grpc_aio", "shoal-http"])
    assert parser.parse_args(["--only", "shoal_http,grpc-aio"]).only == ["shoal-http", "grpc_aio"]
    for words in ("--only", "nobody"), ("--seconds", "0"), ("--rounds", "-1"), ("--rounds", "x"):
        with pytest.raises(SystemExit):
            parser.parse_args(words)


def test_who_crashes_is_left_out_of_later_rounds() -> None:
    asked: list[str] = []

    def measure(name: str) -> None:
        asked.append(name)
        if name == "bad":
            raise _process.Crashed("its last words")

    assert _command.turns(["bad", "good"], 2, measure) == {"bad": "its last words"}
    assert asked == ["bad", "good", "good"]


def test_lines_that_come_together_are_read_one_by_one() -> None:
    with _process.run([sys.executable, "-c", "print('one\\ntwo')"], None) as program:
        assert [program.line(30.0), program.line(30.0)] == ["one", "two"]
        with pytest.raises(_process.Crashed, match="exit status 0"):
            program.line(30.0)


def test_the_name_has_the_length_that_is_asked_for() -> None:
    assert calls.parse([]).body == peers.BODY
    assert call_load.name(peers.BODY) == "John Smith"
    assert len(call_load.name(10_240)) == 10_240


def test_streams_are_measured_from_the_first_mark_to_the_last() -> None:
    marks = [
        stream_figures.Mark(items, time, cpu, memory << 20, last, cpu, memory << 21)
        for items, time, cpu, memory, last in (
            (10, 1.0, 0.5, 20, False),
            (30, 1.2, 0.6, 30, False),
            (105, 2.0, 0.9, 31, False),
            (110, 3.0, 1.0, 25, True),
        )
    ]
    assert stream_figures.figures(marks) == pytest.approx(
        {
            "rps": 50.0,
            "client_cpu_us": 5000.0,
            "server_cpu_us": 5000.0,
            "client_growth_mib": 1.0,
            "server_growth_mib": 2.0,
        }
    )


async def run(tmp_path: Path, *words: str) -> dict[str, Any]:
    path = tmp_path / "result.json"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", *words, "--seconds", "0.1", "--rounds", "1", "--json", str(path),
        cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    try:
        async with asyncio.timeout(100):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == 0, output.decode()
    result: dict[str, Any] = json.loads(path.read_text())
    return result


async def test_brokers(tmp_path: Path) -> None:
    pytest.importorskip("uvloop")
    result = await run(tmp_path, "bench.brokers", "--only", "memory,http")
    for broker in ("memory", "http"):
        for peer in ("shoal", "shoal-service"):
            for cell in ("c1", "c64"):
                assert result["brokers"][broker][peer][cell]["rps"] > 0
    assert not result["failed"]


async def test_selectors(tmp_path: Path) -> None:
    pytest.importorskip("uvloop")
    result = await run(tmp_path, "bench.registries", "--only", "consistent_hash")
    figures = result["selectors"]["consistent_hash"]
    assert figures["choice_10000_us"] > 0
    # A tenth is far more than it takes, and far less than making the ring anew.
    assert figures["update_ratio"] < 0.1


async def test_calls(tmp_path: Path) -> None:
    words = ("--only", "shoal-http,probe_tcp", "--body", "1000", "--loop", "asyncio")
    result = await run(tmp_path, "bench", *words)
    for peer in ("shoal-http", "probe_tcp"):
        for cell in ("c1", "c16", "c64"):
            assert result["calls"][peer][cell]["rps"] > 0
    assert (result["environment"]["body"], result["environment"]["loop"]) == (1000, "asyncio")
    assert not result["failed"]


async def test_streams(tmp_path: Path) -> None:
    chosen = {"grpc_aio", "shoal-native", streams.BARE}
    result = await run(tmp_path, "bench.streams", "--only", ",".join(chosen))
    for peer in chosen - set(result["skipped"]):  # grpcio may not be here
        for cell in streams.cells(peer):
            assert result["streams"][peer][cell]["rps"] > 0
    assert result["ratios_to_bare"]["shoal-native"].keys() == {streams.LARGE}
    assert not result["failed"]


async def test_calls_within_a_process(tmp_path: Path) -> None:
    result = await run(tmp_path, "bench.inprocess")
    for transport in ("memory", "http", "native"):
        for cell in ("c1", "c16"):
            assert result["ratios"][transport][cell] > 0


async def test_workers(tmp_path: Path) -> None:
    result = await run(tmp_path, "bench.workers")
    assert result["ratios"]["1"] == 1
    assert all(found["rps"] > 0 for found in result["workers"].values())
    assert not result["failed"]
