"""Tests of the mdns registry."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import sys
import uuid
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from ipaddress import IPv4Address

import pytest

from shoal.errors import BadRequest, Unavailable
from shoal.registry import Change, Endpoint, Node, Record, Registry, _dns
from shoal.registry import _mdns_zone as zone
from shoal.registry._mdns_sockets import Address, Multicast
from shoal.registry.mdns import MdnsRegistry
from shoal.testing.conformance.registry import RegistryConformance

LOOPBACK = next(name for _, name in socket.if_nameindex() if name.startswith("lo"))


class TestMdns(RegistryConformance):
    service_metadata = False  # Go Micro's records have no place for it

    def setup_method(self) -> None:
        self.domain = make_domain()

    def make(self) -> Registry:
        return MdnsRegistry(domain=self.domain)


class TestMdnsOnLoopback(TestMdns):
    """As on a machine without a network."""

    def make(self) -> Registry:
        return MdnsRegistry(LOOPBACK, domain=self.domain)


def make_domain() -> str:
    return f"suite{uuid.uuid4().hex[:8]}"


def make_record(id: str = "a", *, name: str = "greeter", address: str = "10.0.0.1:80") -> Record:
    return Record(name, nodes=(Node(id, address),))


@pytest.fixture
async def registry() -> AsyncIterator[MdnsRegistry]:
    registry = MdnsRegistry(LOOPBACK, domain=make_domain())
    async with asyncio.timeout(60):
        yield registry
        await registry.close()


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let announcements follow each other a hundred times as fast."""
    monkeypatch.setattr("shoal.registry._mdns_node._PROBE_PAUSE", 0.0025)
    monkeypatch.setattr("shoal.registry._mdns_node._PAUSES", (0.01, 0.02, 0.0))


@asynccontextmanager
async def peer(
    registry: MdnsRegistry, answer: Callable[[_dns.Message], list[bytes]]
) -> AsyncIterator[list[_dns.Message]]:
    """A stranger who hears all about the registry's domain, and answers what he likes."""
    domain = registry._domain.encode()
    heard: list[_dns.Message] = []

    def receive(multicast: Multicast, data: bytes, address: Address) -> None:
        message = _dns.decode(data)
        names = [part.name for part in (message.questions or message.answers)]
        if any(name[-1:] == (domain,) for name in names):
            heard.append(message)
            if not message.flags & _dns.RESPONSE:
                for reply in answer(message):
                    multicast.reply(reply, address)

    multicast = Multicast(receive, listen=True, interface=LOOPBACK)
    try:
        yield heard
    finally:
        multicast.close()


def hears_only(_: _dns.Message) -> list[bytes]:
    return []


def reply(query: _dns.Message, record: Record) -> bytes:
    (question,) = query.questions
    domain = _dns.text(question.name[-1:])
    node = record.nodes[0]
    instance = zone.instance(record, node, IPv4Address("10.9.9.9"), 99, domain=domain, host="h")
    return _dns.encode(zone.reply(query, question, instance.answer(question)))


# What is said.


async def test_go_micros_records_go_to_whoever_asks(registry: MdnsRegistry) -> None:
    await registry.register(make_record())
    loop = asyncio.get_running_loop()
    got: asyncio.Future[bytes] = loop.create_future()
    asking = Multicast(lambda _, data, __: got.set_result(data), listen=False, interface=LOOPBACK)
    question = _dns.Question((b"greeter", registry._domain.encode()), _dns.PTR)
    asking.send(_dns.encode(_dns.Message(id=5, questions=(question,))))
    message = _dns.decode(await got)
    asking.close()
    assert (message.id, message.flags, message.questions) == (0, 0x8400, (question,))
    types = [resource.type for resource in message.answers]
    assert types == [_dns.PTR, _dns.SRV, _dns.A, _dns.TXT]


@pytest.mark.usefixtures("soon")
async def test_a_node_is_probed_announced_and_said_goodbye(registry: MdnsRegistry) -> None:
    async with peer(registry, hears_only) as heard:
        await registry.register(make_record())
        await registry.register(make_record())  # as servers do all the time
        await until(lambda: len(heard) >= 6)
        await registry.deregister(make_record())
        await until(lambda: len(heard) >= 7)
        await asyncio.sleep(0.1)
    probes, told = heard[:3], heard[3:]
    assert all(message.authorities and not message.flags for message in probes)
    assert [message.flags for message in told] == [0x8000] * 4
    assert [message.answers[0].ttl for message in told] == [120, 120, 120, 0]


@pytest.mark.usefixtures("soon")
async def test_changed_data_is_announced_again(registry: MdnsRegistry) -> None:
    async with peer(registry, hears_only) as heard:
        await registry.register(make_record())
        await until(lambda: len(heard) == 6)
        await registry.register(make_record(address="10.0.0.1:81"))
        await until(lambda: len(heard) >= 9)
    services = [message.answers[0].data for message in heard[6:]]
    assert all(isinstance(data, _dns.Service) and data.port == 81 for data in services)


async def test_one_question_serves_many_look_ups(registry: MdnsRegistry) -> None:
    async with peer(registry, hears_only) as heard:
        await asyncio.gather(*(registry.get("greeter") for _ in range(100)))
        assert len({message.questions for message in heard}) == len(heard) == 1


async def test_announcements_that_repeat_are_one_change(registry: MdnsRegistry) -> None:
    changes = registry.watch("greeter")
    await_first = asyncio.ensure_future(anext(changes))
    await asyncio.sleep(0)
    announcement = zone.instance(
        make_record(),
        make_record().nodes[0],
        IPv4Address("10.0.0.1"),
        80,
        domain=registry._domain,
        host="h",
    )
    async with peer(registry, hears_only) as heard:
        sender = Multicast(lambda *_: None, listen=False, interface=LOOPBACK)
        for message in [announcement.announcement()] * 3 + [announcement.announcement(ttl=0)] * 2:
            sender.send(_dns.encode(message, compress=False))
        sender.close()
        await until(lambda: len(heard) == 5)
    assert (await await_first).action == "create"
    assert (await anext(changes)).action == "delete"
    await registry.close()
    assert [change async for change in changes] == []


# Two processes, and both kinds of event loop.

OTHER_PROCESS = """
import asyncio, sys
from shoal.registry import Node, Record
from shoal.registry.mdns import MdnsRegistry
async def main():
    registry = MdnsRegistry(sys.argv[1], domain=sys.argv[2])
    await registry.register(Record("greeter", nodes=(Node("other", "10.0.0.7:80"),)))
    sys.stdout.write("ready\\n")
    sys.stdout.flush()
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await registry.close()
asyncio.run(main())
"""


@pytest.mark.parametrize("interface", ["", LOOPBACK], ids=["default", "loopback"])
async def test_processes_find_each_other(interface: str) -> None:
    registry = MdnsRegistry(interface, domain=make_domain())
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", OTHER_PROCESS, interface, registry._domain,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        async with asyncio.timeout(60):
            assert await process.stdout.readline() == b"ready\n"
            changes = registry.watch("greeter")
            await registry.register(make_record("mine"))
            while len(ids(await registry.get("greeter"))) < 2:
                pass
            assert ids(await registry.get("greeter")) == ["mine", "other"]
            gone = asyncio.ensure_future(first(changes, "delete"))
            await asyncio.sleep(0)
            process.stdin.close()
            assert (await gone).record.nodes[0].id == "other"
            assert ids(await registry.get("greeter")) == ["mine"]
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        await registry.close()


def test_uvloop_can_drive_it() -> None:
    uvloop = pytest.importorskip("uvloop")

    async def main() -> list[str]:
        one, other = (MdnsRegistry(LOOPBACK, domain=domain) for domain in [make_domain()] * 2)
        await one.register(make_record(), ttl=60)
        while not (found := ids(await other.get("greeter"))):
            pass
        await one.close()
        await other.close()
        return found

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(main()) == ["a"]


# What is refused.


@pytest.mark.parametrize(
    "address",
    ["10.0.0.1", "10.0.0.1:0", ":80", "0.0.0.0:80", "[::]:80", "224.0.0.1:80", "::1:80",
     "[fe80::1%eth0]:80", "a..b:80", "10.0.0.1:65536", "10.0.0.1:http"],
)  # fmt: skip
async def test_an_address_nobody_could_use_is_refused(registry: MdnsRegistry, address: str) -> None:
    with pytest.raises(BadRequest, match=r"address|port"):
        await registry.register(make_record(address=address))
    assert registry._multicast is None


async def test_this_side_finds_what_others_find(registry: MdnsRegistry) -> None:
    node = Node("a", "localhost:80")
    await registry.register(Record("greeter", nodes=(node,), metadata={"lost": "on the way"}))
    other = MdnsRegistry(LOOPBACK, domain=registry._domain)
    while not (found := await other.get("greeter")):
        pass
    assert found == await registry.get("greeter")
    assert found[0].nodes[0].address in ("127.0.0.1:80", "[::1]:80")
    assert not found[0].metadata


async def test_a_record_larger_than_a_datagram_is_refused(registry: MdnsRegistry) -> None:
    noise = {str(i): zlib.compress(os.urandom(300)).hex() for i in range(300)}
    record = Record("greeter", nodes=(Node("a", "10.0.0.1:80", noise),))
    with pytest.raises(BadRequest, match="65507"):
        await registry.register(record)


async def test_a_large_record_arrives(registry: MdnsRegistry) -> None:
    noise = {str(i): os.urandom(100).hex() for i in range(100)}
    endpoints = tuple(Endpoint(f"A.{i}", metadata={"description": "x" * 900}) for i in range(300))
    record = Record("greeter", "latest", (Node("a", "10.0.0.1:80", noise),), endpoints)
    await registry.register(record)
    other = MdnsRegistry(LOOPBACK, domain=registry._domain, timeout=1)
    assert await other.get("greeter") == [record]


@pytest.mark.parametrize(
    ("name", "id"), [("a" * 64, "a"), ("greeter", "a" * 64), ("a..b", "a"), ("greeter", "a.")]
)
async def test_a_name_dns_cannot_carry_is_refused(
    registry: MdnsRegistry, name: str, id: str
) -> None:
    with pytest.raises(BadRequest, match="cannot carry the name"):
        await registry.register(make_record(id, name=name))
    if name != "greeter":
        assert await registry.get(name) == []


async def test_all_nodes_are_registered_or_none(registry: MdnsRegistry) -> None:
    nodes = (Node("a", "10.0.0.1:80"), Node("b", "10.0.0.1:0"))
    with pytest.raises(BadRequest):
        await registry.register(Record("greeter", nodes=nodes))
    assert await registry.get("greeter") == []


async def test_an_unknown_interface_is_named() -> None:
    registry = MdnsRegistry("nowhere0")
    with pytest.raises(Unavailable, match=f"'nowhere0'.*{LOOPBACK}"):
        await registry.register(make_record())
    with pytest.raises(Unavailable, match="nowhere0"):
        await registry.get("greeter")
    with pytest.raises(Unavailable, match="nowhere0"):
        await anext(registry.watch())


@pytest.mark.parametrize("failing", ["bind", "setsockopt", "sendto"])
async def test_a_machine_without_multicast_is_told_what_to_do(
    monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    class Socket(socket.socket):
        pass

    def refuse(*_: object) -> None:
        raise OSError(errno.ENETUNREACH, "Network is unreachable")

    monkeypatch.setattr(Socket, failing, refuse, raising=False)
    monkeypatch.setattr("shoal.registry._mdns_sockets.socket.socket", Socket)
    registry = MdnsRegistry()
    with pytest.raises(Unavailable, match="choose another registry"):
        await registry.register(make_record())
    with pytest.raises(Unavailable, match="choose another registry"):
        await registry.get("greeter")
    assert registry._multicast is None


@pytest.mark.usefixtures("soon")
async def test_a_registry_that_hears_nothing_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Deaf(Multicast):
        def _readable(self, sock: socket.socket, limit: int = 1) -> None:
            sock.recv(65536)

    monkeypatch.setattr("shoal.registry.mdns.Multicast", Deaf)
    registry = MdnsRegistry(LOOPBACK, domain=make_domain())
    async with asyncio.timeout(60):
        await registry.register(make_record())
        await until(lambda: "nobody will find greeter" in caplog.text)
        assert "nobody will find greeter" in str(registry.error)
        await registry.close()
        assert registry.error is None


# Strangers.


async def test_what_strangers_say_is_dropped(
    registry: MdnsRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    def answer(query: _dns.Message) -> list[bytes]:
        good = reply(query, make_record("good"))
        forged = reply(query, make_record("x", name="another"))
        bomb = zlib.compress(b" " * 50_000_000).hex().encode()
        strings = tuple(bomb[i : i + 255] for i in range(0, 60_000, 255))
        message = _dns.decode(good)
        answers = [
            _dns.Resource(r.name, r.type, r.ttl, strings) if r.type == _dns.TXT else r
            for r in message.answers
        ]
        bombed = _dns.encode(_dns.Message(0, 0x8400, message.questions, tuple(answers)))
        return [b"", b"\0", b"\xff" * 60_000, good[:-9], forged, bombed, os.urandom(500), good]

    async with peer(registry, answer):
        while not (found := await registry.get("greeter")):
            pass
    assert found == [make_record("good", address="10.9.9.9:99")]
    lines = [r for r in caplog.records if r.name.startswith("shoal")]
    assert len(lines) == 1
    assert "dropped 1 bad packets" in lines[0].getMessage()


async def test_a_question_too_long_to_be_echoed_is_dropped(
    registry: MdnsRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    noise = {str(i): os.urandom(100).hex() for i in range(250)}
    record = Record("greeter", nodes=(Node("a", "10.0.0.1:80", noise),))
    await registry.register(record)
    domain = registry._domain.encode()
    long = [_dns.Question((bytes([i]) * 60,) * 4, _dns.PTR) for i in range(31)]
    questions = (_dns.Question((b"greeter", domain), _dns.PTR), *long)
    asking = Multicast(lambda *_: None, listen=False, interface=LOOPBACK)
    asking.send(_dns.encode(_dns.Message(questions=questions)))
    await until(lambda: "dropped 1 bad packets" in caplog.text)
    asking.close()
    (found,) = await MdnsRegistry(LOOPBACK, domain=registry._domain, timeout=1).get("greeter")
    assert found == record


async def test_strangers_cannot_fill_the_memory(
    registry: MdnsRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shoal.registry._mdns_lookup._ENTRIES", 10)

    def answer(query: _dns.Message) -> list[bytes]:
        if query.questions[0].name[0] == b"_services":
            listed = (
                zone.listed(f"s{i}", domain=registry._domain, host="h").answer(query.questions[0])
                for i in range(40)
            )
            return [_dns.encode(zone.reply(query, query.questions[0], each)) for each in listed]
        return [reply(query, make_record(f"n{i}")) for i in range(40)]

    async with peer(registry, answer):
        while not (found := ids(await registry.get("greeter"))):
            pass
        assert len(found) <= 10
        while not (names := await registry.services()):
            pass
        assert len(names) <= 10


async def test_a_watch_that_is_not_read_ends_when_too_much_is_said(
    registry: MdnsRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shoal.registry.mdns._UNREAD", 500)
    changes = registry.watch()
    started = asyncio.ensure_future(anext(changes))
    await asyncio.sleep(0)
    other = MdnsRegistry(LOOPBACK, domain=registry._domain)
    for index in range(20):
        await other.register(make_record(f"n{index}"))
    await started
    await other.close()  # twenty goodbyes at once
    await asyncio.sleep(0.2)
    with pytest.raises(Unavailable, match="missed"):
        [change async for change in changes]


async def test_nothing_stays_open(registry: MdnsRegistry) -> None:
    before = len(os.listdir("/dev/fd"))
    await registry.register(make_record())
    looking = asyncio.ensure_future(registry.get("greeter"))
    watching = asyncio.ensure_future(anext(registry.watch(), None))
    await asyncio.sleep(0)
    assert len(os.listdir("/dev/fd")) > before
    await registry.close()
    assert await watching is None
    with pytest.raises(Unavailable, match="closed"):
        await looking
    assert len(os.listdir("/dev/fd")) == before
    assert "nodes=[]" in repr(registry)


def ids(records: list[Record]) -> list[str]:
    return sorted(node.id for record in records for node in record.nodes)


async def first(changes: AsyncIterator[Change], action: str) -> Change:
    async for change in changes:
        if change.action == action:
            return change
    raise AssertionError("the watch has ended")


async def until(true: Callable[[], bool]) -> None:
    while not true():  # noqa: ASYNC110 - what is waited for knows nothing of events
        await asyncio.sleep(0.01)
