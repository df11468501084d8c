"""Every promise of docs/reliability.md, in a run small enough for the suite."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROMISES = sorted(path.stem for path in (ROOT / "bench" / "reliability").glob("promise_*.py"))
DEADLINE = 170.0  # seconds; they take about ten


@pytest.mark.parametrize("promise", PROMISES)
def test_a_promise_is_kept(promise: str) -> None:
    """In a process of its own, as `make reliability` runs it: its children end with it."""
    number = promise.split("_")[1].lstrip("0")
    done = subprocess.run(
        [sys.executable, "-m", "bench.reliability", "--only", number, "--scale", "0.05"],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=DEADLINE, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
