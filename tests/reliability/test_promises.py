"""Every promise of docs/reliability.md, in a run small enough for the suite."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROMISES = sorted(path.stem for path in (ROOT / "bench" / "reliability").glob("promise_*.py"))
DEADLINE = 300.0  # seconds for one on a busy machine; they take ten to thirty
AT_ONCE = 2  # they mostly wait

Runs = dict[str, Future["subprocess.CompletedProcess[str]"]]


@pytest.fixture(scope="module")
def runs(request: pytest.FixtureRequest) -> Iterator[Runs]:
    """Run the chosen ones, each as `make reliability` does: its children end with it."""
    chosen = dict.fromkeys(
        str(item.callspec.params["promise"])
        for item in request.session.items
        if isinstance(item, pytest.Function) and item.path == Path(__file__)
    )
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {promise: pool.submit(prove, promise) for promise in chosen}
        pool.shutdown(cancel_futures=True)


def prove(promise: str) -> subprocess.CompletedProcess[str]:
    number = promise.split("_")[1].lstrip("0")
    return subprocess.run(
        [sys.executable, "-m", "bench.reliability", "--only", number, "--scale", "0.05"],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=DEADLINE, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("promise", PROMISES)
def test_a_promise_is_kept(promise: str, runs: Runs) -> None:
    """One that is not kept while others have the machine is proved once more, by itself."""
    done = runs[promise].result()
    if done.returncode != 0:
        for run in runs.values():
            run.result()
        print(f"{done.stdout}\n{done.stderr}")
        done = prove(promise)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("promise", PROMISES)
def test_nothing_of_it_is_left_out(promise: str, runs: Runs) -> None:
    """Skipped with the reason where this machine cannot run a part of the proof."""
    lines = runs[promise].result().stdout.splitlines()
    skipped = [line.strip().removeprefix("skip  ") for line in lines if line.startswith("  skip")]
    if skipped:
        pytest.skip("; ".join(skipped))
