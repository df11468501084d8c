"""Events published and printed from the command line, over the broker that needs no server."""

from __future__ import annotations

import json
import signal
import uuid

from .conftest import Invoke, running, shoal_process


def test_events_are_printed_as_they_come() -> None:
    topic = f"cli-{uuid.uuid4().hex[:10]}"
    with (
        running("-m", "shoal", "subscribe", topic, "--count", "2") as lines,
        running("-m", "shoal", "subscribe", topic, "--json", "--queue", "q") as documents,
        running("-m", "shoal", "subscribe", topic, "--header") as headers,
    ):
        for run in (lines, documents, headers):
            run.expect(rf"^shoal: subscribed to {topic} \(broker http at \S+:\d+\)$")
        for event in ('{"a": 1.50}', '["é"]'):
            done = shoal_process("publish", topic, event, "-m", "Who=me")
            assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        lines.expect(r"^\[\"é\"\]$")
        assert lines.process.wait(30) == 0
        documents.expect(r"é")
        headers.expect(r"^\[\"é\"\]$")
        assert documents.end(signal.SIGTERM) == 143
        assert headers.end(signal.SIGINT) == 130
    assert lines.lines[1:] == ['{"a":1.50}', '["é"]']
    first, second = (json.loads(line) for line in documents.lines[1:])
    assert (first["topic"], first["encoding"], first["body"]) == (topic, "json", {"a": 1.5})
    assert first["header"]["Who"] == "me"
    assert second["body"] == ["é"]
    assert "Who: me" in headers.lines
    assert f"Micro-Topic: {topic}" in headers.lines


def test_nothing_came_in_time(invoke: Invoke) -> None:
    result = invoke("--broker", "memory", "subscribe", "silence", "--timeout", "50ms")
    assert result.exit_code == 5
    assert "shoal: 0 events of silence came within 0.05 s\n" in result.stderr


def test_what_is_published_must_be_json(invoke: Invoke) -> None:
    result = invoke("--broker", "memory", "publish", "news", "plain", "words")
    assert result.exit_code == 2
    assert "plain words is no JSON" in result.stderr
