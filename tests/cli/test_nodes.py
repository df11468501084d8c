"""Health and statistics of every node: those that answer, cannot tell, are ill or gone."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from .conftest import Greeter, Invoke


class _GoMicro(BaseHTTPRequestHandler):
    """Answers as Go Micro v6 does when it has no Debug handler, and as one that is stopping."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        body = b""
        if self.headers["Micro-Service"] == "stopping":
            body = b'{"status":"stopping"}'
        else:
            self.send_header("Micro-Error", "rpc: can't find service Debug")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def go() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _GoMicro)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def fleet(greeter: Greeter, go: str, tmp_path: Path) -> Iterator[list[str]]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        nobody = f"127.0.0.1:{free.getsockname()[1]}"
    with socket.create_server(("127.0.0.1", 0)) as silent:
        addresses = {
            "well": [greeter.address],
            "go": [go],
            "stopping": [go],
            "gone": [greeter.address, nobody],
            "silent": [f"127.0.0.1:{silent.getsockname()[1]}"],
            "grpc": [nobody],
            "legacy": [greeter.address],
            "micro.http.broker": [nobody],
        }
        protocols = {"grpc": {"protocol": "grpc"}, "legacy": {"transport": "http"}}
        records = [
            {
                "name": name,
                "version": "1",
                "nodes": [
                    {
                        "id": f"{name}-{number}",
                        "address": address,
                        "metadata": protocols.get(name, {"protocol": "mucp"}),
                    }
                    for number, address in enumerate(nodes)
                ],
            }
            for name, nodes in addresses.items()
        ]
        path = tmp_path / "records.json"
        path.write_text(json.dumps(records))
        yield ["--registry", "static", "--registry-address", str(path)]


@pytest.mark.parametrize(
    ("name", "status", "detail", "code"),
    [
        ("well", "ok", "", 0),
        ("legacy", "ok", "", 0),
        ("go", "unknown", "no Debug handler", 0),
        ("grpc", "unknown", "it speaks grpc", 0),
        ("stopping", "stopping", "", 1),
        ("silent", "dead", "no answer within 0.3 s", 1),
    ],
)
def test_what_a_node_says(
    invoke: Invoke, fleet: list[str], name: str, status: str, detail: str, code: int
) -> None:
    result = invoke(*fleet, "health", name, "--timeout", "300ms", "--json")
    (node,) = json.loads(result.stdout)
    assert (node["service"], node["version"], node["node"]) == (name, "1", f"{name}-0")
    assert (node["status"], node["detail"], result.exit_code) == (status, detail, code)


def test_who_cannot_tell_is_ill_if_one_is_strict(invoke: Invoke, fleet: list[str]) -> None:
    assert invoke(*fleet, "health", "go", "--strict").exit_code == 1
    assert invoke(*fleet, "health", "well", "--strict").exit_code == 0


def test_every_node_is_asked_by_its_own_address(
    invoke: Invoke, fleet: list[str], greeter: Greeter
) -> None:
    result = invoke(*fleet, "health", "gone")
    header, first, second = result.stdout.splitlines()
    assert header.split() == ["SERVICE", "NODE", "ADDRESS", "STATUS"]
    assert first.split() == ["gone", "gone-0", greeter.address, "ok"]
    assert second.split()[:2] == ["gone", "gone-1"]
    assert "dead: gone: cannot connect to 127.0.0.1:" in second
    assert result.exit_code == 1


def test_all_services_are_asked_if_none_is_named(invoke: Invoke, fleet: list[str]) -> None:
    result = invoke(*fleet, "health", "--timeout", "300ms", "--json")
    services = [node["service"] for node in json.loads(result.stdout)]
    assert services == ["go", "gone", "gone", "grpc", "legacy", "silent", "stopping", "well"]
    assert result.exit_code == 1


def test_a_service_nobody_runs(invoke: Invoke, fleet: list[str]) -> None:
    for command in ("health", "stats"):
        result = invoke(*fleet, command, "wel")
        assert result.exit_code == 3
        assert "did you mean 'well'?" in result.stderr


def test_statistics(invoke: Invoke, fleet: list[str], greeter: Greeter) -> None:
    result = invoke(*fleet, "stats", "gone", "--json")
    well, dead = json.loads(result.stdout)
    assert well["address"] == greeter.address
    assert well["stats"]["started"] > 0
    assert {"uptime", "memory", "threads", "gc", "requests", "errors"} <= set(well["stats"])
    assert "state" not in well["stats"]  # of one that may be Go Micro's it is not asked
    assert (dead["status"], dead["stats"]) == ("dead", None)
    assert result.exit_code == 1
    header, row = invoke(*fleet, "stats", "well").stdout.splitlines()
    assert header.split() == (
        "NODE ADDRESS STARTED UPTIME MEMORY THREADS GC REQUESTS ERRORS".split()
    )
    assert " MB " in row
    assert "unknown: no Debug handler" in invoke(*fleet, "stats", "go").stdout


def test_the_state_of_our_own_nodes(invoke: Invoke, tmp_path: Path, greeter: Greeter) -> None:
    metadata = {"protocol": "mucp", "transport": "http", "shoal": "1"}
    node = {"id": "well-1", "address": greeter.address, "metadata": metadata}
    records = tmp_path / "records.json"
    records.write_text(json.dumps([{"name": "well", "version": "1", "nodes": [node]}]))
    result = invoke("--registry", f"static://{records}", "stats", "well", "--json")
    (well,) = json.loads(result.stdout)
    assert well["stats"]["state"]["part_well{part=registration}"] == "1"
    assert well["stats"]["ready"] == "ready"
