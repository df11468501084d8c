"""Log records as JSON, one a line, with the trace they belong to."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

from opentelemetry.sdk.trace import TracerProvider

import shoal
from shoal.telemetry import JsonFormatter
from shoal.testing import serve

ROOT = Path(__file__).parents[2]
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def line(formatter: logging.Formatter, message: str, *args: Any, **more: Any) -> dict[str, Any]:
    record = logging.getLogger("app").makeRecord(
        "app", logging.INFO, __file__, 1, message, args, more.pop("exc_info", None), extra=more
    )
    text = formatter.format(record)
    assert "\n" not in text
    told: dict[str, Any] = json.loads(text)
    return told


def test_a_line_says_what_when_who_and_more() -> None:
    told = line(JsonFormatter({"service": "greeter"}), "paid %d", 7, user="anna", items=[1, {2}])
    assert told["message"] == "paid 7"
    assert told["level"] == "info"
    assert told["logger"] == "app"
    assert told["service"] == "greeter"
    assert told["user"] == "anna"
    assert told["items"] == [1, [2]]
    assert told["time"].endswith("Z")
    assert "trace_id" not in told
    assert set(told) == {*"message level logger service user items time".split()}


def test_an_error_is_one_line_too() -> None:
    try:
        raise ValueError("no\nway")
    except ValueError:
        told = line(JsonFormatter(), "failed", exc_info=sys.exc_info())
    assert "ValueError: no\nway" in told["error"]


def test_what_json_cannot_hold_is_a_text() -> None:
    told = line(JsonFormatter(), "\ud800 lone", keys={(1, 2): object}, message_id=1)
    assert told["message"] == "? lone"
    assert "(1, 2)" in str(told["keys"])


def test_extra_does_not_overwrite_what_a_line_is() -> None:
    assert line(JsonFormatter({"service": "a"}), "x", service="b", level="loud")["service"] == "a"
    assert line(JsonFormatter(), "x", level="loud")["level"] == "info"


def test_the_span_that_runs_is_named() -> None:
    with TracerProvider().get_tracer("test").start_as_current_span("work") as span:
        told = line(JsonFormatter(), "x")
    context = span.get_span_context()
    assert told["trace_id"] == f"{context.trace_id:032x}"
    assert told["span_id"] == f"{context.span_id:016x}"


async def test_without_a_span_it_is_the_trace_a_request_came_with() -> None:
    class Logs:
        async def write(self) -> dict[str, str]:
            return line(JsonFormatter(), "x")

    async with serve(Logs()) as client:
        logs = shoal.stub(Logs, "logs", client)
        with shoal.with_metadata(traceparent=f"00-{TRACE}-{SPAN}-01"):
            told = await logs.write()
        assert (told["trace_id"], told["span_id"]) == (TRACE, SPAN)
        with shoal.with_metadata(micro_trace_id="go-trace"):
            assert (await logs.write())["trace_id"] == "go-trace"
        with shoal.with_metadata(traceparent="00-nonsense"):
            assert "trace_id" not in await logs.write()


def test_a_service_writes_its_log_so_when_told() -> None:
    program = (
        "import shoal, os, signal, threading;"
        "s = shoal.Service('greeter', registry='memory', broker='memory', address='127.0.0.1:0');"
        "s.init();"
        "threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGTERM)).start();"
        "s.run()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "--log_format=json", "--telemetry=otel"],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    lines = [json.loads(text) for text in done.stderr.splitlines()]
    assert any(one["message"].startswith("Transport [http] listening") for one in lines)
    assert all(one["service"] == "greeter" for one in lines)
    assert lines[-1]["node"].startswith("greeter-")
