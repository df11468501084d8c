"""What is registered, for people and for programs, from Shoal, Go Micro and worse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from .conftest import Greeter, Invoke, shoal_process

STRING = {"name": "name", "type": "string", "values": None}
RECORDS: list[dict[str, Any]] = [
    {
        "name": "go.greeter",
        "version": "1.2.0",
        "metadata": None,
        "endpoints": [
            {
                "name": "Greeter.Hello",
                "request": {"name": "Request", "type": "Request", "values": [STRING]},
                "response": None,
                "metadata": {"description": "Says hello.", "scopes": "a,b"},
            },
            {
                "name": "Greeter.Count",
                "request": {"name": "Context", "type": "Context", "values": None},
                "response": {"name": "Stream", "type": "Stream", "values": None},
                "metadata": {"stream": "true"},
            },
            {
                "name": "Greeter.Heard",
                "request": {"name": "E", "type": "E", "values": [{"name": "m", "type": ""}]},
                "response": None,
                "metadata": {"topic": "news", "subscriber": "true"},
            },
        ],
        "nodes": [{"id": "go-1", "address": "10.0.0.5:8080", "metadata": {"protocol": "mucp"}}],
    },
    {
        "name": "go.greeter",
        "version": "1.3.0",
        "endpoints": None,
        "nodes": [{"id": "go-2", "address": "10.0.0.6:8080", "metadata": {"protocol": "grpc"}}],
    },
    *(
        {"name": name, "nodes": [{"id": name, "address": "10.0.0.7:1"}]}
        for name in ("micro.http.broker", "go.micro.http.broker", "topic:news", "bad\x1b[31m")
    ),
]
DESCRIBED = """\
go.greeter

version 1.2.0

  ID    ADDRESS        METADATA
  go-1  10.0.0.5:8080  protocol=mucp

  Greeter.Hello
    Says hello.
    request  Request {name string}
    metadata scopes=a,b

  Greeter.Count (stream)

  Greeter.Heard (subscriber of news)
    request  E {m any}

version 1.3.0

  ID    ADDRESS        METADATA
  go-2  10.0.0.6:8080  protocol=grpc
"""


@pytest.fixture
def records(tmp_path: Path) -> list[str]:
    path = tmp_path / "records.json"
    path.write_text(json.dumps(RECORDS))
    return ["--registry", "static", "--registry-address", str(path)]


def test_services_are_sorted_and_without_bookkeeping(invoke: Invoke, records: list[str]) -> None:
    assert invoke(*records, "services").stdout == "bad\\x1b[31m\ngo.greeter\n"
    assert json.loads(invoke(*records, "services", "--json").stdout) == [
        "bad\x1b[31m",
        "go.greeter",
    ]
    everything = json.loads(invoke(*records, "services", "--all", "--json").stdout)
    assert everything == sorted({record["name"] for record in RECORDS})


def test_a_service_is_described(invoke: Invoke, records: list[str]) -> None:
    assert invoke(*records, "describe", "go.greeter").stdout == DESCRIBED
    assert invoke(*records, "get", "service", "go.greeter").stdout == DESCRIBED


def test_json_has_the_form_of_go(invoke: Invoke, records: list[str]) -> None:
    first, second = json.loads(invoke(*records, "describe", "go.greeter", "--json").stdout)
    assert first["endpoints"][0] == RECORDS[0]["endpoints"][0]
    assert first["nodes"] == RECORDS[0]["nodes"]
    assert (second["version"], second["endpoints"], second["metadata"]) == ("1.3.0", [], {})


def test_fields_that_do_not_fit_have_lines_of_their_own(invoke: Invoke, tmp_path: Path) -> None:
    many = [{"name": f"a_long_name_{n}", "type": "string", "values": None} for n in range(4)]
    inner = {"name": "inner", "type": "Inner", "values": many}
    request = {"name": "R", "type": "R", "values": [STRING, inner]}
    endpoint = {"name": "A.B", "request": request, "response": None}
    node = {"id": "n", "address": "1.2.3.4:5", "metadata": {"a": "b"}}
    path = tmp_path / "records.json"
    path.write_text(json.dumps([{"name": "a", "endpoints": [endpoint], "nodes": [node]}]))
    shown = invoke("--registry", f"static://{path}", "describe", "a").stdout
    assert shown.endswith(
        "    request  R {\n"
        "               name string\n"
        "               inner Inner {\n"
        + "".join(f"                 a_long_name_{n} string\n" for n in range(4))
        + "               }\n"
        "             }\n"
    )


def test_an_unknown_name_gets_the_nearest(invoke: Invoke, records: list[str]) -> None:
    for name, hint in (("go.greter", "did you mean 'go.greeter'?"), ("x", "`shoal services`")):
        result = invoke(*records, "describe", name)
        assert result.exit_code == 3
        assert f"there is no service {name!r} in the registry static: {hint}" in result.stderr


def test_a_registry_that_is_silent_has_a_limit(invoke: Invoke, greeter: Greeter) -> None:
    """mdns gathers answers for longer than this limit."""
    result = invoke("services", "--client_request_timeout", "20ms")
    assert result.exit_code == 5
    assert "the registry mdns did not answer within 0.02 s" in result.stderr


def test_mdns_finds_the_service(greeter: Greeter) -> None:
    assert greeter.name in shoal_process("services").stdout.splitlines()
    done = shoal_process("describe", greeter.name)
    assert greeter.address in done.stdout
    assert "zone=b" in done.stdout
    assert "  Greeter.Hello\n    Greet somebody by name.\n    request  Hello {" in done.stdout
    assert "  heard (subscriber of counts)\n" in done.stdout
