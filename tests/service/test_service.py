"""A service as a program sees it."""

import asyncio
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import shoal
from shoal.broker.memory import MemoryBroker
from shoal.client import Client
from shoal.context import remaining
from shoal.plugins import PluginError
from shoal.registry.memory import MemoryRegistry
from shoal.testing import Network
from shoal.transport.memory import MemoryTransport


class Greeter:
    async def hello(self, request: dict[str, str]) -> str:
        return f"Hello {request['name']}"


def memory() -> dict[str, Any]:
    return {
        "registry": MemoryRegistry(),
        "transport": MemoryTransport(),
        "broker": MemoryBroker(),
    }


async def hello(client: Client, service: str, **options: Any) -> str:
    async with asyncio.timeout(10):
        request = shoal.Request(service, "Greeter.Hello", {"name": "John"}, str)
        return await client.call(request, **options)


async def test_parts_are_chosen_by_name_or_given() -> None:
    registry = MemoryRegistry()
    service = shoal.Service(
        "greeter", registry=registry, broker="memory", selector="round_robin", address="127.0.0.1:0"
    )
    service.handle(Greeter())
    async with service:
        assert service.registry is registry
        assert type(service.selector).__name__ == "RoundRobinSelector"
        assert await hello(service.client, "greeter") == "Hello John"
        assert await registry.services() == ["greeter"]
    assert await registry.services() == []


async def test_two_services_of_one_process_call_each_other() -> None:
    parts = memory()
    one, two = shoal.Service("one", **parts), shoal.Service("two", **parts)
    one.handle(Greeter())
    two.handle(Greeter())
    async with shoal.Group(one, two):
        assert await hello(one.client, "two") == "Hello John"
        assert await hello(two.client, "one") == "Hello John"
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_group_stops_what_it_started_if_one_cannot_start() -> None:
    parts = memory()
    one = shoal.Service("one", **parts, address="127.0.0.1:5000")
    two = shoal.Service("two", **parts, address="127.0.0.1:5000")
    with pytest.raises(shoal.Unavailable, match="taken"):
        async with shoal.Group(one, two):
            raise AssertionError
    assert await parts["registry"].services() == []


async def test_nested_calls_inherit_metadata_and_deadline() -> None:
    class Front:
        def __init__(self, client: Client) -> None:
            self._client = client

        async def ask(self, request: dict[str, str]) -> dict[str, Any]:
            inner = shoal.Request("back", "Back.See", {}, dict[str, Any])
            return await self._client.call(inner)

    class Back:
        async def see(self, request: dict[str, str]) -> dict[str, Any]:
            return {"header": shoal.metadata(), "left": remaining()}

    async with Network() as network:
        front = network.service("front")
        front.handle(Front(front.client))
        await network.start(front)
        await network.serve(Back())
        with shoal.with_metadata(user="7"):
            seen = await network.client.call(
                shoal.Request("front", "Front.Ask", {}, dict[str, Any]), timeout=3
            )
    assert seen["header"]["User"] == "7"
    assert seen["header"]["Micro-Service"] == "back"
    assert 0 < seen["left"] <= 3


async def test_it_says_where_it_listens(caplog: pytest.LogCaptureFixture) -> None:
    service = shoal.Service("greeter", registry="memory", broker="memory", address="127.0.0.1:0")
    service.handle(Greeter())
    with caplog.at_level(logging.INFO, "shoal"):
        async with service:
            address = service.server.address
    for line in (
        f"Transport [http] listening on {address}",
        "Registry [memory] registered node greeter-",
        f"Others reach it at {address} (the address it listens on)",
    ):
        assert line in caplog.text


async def test_order_of_use_is_checked() -> None:
    service = shoal.Service("greeter", **memory())
    service.handle(Greeter())
    with pytest.raises(RuntimeError, match="init"):
        service.init([])
    async with service:
        with pytest.raises(RuntimeError, match="running already"):
            await service.__aenter__()
        with pytest.raises(RuntimeError, match="has started"):
            service.handle(Greeter())


def test_an_unknown_plugin_says_what_is_meant() -> None:
    with pytest.raises(PluginError, match="did you mean 'mdns'"):
        _ = shoal.Service("greeter", registry="mdsn").client


PROGRAM = """
import shoal

class Greeter:
    async def hello(self, request: dict[str, str]) -> str:
        return f"Hello {request['name']}"

service = shoal.Service("greeter", registry="memory", broker="memory", address="127.0.0.1:0")
service.init()
service.handle(Greeter())
service.run()
print("stopped")
"""


@contextmanager
def program(
    folder: Path, *flags: str, env: dict[str, str] | None = None, text: str = PROGRAM
) -> Iterator[subprocess.Popen[str]]:
    path = folder / "program.py"
    path.write_text(text)
    process = subprocess.Popen(
        [sys.executable, str(path), *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **(env or {})},
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def started(process: subprocess.Popen[str]) -> str:
    """Wait for the line that tells the address."""
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if "Others reach it at" in line:
            return line.partition("Others reach it at ")[2].split()[0]
    raise AssertionError("".join(lines))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_program_serves_until_a_signal(tmp_path: Path, number: signal.Signals) -> None:
    with program(tmp_path) as process:
        address = started(process)

        async def call() -> str:
            async with shoal.connect(registry="memory", broker="memory") as client:
                return await hello(client, "greeter", address=address)

        assert asyncio.run(call()) == "Hello John"
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
        assert process.returncode == 0, err
        assert out == "stopped\n"
        assert "Traceback" not in err


def test_flags_go_over_the_environment_over_the_code(tmp_path: Path) -> None:
    env = {"MICRO_SERVER_NAME": "from-env", "MICRO_SERVER_VERSION": "2", "MICRO_SERVER_ID": "x"}
    with program(tmp_path, "--server_name=from-flag", env=env) as process:
        assert process.stderr is not None
        line = next(line for line in process.stderr if "registered node" in line)
        assert line.rstrip().endswith("registered node from-flag-x")


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--registery", "mdns"], "did you mean --registry?"),
        (["--register_ttl", "soon"], "--register_ttl: 'soon'"),
        (["--registry", "mdsn"], "did you mean 'mdns'"),
        (["stray"], "'stray' is no flag"),
    ],
)
def test_a_bad_flag_is_one_sentence_and_exit_code_2(
    tmp_path: Path, flags: list[str], says: str
) -> None:
    with program(tmp_path, *flags) as process:
        out, err = process.communicate(timeout=30)
        assert process.returncode == 2
        assert says in err
        assert err.count("\n") == 1
        assert out == ""


def test_a_service_that_cannot_start_ends_with_a_sentence(tmp_path: Path) -> None:
    with program(tmp_path) as first:
        address = started(first)
        with program(tmp_path, "--server_address", address) as second:
            _, err = second.communicate(timeout=30)
            assert second.returncode == 1
            assert f"greeter: cannot listen at {address}: it is taken already" in err
            assert "Traceback" not in err


STUCK = PROGRAM.replace(
    "import shoal\n",
    "import atexit\nimport time\n\nimport shoal\n\natexit.register(print, 'tidied up')\n",
).replace(
    "service = shoal",
    "    def block(self) -> None:\n        time.sleep(3600)\n\nservice = shoal",
)


def test_a_thread_that_never_ends_does_not_keep_the_process(tmp_path: Path) -> None:
    with program(tmp_path, "--server_grace=10ms", text=STUCK) as process:
        address = started(process)

        async def block() -> None:
            async with shoal.connect(registry="memory", broker="memory") as client:
                request = shoal.Request("greeter", "Greeter.Block", {}, object)
                await client.call(request, address=address, timeout=0.2)

        with pytest.raises(shoal.Timeout):
            asyncio.run(block())
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=30)
        assert process.returncode == 1
        assert out == "stopped\ntidied up\n"
        assert "the process ends without 1 handlers that still block a thread" in err


def test_a_signal_while_it_starts_undoes_what_was_begun(tmp_path: Path) -> None:
    # The registry never answers; whoever asks the program to end need not wait for it.
    text = PROGRAM.replace('registry="memory"', "registry=Silent()").replace(
        "service = shoal",
        """
import asyncio
from shoal.registry.memory import MemoryRegistry

class Silent(MemoryRegistry):
    async def register(self, record: object, *, ttl: float | None = None) -> None:
        print("registering", flush=True)
        await asyncio.sleep(3600)

service = shoal""",
    )
    with program(tmp_path, text=text) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "registering\n"
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=30)
        assert (process.returncode, out) == (0, "stopped\n"), err


def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    with program(tmp_path, "--server_linger=1h") as process:
        started(process)
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        while "SIGTERM: stopping" not in process.stderr.readline():
            pass
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=30)
        assert (process.returncode, out) == (128 + signal.SIGTERM, "")
