"""The parent of workers answers probes for all of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from shoal.options import Options
from shoal.service._health_port import HealthPort, Page
from shoal.service._workers_health import WorkersHealth, merged

ROOT = Path(__file__).parents[2]
WELL = {"/healthz": (200, b'{"status":"ok"}'), "/readyz": (200, b'{"status":"ready"}')}
STUCK = {"/healthz": (503, b'{"status":"blocked"}'), "/readyz": (503, b'{"status":"not ready"}')}


@contextmanager
def workers(*pages: dict[str, tuple[int, bytes]] | None, telemetry: str = "") -> Iterator[str]:
    """Stand for workers with these pages, None for one that has not started; give the port."""
    with ExitStack() as stack:
        addresses = {}
        for number, told in enumerate(pages):
            addresses[number] = ""
            if told is not None:
                made = {
                    path: (lambda answer=answer: Page(*answer)) for path, answer in told.items()
                }
                port = HealthPort(":0", made)
                port.start()
                stack.callback(port.stop)
                addresses[number] = port.address
        health = WorkersHealth(Options(health=":0", telemetry=telemetry), lambda: addresses)
        health.port.start()
        stack.callback(health.port.stop)
        yield health.port.address


def get(address: str, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_one_that_is_ready_is_enough_and_one_that_is_dead_too_many() -> None:
    with workers(WELL, STUCK) as address:
        code, text = get(address, "/readyz")
        assert code == 200
        assert json.loads(text)["workers"] == {
            "0": {"status": "ready"},
            "1": {"status": "not ready"},
        }
        assert get(address, "/healthz")[0] == 503
        assert get(address, "/metrics")[0] == 404


def test_workers_that_start_are_alive_and_not_ready() -> None:
    with workers(None, None) as address:
        code, text = get(address, "/readyz")
        assert code == 503
        assert "not started" in text
        assert get(address, "/healthz")[0] == 200


def test_a_worker_that_cannot_be_asked_is_told() -> None:
    health = WorkersHealth(Options(health=":0"), lambda: {0: "127.0.0.1:1"})
    health.port.start()
    try:
        code, text = get(health.port.address, "/healthz")
    finally:
        health.port.stop()
    assert code == 503
    assert "no answer" in text


PAGE = """# HELP calls_total How many.
# TYPE calls_total counter
calls_total{service="a b{",to="x"} 1.0
calls_total 2.0
# HELP up Whether.
# TYPE up gauge
up 1.0
"""


def test_metrics_of_all_are_one_page_with_a_label() -> None:
    page = merged(iter([(0, PAGE), (1, PAGE)]))
    families = {family.name: family for family in text_string_to_metric_families(page)}
    samples = [(one.labels, one.value) for one in families["calls"].samples]
    assert samples == [
        ({"worker": "0", "service": "a b{", "to": "x"}, 1.0),
        ({"worker": "0"}, 2.0),
        ({"worker": "1", "service": "a b{", "to": "x"}, 1.0),
        ({"worker": "1"}, 2.0),
    ]
    assert page.count("# TYPE up gauge") == 1
    with workers({"/metrics": (200, PAGE.encode())}, None, telemetry="prometheus") as address:
        assert 'up{worker="0"} 1.0' in get(address, "/metrics")[1]


PROGRAM = """
import shoal
service = shoal.Service("greeter", registry="memory", broker="memory", address="127.0.0.1:0")
service.init()
service.run()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_program_with_workers_is_probed_at_one_port() -> None:
    flags = ["--workers=2", "--health_address=:0", "--telemetry=prometheus"]
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *flags],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, text=True, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        address = line.rpartition("http://")[2].strip().removesuffix("/readyz")
        end = time.monotonic() + 60
        told: Any = {}
        while time.monotonic() < end and "not started" in str(told := get(address, "/readyz")):
            time.sleep(0.1)
        assert json.loads(told[1])["workers"] == {
            "0": {"status": "ready"},
            "1": {"status": "ready"},
        }
        assert 'shoal_ready{worker="1"} 1.0' in get(address, "/metrics")[1]
        process.send_signal(signal.SIGTERM)
        _, rest = process.communicate(timeout=60)
        assert process.returncode == 0, rest
    finally:
        process.kill()
        process.communicate()
