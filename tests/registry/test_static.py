"""Tests of the static registry."""

from __future__ import annotations

import asyncio
import logging
import os
import uuid
from pathlib import Path

import msgspec
import pytest

from shoal.errors import BadRequest, Unavailable
from shoal.registry import Node, Record, Registry
from shoal.registry._records import to_go
from shoal.registry.static import StaticRegistry
from shoal.testing.conformance.registry import RegistryConformance

METADATA = {"protocol": "mucp", "transport": "http"}


class TestStatic(RegistryConformance):
    """The file is what is published: registering tells nobody."""

    ttl = None
    closing_takes = "nothing"

    @pytest.fixture(autouse=True)
    def file(self, tmp_path: Path) -> None:
        self.path = tmp_path / "nodes.json"
        self.records: dict[tuple[str, str], Record] = {}
        self.write()

    def make(self) -> Registry:
        return StaticRegistry(str(self.path), interval=0.01)

    async def publish(
        self, registry: Registry, record: Record, *, ttl: float | None = None
    ) -> None:
        await registry.register(record, ttl=ttl)
        for node in record.nodes:
            self.records[record.name, node.id] = Record(
                record.name, record.version, (node,), record.endpoints, record.metadata
            )
        self.write()

    async def withdraw(self, registry: Registry, record: Record) -> None:
        await registry.deregister(record)
        for node in record.nodes:
            self.records.pop((record.name, node.id), None)
        self.write()

    def write(self) -> None:
        replace(self.path, msgspec.json.encode([to_go(one) for one in self.records.values()]))


def replace(path: Path, content: bytes) -> None:
    fresh = path.with_name(uuid.uuid4().hex)
    fresh.write_bytes(content)
    os.replace(fresh, path)


@pytest.mark.parametrize(
    "address",
    [
        "greeter=127.0.0.1:9000,127.0.0.1:9001;mail=[::1]:9100",
        "greeter=127.0.0.1:9000 greeter=127.0.0.1:9001 mail=[::1]:9100",
        " greeter=127.0.0.1:9000,127.0.0.1:9001 ;\n mail=[::1]:9100; ",
    ],
)
async def test_nodes_are_given_in_pairs(address: str) -> None:
    registry = StaticRegistry(address)
    assert await registry.services() == ["greeter", "mail"]
    nodes = tuple(
        Node(f"greeter-{address}", address, METADATA)
        for address in ("127.0.0.1:9000", "127.0.0.1:9001")
    )
    assert await registry.get("greeter") == [Record("greeter", nodes=nodes)]
    (record,) = await registry.get("mail")
    assert record.nodes[0].address == "[::1]:9100"
    assert await registry.get("unknown") == []


@pytest.mark.parametrize(
    "address",
    ["greeter=", "=127.0.0.1:80", "greeter=127.0.0.1", "a=h:1,,h:2", "a=h:1;b", "a=h:0"],
)
def test_pairs_that_make_no_sense_are_refused(address: str) -> None:
    with pytest.raises(BadRequest):
        StaticRegistry(address)


async def test_without_an_address_nobody_is_known() -> None:
    registry = StaticRegistry()
    assert await registry.services() == []
    assert repr(registry) == "StaticRegistry(nodes=0, watches=0)"


async def test_a_file_may_have_a_pair_a_line(tmp_path: Path) -> None:
    path = tmp_path / "nodes"
    path.write_text("# ours\ngreeter=10.0.0.1:80,10.0.0.2:80  # two\n\nmail=10.0.0.3:80\n")
    registry = StaticRegistry(str(path))
    assert await registry.services() == ["greeter", "mail"]
    (record,) = await registry.get("greeter")
    assert [node.address for node in record.nodes] == ["10.0.0.1:80", "10.0.0.2:80"]


async def test_a_file_may_have_records_as_go_micro_writes_them(tmp_path: Path) -> None:
    path = tmp_path / "nodes.json"
    path.write_text(
        '[{"name":"greeter","version":"2","metadata":null,"endpoints":null,"nodes":'
        '[{"id":"a","address":"10.0.0.1:80","metadata":{"protocol":"grpc"}},'
        '{"id":"b","address":"10.0.0.1:81"}]}]'
    )
    nodes = (Node("a", "10.0.0.1:80", {"protocol": "grpc"}), Node("b", "10.0.0.1:81", METADATA))
    assert await StaticRegistry(str(path)).get("greeter") == [Record("greeter", "2", nodes)]


async def test_what_changes_in_the_file_is_found(tmp_path: Path) -> None:
    path = tmp_path / "nodes"
    path.write_text("greeter=10.0.0.1:80")
    registry = StaticRegistry(str(path))
    assert await registry.services() == ["greeter"]
    replace(path, b"mail=10.0.0.1:80")
    assert await registry.services() == ["mail"]


async def test_a_file_that_breaks_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "nodes"
    path.write_text("greeter=10.0.0.1:80")
    registry = StaticRegistry(str(path))
    assert await registry.services() == ["greeter"]
    replace(path, b"greeter")
    for _ in range(3):
        assert await registry.services() == ["greeter"]
    path.unlink()
    for _ in range(3):
        assert await registry.services() == ["greeter"]
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2
    path.write_text("mail=10.0.0.1:80")
    assert await registry.services() == ["mail"]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "No such file"),
        (b"greeter", "name=host:port"),
        (b"{}", "JSON list"),
        (b"[{}]", "name"),
        (b'[{"name":"a","nodes":[{"id":"n"}]}]', r"nodes\[0\]"),
        (b"[", "no JSON"),
        (b"\xff\xfe", "UTF-8"),
        (b" " * (4 << 20) + b"x", "larger"),
    ],
)
async def test_a_file_that_cannot_be_read_is_told_of(
    tmp_path: Path, content: bytes | None, problem: str
) -> None:
    path = tmp_path / "nodes"
    if content is not None:
        path.write_bytes(content)
    registry = StaticRegistry(str(path))
    for asked in (registry.get("a"), registry.services(), anext(registry.watch())):
        with pytest.raises(Unavailable, match=problem):
            await asked


async def test_a_path_in_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a=b").write_text("greeter=10.0.0.1:80")
    assert await StaticRegistry("~/a=b").services() == ["greeter"]


async def test_registering_tells_nobody() -> None:
    registry = StaticRegistry("mail=10.0.0.1:80")
    record = Record("greeter", nodes=(Node("a", "10.0.0.1:81"),))
    await registry.register(record, ttl=60)
    assert await registry.services() == ["mail"]
    await registry.deregister(record)


async def test_pairs_never_change_but_their_watch_can_be_closed() -> None:
    registry = StaticRegistry("mail=10.0.0.1:80")
    step = asyncio.ensure_future(anext(registry.watch(), None))
    await asyncio.sleep(0.01)
    assert not step.done()
    await registry.close()
    assert await step is None
