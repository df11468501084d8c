"""Tests of the connection to NATS: it comes back, says what is wrong, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import nkeys  # type: ignore[import-untyped]  # it has no types
import pytest

from shoal._nats import Link, Msg, NatsSettings
from shoal.errors import BadRequest, TooLarge, Unavailable
from shoal.testing.conformance._broker import files
from shoal.tls import Tls
from tests.servers import Background, Note, free_ports, need
from tests.servers._gate import Gate
from tests.servers.nats import NatsServer
from tests.test_tls import Authority

RESTARTS = int(os.environ.get("SHOAL_RESTARTS", "3"))
QUICK = NatsSettings(timeout=0.5, ping=0.2, patience=0.5)


@pytest.fixture(scope="module")
def server() -> Iterator[NatsServer]:
    need(NatsServer)
    running = NatsServer()
    with Background(running):
        yield running


@asynccontextmanager
async def linked(
    address: str, settings: NatsSettings | None = None, tls: Tls | None = None
) -> AsyncIterator[Link]:
    link = Link(address, settings, tls, "shoal.test")
    async with asyncio.timeout(60 + 10 * RESTARTS):
        try:
            yield link
        finally:
            await link.close()


@pytest.fixture(autouse=True)
async def _nothing_left() -> AsyncIterator[None]:
    before = files()
    yield
    kinds = {"Link", "Outbox", "Client", "Subscription"}
    names = [getattr(task.get_coro(), "__qualname__", "") for task in asyncio.all_tasks()]
    assert not [name for name in names if name.partition(".")[0] in kinds]
    await becomes(lambda: files() <= before)


async def becomes(look: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not look():  # noqa: ASYNC110  # any state
            await asyncio.sleep(0.01)


async def refused(
    address: str, settings: NatsSettings | None = None, tls: Tls | None = None
) -> str:
    """Return the sentence why there is no connection."""
    async with linked(address, settings, tls) as link:
        with pytest.raises((Unavailable, BadRequest)) as caught:
            await link.open()
        assert caught.value.id == "shoal.test"
        assert "secret" not in f"{caught.value!r} {link!r} {settings!r}"
        return str(caught.value)


# It comes back


async def test_every_subscription_is_there_again_once_after_restarts(
    record_property: Note,
) -> None:
    need(NatsServer)
    async with NatsServer() as server, linked(server.address) as link, linked(server.address) as by:
        heard: Counter[bytes] = Counter()
        lost: list[Unavailable] = []
        back: list[int] = []
        link.on_lost.append(lost.append)
        link.on_back.append(lambda: back.append(link.connections))
        await link.subscribe("a.b", lambda message: heard.update([message.data]))
        await link.subscribe("q", lambda message: heard.update([message.data]), queue="mail")
        await by.open()
        tasks, sockets = len(asyncio.all_tasks()), files()
        for turn in range(RESTARTS):
            await server.restart()
            wanted = turn + 2
            await becomes(lambda: min(link.connections, by.connections) == wanted)  # noqa: B023
            assert link.error is None
            for number in range(5):
                for subject in ("a.b", "q"):
                    await by.publish(subject, b"%b %d %d" % (subject.encode(), turn, number))
            await becomes(lambda: heard.total() >= 10 * (wanted - 1))  # noqa: B023
        await by.publish("a.b", b"last")
        await becomes(lambda: heard[b"last"])
        assert set(heard.values()) == {1}
        assert len(lost) == RESTARTS
        assert back == list(range(2, RESTARTS + 2))
        assert len(asyncio.all_tasks()) == tasks
        assert files() <= sockets
        record_property("restarts", RESTARTS)
        record_property("published", 10 * RESTARTS + 1)
        record_property("arrived", len(heard))
        record_property("duplicates", heard.total() - len(heard))


async def test_a_frozen_server_is_noticed_and_found_again_when_it_thaws() -> None:
    need(NatsServer)
    async with NatsServer() as server, linked(server.address, QUICK) as link:
        heard: list[bytes] = []
        await link.subscribe("a", lambda message: heard.append(message.data))
        server.freeze()
        await becomes(lambda: link.error)
        assert "broke" in str(link.error) or "no connection" in str(link.error)
        with pytest.raises(Unavailable):
            await link.publish("a", b"lost")
        server.thaw()
        await becomes(lambda: link.error is None)
        await link.publish("a", b"found")
        await becomes(lambda: b"found" in heard)
        assert heard == [b"found"]


async def test_a_short_freeze_costs_nothing() -> None:
    need(NatsServer)
    async with NatsServer() as server, linked(server.address) as link:
        heard: list[bytes] = []
        await link.subscribe("a", lambda message: heard.append(message.data))
        server.freeze()
        publishing = asyncio.create_task(link.publish("a", b"1"))
        await asyncio.sleep(0.3)
        assert not publishing.done()
        server.thaw()
        await publishing
        await becomes(lambda: heard == [b"1"])
        assert link.connections == 1


async def test_a_connection_that_is_cut_is_made_again(server: NatsServer) -> None:
    async with Gate(server.port) as gate, linked(gate.address) as link:
        heard: list[bytes] = []
        await link.subscribe("cut", lambda message: heard.append(message.data))
        for turn in range(5):
            await gate.cut()
            waiting = asyncio.create_task(link.publish("cut", b"%d" % turn))
            await becomes(lambda: link.error)
            await gate.open()
            (failure,) = await asyncio.gather(waiting, return_exceptions=True)
            if failure is not None:  # the cut was not known yet when it was sent
                assert isinstance(failure, Unavailable)
                assert not failure.unsent
                await link.publish("cut", b"%d" % turn)
            await becomes(lambda: len(heard) == turn + 1)  # noqa: B023
        assert heard == [b"0", b"1", b"2", b"3", b"4"]


async def test_publishing_without_a_server_fails_in_time() -> None:
    need(NatsServer)
    async with NatsServer() as server, linked(server.address, QUICK) as link:
        await link.open()
        await server.stop()
        await becomes(lambda: link.error)
        with pytest.raises(Unavailable, match="NATS"):
            await link.publish("a", b"x")
        with pytest.raises(Unavailable):
            await link.subscribe("a", lambda message: None)
        assert "not connected" in repr(link)


async def test_another_server_is_taken_when_one_is_gone(server: NatsServer) -> None:
    (nowhere,) = free_ports(1)
    for _ in range(4):
        async with linked(f"127.0.0.1:{nowhere},{server.address}") as link:
            await link.open()
            assert link.where == server.address


async def test_it_can_be_opened_again(server: NatsServer) -> None:
    async with linked(server.address) as link:
        for _ in range(3):
            heard: list[bytes] = []
            await link.subscribe("again", lambda message: heard.append(message.data))  # noqa: B023
            await link.publish("again", b"x")
            await becomes(lambda: heard)  # noqa: B023
            await link.close()
            await link.close()
            assert heard == [b"x"]


# Who is let in


async def test_why_there_is_no_connection_is_one_sentence(server: NatsServer) -> None:
    (nowhere,) = free_ports(1)
    assert "127.0.0.1" in await refused(f"me:secret@127.0.0.1:{nowhere}")
    assert "is no address" in await refused("me:secret@:x")
    assert "is no address" in await refused("http://me:secret@127.0.0.1")
    tls = Tls(verify=False)
    assert "offers no TLS" in await refused(f"me:secret@{server.address}", tls=tls)
    assert "offers no TLS" in await refused(f"tls://{server.address}")


async def test_what_is_no_nats_server_is_said() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-OpenSSH_9.2\r\n")
        writer.close()

    other = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = other.sockets[0].getsockname()[1]
    async with other:
        assert "is no NATS server" in await refused(f"127.0.0.1:{port}")


async def test_a_silent_server_is_given_up() -> None:
    async def nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    other = await asyncio.start_server(nothing, "127.0.0.1", 0)
    port = other.sockets[0].getsockname()[1]
    async with other:
        assert "did not answer in time" in await refused(f"127.0.0.1:{port}", QUICK)


@pytest.mark.parametrize("version", ["1.4.1", "2.1.9"])
async def test_a_server_that_is_too_old_is_refused(version: str) -> None:
    async def old(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        info = f'{{"server_id":"x","version":"{version}","max_payload":1048576}}'
        writer.write(f"INFO {info}\r\n".encode())
        await reader.readuntil(b"PING\r\n")
        writer.write(b"PONG\r\n")
        await reader.read()
        writer.close()

    other = await asyncio.start_server(old, "127.0.0.1", 0)
    port = other.sockets[0].getsockname()[1]
    async with other:
        said = await refused(f"127.0.0.1:{port}")
        assert f"v{version}" in said
        assert "2.2 or newer is needed" in said


PASSWORD = 'authorization { user: me, password: "a secret: 1/2" }\n'


async def test_user_and_password_in_the_address_or_beside_it() -> None:
    need(NatsServer)
    async with NatsServer(PASSWORD) as server:
        where = server.address
        for address in (
            f"me:a%20secret%3A%201%2F2@{where}",
            f"nats://me:a%20secret: 1%2F2@{where}",
        ):
            async with linked(address) as link:
                await link.open()
        async with linked(where, NatsSettings(user="me", password="a secret: 1/2")) as link:
            await link.open()
        for address in (where, f"me:secret@{where}", f"secret@{where}"):
            assert "refuses these credentials" in await refused(address)


async def test_a_token_in_the_address_or_beside_it() -> None:
    need(NatsServer)
    async with NatsServer('authorization { token: "a-secret" }\n') as server:
        async with linked(f"a-secret@{server.address}") as link:
            await link.open()
        async with linked(server.address, NatsSettings(token=lambda: "a-secret")) as link:
            await link.open()
        assert "refuses these credentials" in await refused(f"no-secret@{server.address}")


async def test_credentials_are_rotated() -> None:
    need(NatsServer)
    current = "secret-1"

    def config(password: str) -> str:
        return f'authorization {{ user: me, password: "{password}" }}\n'

    settings = NatsSettings(user="me", password=lambda: current)
    async with NatsServer(config(current)) as server, linked(server.address, settings) as link:
        heard: list[bytes] = []
        await link.subscribe("a", lambda message: heard.append(message.data))
        for turn in range(3):
            server.configure(config(f"secret-{turn + 2}"))
            server.reload()
            await becomes(lambda: link.error)
            assert "secret" not in f"{link.error} {link!r}"
            current = f"secret-{turn + 2}"
            await becomes(lambda: link.error is None)
            await link.publish("a", b"%d" % turn)
            await becomes(lambda: len(heard) == turn + 1)  # noqa: B023


async def test_an_nkey_is_shown(tmp_path: Any) -> None:
    need(NatsServer)
    seed = nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER)
    public = bytes(nkeys.from_seed(bytearray(seed)).public_key).decode()
    path = tmp_path / "user.nk"
    path.write_bytes(seed)
    async with NatsServer(f"authorization {{ users: [ {{ nkey: {public} }} ] }}\n") as server:
        async with linked(server.address, NatsSettings(nkey_file=str(path))) as link:
            await link.open()
        missing = NatsSettings(nkey_file=str(tmp_path / "missing"))
        assert "No such file" in await refused(server.address, missing)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"), "authority")


async def test_tls_with_certificates_of_both(authority: Authority) -> None:
    need(NatsServer)
    certificate, key = authority.issue("server")
    config = (
        f'tls {{ cert_file: "{certificate}", key_file: "{key}", '
        f'ca_file: "{authority.file}", verify: true }}\n'
    )
    async with NatsServer(config) as server:
        ca_file = authority.file
        certificate, key = authority.issue("client")
        mutual = Tls(cert_file=certificate, key_file=key, ca_file=ca_file)
        async with linked(server.address, tls=mutual) as link:
            heard: list[bytes] = []
            await link.subscribe("a", lambda message: heard.append(message.data))
            await link.publish("a", bytes(500_000))
            await becomes(lambda: heard)
        assert "is not trusted" in await refused(server.address, tls=Tls())
        assert "is not trusted" in await refused(f"tls://{server.address}")
        assert await refused(server.address, tls=Tls(ca_file=ca_file))


PERMISSIONS = """authorization { users: [ { user: me, password: x, permissions: {
  publish: { deny: "No.*" }, subscribe: { deny: "No.*" } } } ] }
"""


async def test_what_is_not_permitted_is_said_and_ends_nothing() -> None:
    need(NatsServer)
    async with NatsServer(PERMISSIONS) as server, linked(f"me:x@{server.address}") as link:
        heard: list[bytes] = []
        await link.subscribe("yes", lambda message: heard.append(message.data))
        with pytest.raises(Unavailable, match=r"does not permit to publish to No\.a"):
            await link.publish("No.a", b"x")
        with pytest.raises(Unavailable, match=r"does not permit to subscribe to No\.b"):
            await link.subscribe("No.b", lambda message: None)
        await link.publish("yes", b"x")
        await becomes(lambda: heard)
        assert link.connections == 1


# Sending


async def test_what_is_too_large_is_refused_before_it_is_sent(server: NatsServer) -> None:
    async with linked(server.address) as link:
        await link.open()
        with pytest.raises(TooLarge) as caught:
            await link.publish("a", bytes(link.max_payload + 1))
        assert caught.value.unsent
        await link.publish("a", bytes(link.max_payload))


async def test_many_publishers_share_questions_and_keep_their_order(server: NatsServer) -> None:
    async with linked(server.address) as link:
        heard: list[int] = []
        await link.subscribe("many", lambda message: heard.append(int(message.data)))
        await asyncio.gather(*(link.publish("many", b"%d" % number) for number in range(2000)))
        await becomes(lambda: len(heard) == 2000)
        assert heard == list(range(2000))


async def test_publishers_wait_when_the_server_does_not_read() -> None:
    need(NatsServer)
    sent = 0

    async def flood(link: Link) -> None:
        nonlocal sent
        while True:
            await link.publish("a", bytes(500_000), confirm=False)
            sent += 1

    settings = NatsSettings(timeout=30)
    async with NatsServer() as server, linked(server.address, settings) as link:
        await link.open()
        server.freeze()
        floods = [asyncio.create_task(flood(link)) for _ in range(100)]
        await asyncio.sleep(0.5)
        assert sent < 200
        before = sent
        for task in floods:
            task.cancel()
        done = await asyncio.gather(*floods, return_exceptions=True)
        assert {type(one) for one in done} == {asyncio.CancelledError}
        server.thaw()
        await link.publish("a", b"still there")
        assert sent == before


async def test_who_is_cancelled_takes_nobody_along(server: NatsServer) -> None:
    async with linked(server.address) as link:
        heard: list[bytes] = []
        await link.subscribe("cancelled", lambda message: heard.append(message.data))
        for turn in range(50):
            tasks = [asyncio.create_task(link.publish("cancelled", b"x")) for _ in range(3)]
            for _ in range(turn % 7):
                await asyncio.sleep(0)
            tasks[1].cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            assert results[0] is results[2] is None
        await link.publish("cancelled", b"last")
        await becomes(lambda: heard[-1:] == [b"last"])
        assert len(heard) >= 101
        assert link.connections == 1


async def test_closing_that_is_cancelled_closes(server: NatsServer) -> None:
    async with linked(server.address) as link:
        await link.subscribe("a", lambda message: None)
        closing = asyncio.create_task(link.close())
        await asyncio.sleep(0)
        closing.cancel()
        await asyncio.gather(closing, return_exceptions=True)
        await becomes(lambda: "closed" in repr(link) and not link.where)


async def test_opening_that_is_cancelled_leaves_nothing(server: NatsServer) -> None:
    for turn in range(20):
        async with linked(server.address) as link:
            opening = asyncio.create_task(link.open())
            for _ in range(turn):
                await asyncio.sleep(0)
            opening.cancel()
            await asyncio.gather(opening, return_exceptions=True)


async def test_a_question_is_answered_or_nobody_listens(server: NatsServer) -> None:
    async with linked(server.address) as link, linked(server.address, QUICK) as other:

        def answer(message: Msg) -> None:
            link.publish_soon(message.reply, b"answer to " + message.data)

        await link.subscribe("question", answer)
        await link.subscribe("silence", lambda message: None)
        assert (await other.request("question", b"x")).data == b"answer to x"
        with pytest.raises(Unavailable, match="nobody listens at nowhere") as caught:
            await other.request("nowhere", b"x")
        assert caught.value.unsent
        with pytest.raises(Unavailable, match=r"nobody answered at silence within 0\.5 s"):
            await other.request("silence", b"x")


async def test_a_mistake_in_taking_a_message_is_logged(
    server: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with linked(server.address) as link:
        heard: list[int] = []
        await link.subscribe("mistake", lambda message: heard.append(int(message.data)))
        await link.publish("mistake", b"no number")
        await link.publish("mistake", b"1")
        await becomes(lambda: heard == [1])
        assert "taking a message of 'mistake' failed" in caplog.text


async def test_the_server_is_asked_after_it_was_sent_what_it_is_asked_about() -> None:
    lines: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        info = '{"version":"2.9.10","headers":true,"max_payload":1048576}'
        writer.write(f"INFO {info}\r\n".encode())
        while line := await reader.readline():
            lines.append(line.split()[0] if line.strip() else b"")
            if line == b"PING\r\n":
                writer.write(b"PONG\r\n")
        writer.close()

    other = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with other, linked(f"127.0.0.1:{other.sockets[0].getsockname()[1]}") as link:
        await link.subscribe("a", lambda message: None)
        assert lines == [b"CONNECT", b"PING", b"SUB", b"PING", b"SUB", b"PING"]
        del lines[:]
        for _ in range(10):
            await link.publish("a", b"payload")
        assert lines == [b"PUB", b"payload", b"PING"] * 10
