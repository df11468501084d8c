"""Every example runs as its README says, and prints what it says it does."""

from __future__ import annotations

import contextlib
import os
import queue
import re
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.servers import Background, need
from tests.servers.etcd import EtcdServer
from tests.servers.nats import NatsServer

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
FOLDERS = sorted(path.name for path in EXAMPLES.iterdir() if (path / "client.py").exists())
LIMIT = 60.0  # seconds that a slow machine may take

# An outsider's registry, chosen by its entry point: mdns in a domain that is this run's own.
ISOLATED = '''"""Module isolated is mdns among those who know its address."""

from shoal.registry.mdns import MdnsRegistry


class IsolatedRegistry(MdnsRegistry):
    def __init__(self, address: str = "") -> None:
        super().__init__(domain=address, timeout=0.5)  # a busy machine answers late
'''


@pytest.fixture
def environment(tmp_path: Path) -> Mapping[str, str]:
    """Return the environment of programs that see each other and nobody else's."""
    (tmp_path / "isolated.py").write_text(ISOLATED)
    installed = tmp_path / "isolated-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: isolated\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text(
        "[shoal.registry]\nisolated = isolated:IsolatedRegistry\n"
    )
    return {
        **_environment(str(tmp_path)),
        "MICRO_REGISTRY": f"isolated://t{uuid.uuid4().hex[:12]}",
    }


def _environment(*paths: str) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MICRO_")}
    return {
        **clean,
        "PYTHONPATH": os.pathsep.join([*paths, str(ROOT)]),
        "PYTHONUNBUFFERED": "1",
        "MICRO_SERVER_ADDRESS": "127.0.0.1:0",
    }


class Program:
    """A service that runs, and the lines it has printed."""

    def __init__(self, folder: str, words: list[str], environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, *words],
            cwd=EXAMPLES / folder, env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._seen: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line.rstrip("\n"))
        self._lines.put(None)

    def wait_for(self, text: str, times: int = 1) -> None:
        """Wait until lines with the text have been printed."""
        end = time.monotonic() + LIMIT
        while sum(text in line for line in self._seen) < times:
            line = self._lines.get(timeout=max(0.0, end - time.monotonic()))
            assert line is not None, "\n".join(
                [f"it ended before it printed {text!r}", *self._seen]
            )
            self._seen.append(line)

    def stop(self) -> tuple[int, list[str]]:
        """Ask it to end, and return its exit code and the lines that it printed itself."""
        self._process.terminate()
        code = self._process.wait(LIMIT)
        self._reader.join(LIMIT)
        while (line := self._lines.get(timeout=LIMIT)) is not None:
            self._seen.append(line)
        logged = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (INFO|WARNING) ")
        return code, [line for line in self._seen if not logged.match(line)]

    def kill(self) -> None:
        """End it whatever it does."""
        self._process.kill()
        self._process.wait(LIMIT)
        self._reader.join(LIMIT)
        assert self._process.stdout is not None
        self._process.stdout.close()


@contextlib.contextmanager
def running(
    folder: str, *words: str, environment: Mapping[str, str], nodes: int = 1
) -> Iterator[Program]:
    """Run a server of an example; it is killed at the end in any case."""
    program = Program(folder, list(words), environment)
    try:
        program.wait_for("Others reach it at", nodes)
        yield program
    finally:
        program.kill()


def output(folder: str, *words: str, environment: Mapping[str, str]) -> list[str]:
    """Run a client of an example and return its lines."""
    done = subprocess.run(
        [sys.executable, *words],
        cwd=EXAMPLES / folder, env=environment, text=True, timeout=LIMIT,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return done.stdout.splitlines()


def test_greeter_on_the_network_of_everybody() -> None:
    """With no setting at all: as the README has it, over mdns."""
    environment = _environment()
    with running("greeter", "server.py", environment=environment) as server:
        end = time.monotonic() + LIMIT
        while True:
            try:
                lines = output("greeter", "client.py", environment=environment)
            except AssertionError as error:
                # A look-up takes a tenth of a second, in which a busy machine may not answer.
                if "ServiceNotFound" not in str(error) or time.monotonic() > end:
                    raise
            else:
                break
        assert lines == ["Hello John", "refused: a name is needed"]
        assert server.stop() == (0, [])


def test_greeter(environment: Mapping[str, str]) -> None:
    with running("greeter", "server.py", environment=environment):
        assert output("greeter", "client.py", environment=environment) == [
            "Hello John",
            "refused: a name is needed",
        ]


def test_a_service_nobody_runs(environment: Mapping[str, str]) -> None:
    with pytest.raises(AssertionError, match="ServiceNotFound"):
        output("greeter", "client.py", environment=environment)


def test_plain(environment: Mapping[str, str]) -> None:
    with running("plain", "server.py", environment=environment) as server:
        assert output("plain", "client.py", environment=environment) == [
            "1 + 2 is 3",
            "refused by calculator: nothing can be divided by zero",
            "not found: rpc: can't find method Multiply",
        ]
        assert server.stop() == (0, [])


def test_streaming(environment: Mapping[str, str]) -> None:
    with running("streaming", "server.py", environment=environment) as server:
        assert output("streaming", "client.py", environment=environment) == [
            "count: 6",
            "split: to",
            "split: be",
            "total: 6",
            "shout: TO BE",
            "shout: OR NOT TO BE",
        ]
        assert server.stop() == (0, [])


def test_events(environment: Mapping[str, str]) -> None:
    orders = {"order 1: bread", "order 2: butter", "order 3: salt", "order 4: tea"}
    with (
        running("events", "subscriber.py", environment=environment) as one,
        running("events", "subscriber.py", environment=environment) as other,
    ):
        assert output("events", "publisher.py", environment=environment) == [
            f"published order {id}" for id in range(1, 5)
        ]
        for program in (one, other):
            for order in orders:
                program.wait_for(order)
        (code, lines), (other_code, other_lines) = one.stop(), other.stop()
    assert code == other_code == 0
    assert {line for line in lines if line.startswith("order")} == orders
    assert {line for line in other_lines if line.startswith("order")} == orders
    mails = [line for line in lines + other_lines if line.startswith("mail")]
    assert sorted(mails) == [f"mail about order {id}" for id in range(1, 5)]


def test_middleware(environment: Mapping[str, str]) -> None:
    with running("middleware", "server.py", environment=environment) as server:
        assert output("middleware", "client.py", environment=environment) == [
            "401 Unauthorized: say the word",
            "Hello stranger",
            "Hello John",
        ]
        code, lines = server.stop()
    assert code == 0
    assert [re.sub(r"\d+\.\d", "N", line) for line in lines] == ["Greeter.Hello took N ms"] * 3


def test_selector(environment: Mapping[str, str]) -> None:
    with contextlib.ExitStack() as stack:
        for version, zone in (("1.0.0", "a"), ("2.0.0", "a"), ("2.0.0", "b")):
            flags = ("--server_version", version, "--server_metadata", f"zone={zone}")
            stack.enter_context(running("selector", "server.py", *flags, environment=environment))
        lines = output("selector", "client.py", environment=environment)
    assert lines[:-1] == [
        "version 1.0.0 in zone a",
        "version 2.0.0 in zone b",
        "in turn:",
        *["  version 1.0.0 in zone a"] * 2,
        *["  version 2.0.0 in zone a"] * 2,
        *["  version 2.0.0 in zone b"] * 2,
        "nodes that John's calls went to: 1",
    ]
    assert lines[-1].startswith("version 3.0.0: ")


def test_protobuf(environment: Mapping[str, str]) -> None:
    with running("protobuf", "server.py", environment=environment) as server:
        assert output("protobuf", "client.py", environment=environment) == [
            "Hello John",
            "Hello JSON",
        ]
        assert server.stop() == (0, [])


def test_group(environment: Mapping[str, str]) -> None:
    with running("group", "server.py", environment=environment, nodes=2) as server:
        assert output("group", "client.py", environment=environment) == [
            "tea costs 300 cents, 375 with tax"
        ]
        assert server.stop() == (0, [])


def test_infrastructure(environment: Mapping[str, str]) -> None:
    """Without any: both sides find each other, and the event arrives."""
    _sells_bread(environment)


@pytest.mark.parametrize("broker", ["nats", "jetstream"])
def test_infrastructure_of_etcd_and_nats(broker: str) -> None:
    for kind in (EtcdServer, NatsServer):
        need(kind)
    with Background(EtcdServer()) as etcd, Background(NatsServer()) as nats:
        _sells_bread(
            {
                **_environment(),
                "MICRO_REGISTRY": f"etcd://{etcd.address}",
                "MICRO_BROKER": f"{broker}://{nats.address}",
            }
        )


def _sells_bread(environment: Mapping[str, str]) -> None:
    with running("infrastructure", "server.py", environment=environment) as server:
        lines = output("infrastructure", "client.py", environment=environment)
        assert lines == ["7 bread left", "told"]
        server.wait_for("sold: 3 bread")
        assert server.stop() == (0, ["sold: 3 bread"])


def test_the_demo(environment: Mapping[str, str]) -> None:
    """What `make demo` runs."""
    lines = output(".", "demo.py", environment=environment)
    assert lines.count("Hello John") == 1
    assert '  "greeting": "Hello John"' in lines
    assert "greeter" in lines
    assert lines[-1] == "It works."


@pytest.mark.parametrize("folder", sorted({*FOLDERS, "events"}))
def test_types_and_length(folder: str) -> None:
    for path in (EXAMPLES / folder).glob("*.py"):
        assert len(path.read_text().splitlines()) <= 45, f"{path.name} is too long for an example"
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", str(EXAMPLES / folder)],
        cwd=ROOT, capture_output=True, text=True, timeout=5 * LIMIT, check=False,
    )  # fmt: skip
    assert checked.returncode == 0, checked.stdout


def test_every_example_is_listed_and_run() -> None:
    page = (EXAMPLES / "README.md").read_text()
    folders = {path.name for path in EXAMPLES.iterdir() if any(path.glob("*.py"))}
    assert folders == set(re.findall(r"\[`(\w+)/`\]\(\1/\)", page))
    assert folders <= {name.removeprefix("test_") for name in globals()}
