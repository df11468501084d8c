"""Fixtures of the interop tests: the Go peers, a Shoal service beside them, and the matrix."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

import shoal
from shoal.client import Client

from . import matrix, peers
from .greeter import Greeter, proto_handler, unique

_HERE = Path(__file__).resolve().parent
_MATRIX = pytest.StashKey[matrix.Matrix]()
_WHOLE = pytest.StashKey[bool]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_MATRIX] = matrix.Matrix()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run all in one event loop, since the peers are shared by the tests."""
    for item in items:
        if _HERE in item.path.parents:
            item.add_marker(pytest.mark.interop)
            if pytest_asyncio.is_async_test(item):
                item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Give all skips one place, so that the summary names what is missing once."""
    report = yield
    if report.skipped and _HERE in item.path.parents and isinstance(report.longrepr, tuple):
        report.longrepr = (str(_HERE / "peers.py"), 1, report.longrepr[2])
    return report


def pytest_collection_finish(session: pytest.Session) -> None:
    """Note whether every test of this folder is going to run."""
    stash = session.config.stash
    files = {item.path for item in session.items}
    stash[_WHOLE] = stash.get(_WHOLE, True) and files >= set(_HERE.glob("test_*.py"))


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    for item in items:
        item.config.stash[_WHOLE] = False


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    stash = session.config.stash
    if stash[_MATRIX].rows:
        # One of several workers collects all, and runs a part of it.
        alone = not hasattr(session.config, "workerinput")
        whole = stash[_WHOLE] and exitstatus == 0 and alone
        stash[_MATRIX].write(whole=whole)
        matrix.write_page()


def need(program: str) -> Path:
    """Return a Go program, or skip (with CI=true: fail) with the reason why there is none.

    That a module proxy does not serve Go Micro v6 is nothing a test run can mend: its tests are
    skipped by name everywhere, v5.30 stands for the same line.
    """
    reason = peers.unavailable(program)
    if reason and os.environ.get("CI") == "true" and "go-micro.dev/v6@" not in reason:
        pytest.fail(reason, pytrace=False)
    if reason:
        pytest.skip(" ".join(reason.split()))
    return peers.build(program)


class Facts:
    """Records what one peer showed."""

    def __init__(self, table: matrix.Matrix, version: str) -> None:
        self._table = table
        self._version = version

    @contextmanager
    def __call__(self, fact: str, direction: str, *, detail: str = "") -> Iterator[None]:
        """Record that a fact holds if the block passes, and that it does not if the block fails."""
        try:
            yield
        except Exception as error:
            text = " ".join(str(error).split())[:200] or type(error).__name__
            self._table.record(fact, self._version, direction, False, text)
            raise
        self._table.record(fact, self._version, direction, True, detail)

    @contextmanager
    def limit(self, fact: str, direction: str, detail: str) -> Iterator[None]:
        """Record that something is not possible with this Go Micro, if the block shows it."""
        yield
        self._table.record(fact, self._version, direction, False, detail)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Test with every peer, or with those a module names in `PEERS` or a test itself."""
    # A fixture of the same name in the module would leave `go` with the peer of another one.
    own = [mark.args[0] for mark in metafunc.definition.iter_markers("parametrize")]
    if "version" in metafunc.fixturenames and "version" not in own:
        versions = getattr(metafunc.module, "PEERS", peers.VERSIONS)
        metafunc.parametrize("version", versions, indirect=True, scope="session")


@pytest.fixture(scope="session")
def version(request: pytest.FixtureRequest) -> str:
    need(request.param)
    return str(request.param)


@pytest.fixture(scope="session")
def go(version: str) -> peers.Peer:
    """A Go Micro peer of each version in turn."""
    return peers.peer(version)


@pytest.fixture
def fact(version: str, pytestconfig: pytest.Config) -> Facts:
    return Facts(pytestconfig.stash[_MATRIX], version)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def server(go: peers.Peer) -> AsyncIterator[peers.Running]:
    """A Go server that is not in any registry: call it by its address."""
    async with go.serve(unique("go"), registry="none", broker="none") as running:
        yield running


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def client() -> AsyncIterator[Client]:
    async with shoal.connect() as client:
        yield client


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def greeter() -> Greeter:
    return Greeter()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def service(greeter: Greeter, messages: Any) -> AsyncIterator[shoal.Service]:
    """A Shoal service that mirrors the Go peers; Go finds it by mdns or is given its address."""
    service = shoal.Service(unique("py"), address="127.0.0.1:0", metadata={"zone": "blue"})
    service.handle(greeter)
    service.handle(proto_handler(messages))
    async with service:
        yield service


@pytest.fixture(scope="session")
def messages(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The protobuf messages of proto/greeter.proto, compiled for this run."""
    folder = tmp_path_factory.mktemp("proto")
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{_HERE / 'proto'}"]
    subprocess.run([*command, f"--python_out={folder}", "greeter.proto"], check=True, timeout=60)
    sys.path.insert(0, str(folder))
    try:
        return importlib.import_module("greeter_pb2")
    finally:
        sys.path.remove(str(folder))
