"""The same commands against services of Go Micro."""

from __future__ import annotations

import json
import re
import subprocess
import uuid
from collections.abc import Iterator

import pytest

from tests.interop import peers
from tests.interop.conftest import need

from .conftest import Invoke, environment, running, shoal_process

pytestmark = pytest.mark.interop

Service = tuple[str, str]  # its name and address


@pytest.fixture(scope="module", params=peers.VERSIONS)
def go(request: pytest.FixtureRequest) -> Iterator[Service]:
    """A Go service that is found by mdns."""
    program, name = need(request.param), f"go-{uuid.uuid4().hex[:10]}"
    with subprocess.Popen(
        [program, "serve", "--name", name, "--address", "127.0.0.1:0"],
        env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        try:
            yield name, json.loads(process.stdout.readline())["address"]
        finally:
            process.kill()


def test_it_is_found_and_described(go: Service) -> None:
    name, address = go
    assert name in shoal_process("services").stdout.splitlines()
    text = shoal_process("describe", name).stdout
    assert address in text
    assert "  Greeter.Hello\n    request  HelloRequest {name string}\n" in text
    assert "  Greeter.Count (stream)\n" in text
    (record,) = json.loads(shoal_process("describe", name, "--json").stdout)
    assert record["name"] == name
    assert record["nodes"][0]["metadata"]["protocol"] == "mucp"


def test_it_is_called(go: Service) -> None:
    name, _ = go
    done = shoal_process("call", name, "Greeter.Hello", '{"name":"John"}')
    assert json.loads(done.stdout) == {"greeting": "Hello John"}
    meta = json.loads(shoal_process("call", name, "Greeter.Meta", "-m", "Who=me").stdout)
    assert meta["header"]["Who"] == "me"


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["Greeter.Fail", '{"id":"x","code":409,"detail":"d"}'], 4, ": d (409 Conflict from x)"),
        (["Greeter.Fail", '{"id":"x","code":503,"detail":"d"}'], 4, ": d (503 Service Unavail"),
        (["Greeter.Plain", '{"text":"plainly wrong"}'], 4, ": plainly wrong"),
        (["Greeter.Helo"], 3, "has no endpoint 'Greeter.Helo': did you mean Greeter.Hello?"),
        (["Greeter.Slow", '{"ms":60000}', "--timeout", "300ms"], None, ""),
    ],
)
def test_its_errors(
    invoke: Invoke, go: Service, arguments: list[str], code: int | None, sentence: str
) -> None:
    result = invoke("call", go[0], *arguments)
    assert sentence in result.stderr
    if code is None:  # the handler sees its deadline and answers, or the caller sees it first
        assert result.exit_code in {0, 5}
    else:
        assert result.exit_code == code


def test_its_streams(invoke: Invoke, go: Service) -> None:
    name, _ = go
    result = invoke("stream", name, "Greeter.Count", '{"n":3}')
    assert (result.exit_code, result.stdout) == (0, '{"i":0}\n{"i":1}\n{"i":2}\n')
    items = ['{"n":1}', '{"n":2,"last":true}']
    assert invoke("stream", name, "Greeter.Sum", *items).stdout == '{"total":3}\n'
    chat = shoal_process(
        "stream", name, "Greeter.Chat", "-", "--idle", "300ms", stdin='{"name":"a"}\n{"name":"b"}'
    )
    assert chat.stdout == '{"greeting":"Hello a"}\n{"greeting":"Hello b"}\n'
    assert chat.returncode == 0
    failed = invoke("stream", name, "Greeter.StreamFail", '{"id":"x","code":409,"detail":"d"}')
    assert failed.exit_code == 4
    assert "d (409 Conflict from x)" in failed.stderr


def test_its_health(invoke: Invoke, go: Service) -> None:
    """From v4.8 on a Go service has no Debug handler."""
    name, address = go
    result = invoke("health", name, "--json")
    (node,) = json.loads(result.stdout)
    assert node["address"] == address
    assert (node["status"], node["detail"]) in {("ok", ""), ("unknown", "no Debug handler")}
    assert result.exit_code == 0
    assert invoke("stats", name).exit_code == 0


@pytest.mark.parametrize("go", [one for one in peers.VERSIONS if one != "v1"], indirect=True)
def test_events_both_ways(go: Service, request: pytest.FixtureRequest) -> None:
    """Not v1: its broker has another name in the registry, which a fleet must be told of."""
    version = request.node.callspec.params["go"]
    topic = f"go-{uuid.uuid4().hex[:10]}"
    program = str(peers.build(version))
    with running("-m", "shoal", "subscribe", topic, "--count", "1") as run:
        run.expect("subscribed")
        subprocess.run(
            [program, "publish", "--topic", topic, "--json", '{"a":1}'],
            env=environment(), capture_output=True, timeout=30, check=True,
        )  # fmt: skip
        run.expect(r"^\{")
        assert run.process.wait(30) == 0
    assert run.lines[1:] == ['{"a":1}']
    with subprocess.Popen(
        [program, "subscribe", "--topic", topic],
        env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        try:
            process.stdout.readline()  # ready
            assert shoal_process("publish", topic, '{"b":2}').returncode == 0
            assert re.search(r'"b\\?":2', process.stdout.readline())
        finally:
            process.kill()
