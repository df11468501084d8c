"""Tests of the benchmarks of brokers and registries, in so far as they need no server."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.brokers import BROKERS, SERVERS, load

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
