"""Tests of log lines about what strangers send."""

from __future__ import annotations

import asyncio
import logging

import pytest

from shoal.registry._complaints import Complaints


async def test_a_flood_is_one_line_a_minute(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    complaints = Complaints(logging.getLogger("shoal.test"))
    loop = asyncio.get_running_loop()
    now = 100.0
    with monkeypatch.context() as patched:
        patched.setattr(loop, "time", lambda: now)
        for _ in range(1000):
            complaints.add(ValueError("bad\nline " + "x" * 5000), ("10.0.0.1", 5353))
        now += 61
        complaints.add(ValueError("again"), ("10.0.0.2", 5353))
    first, second = (record.getMessage() for record in caplog.records)
    assert "dropped 1 bad packets" in first
    assert "\n" not in first
    assert len(first) < 400
    assert "dropped 1000 bad packets" in second
    assert "again" in second
