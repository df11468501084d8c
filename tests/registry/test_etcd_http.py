"""Tests of how etcd's members are asked, and of what is said when they cannot be."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from shoal.errors import Unavailable
from shoal.registry import _etcd_http
from shoal.registry._etcd_http import EtcdHttp
from shoal.registry.etcd import EtcdRegistry, EtcdSettings
from shoal.registry.etcdv2 import EtcdV2Registry
from tests.registry.etcd_parts import ids, make_record
from tests.servers import free_ports
from tests.servers.etcd import EtcdServer

BRISK = EtcdSettings(timeout=1.0)


@asynccontextmanager
async def something(*answers: bytes) -> AsyncIterator[str]:
    """Listen as something that is no etcd 3.4: it gives one answer a connection, then repeats."""
    waiting = list(answers)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if b"GET /version" in head:
            writer.write(answers[-1])
        else:
            writer.write(waiting.pop(0) if len(waiting) > 1 else answers[0])
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


def http(status: str, body: str) -> bytes:
    return f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode()


MISSING = http("404 Not Found", "404 page not found")


async def problem_of(registry: EtcdRegistry | EtcdV2Registry) -> str:
    """Return the sentence that every operation fails with."""
    said = set()
    asked = (
        registry.get("greeter"),
        registry.services(),
        registry.register(make_record(), ttl=60),
        anext(registry.watch()),
    )
    for each in asked:
        with pytest.raises(Unavailable) as caught:
            await each
        said.add(str(caught.value))
    await registry.close()
    assert len(said) == 1
    return said.pop()


async def test_nobody_listens() -> None:
    address = f"127.0.0.1:{free_ports(1)[0]}"
    said = f"etcd at {address} cannot be asked: Connection refused"
    assert await problem_of(EtcdRegistry(address)) == said
    assert await problem_of(EtcdV2Registry(address)) == said


async def test_the_name_is_unknown() -> None:
    said = await problem_of(EtcdRegistry("nowhere.invalid:2379"))
    assert said.startswith("etcd at nowhere.invalid:2379 cannot be asked: ")
    assert len(said) > 50


async def test_it_is_something_else() -> None:
    async with something(MISSING) as address:
        assert await problem_of(EtcdRegistry(address)) == (
            f"etcd at {address}: this is no etcd: it answers 404"
        )
        assert await problem_of(EtcdV2Registry(address)) == f"etcd at {address}: this is no etcd"
    async with something(http("200 OK", "hello")) as address:
        assert "sends no answer that makes sense" in await problem_of(EtcdRegistry(address))
    async with something(b"SSH-2.0-OpenSSH_9.2\r\n") as address:
        assert "cannot be asked: " in await problem_of(EtcdRegistry(address))


async def test_its_version_is_not_served() -> None:
    version = http("200 OK", '{"etcdserver":"3.3.27","etcdcluster":"3.3.0"}')
    async with something(MISSING, version) as address:
        assert await problem_of(EtcdRegistry(address)) == (
            f"etcd at {address}: version 3.3.27 answers nothing below /v3: Shoal needs etcd 3.4"
            " or newer with its JSON gateway (--enable-grpc-gateway)"
        )
    version = http("200 OK", '{"etcdserver":"3.6.5","etcdcluster":"3.6.0"}')
    async with something(MISSING, version) as address:
        assert await problem_of(EtcdV2Registry(address)) == (
            f"etcd 3.6.5 at {address} answers nothing below /v2: up to 3.5 it does when started"
            " with --enable-v2, later ones have no v2 API: use the registry etcd"
        )


async def test_it_never_answers() -> None:
    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    async with server:
        address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        said = await problem_of(EtcdRegistry(address, settings=BRISK))
        assert said == f"etcd at {address} has not answered within 0.5 s"


async def test_a_member_that_does_not_answer_is_passed_over(etcd: EtcdServer) -> None:
    dead = f"127.0.0.1:{free_ports(1)[0]}"
    async with something(http("503 Service Unavailable", "no leader")) as ill:
        registry = EtcdRegistry(f"{dead},{ill},{etcd.address}")
        await registry.register(make_record())
        assert await ids(registry) == ["a"]
        await registry.close()


async def test_answers_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_etcd_http, "MAX_REPLY", 1000)
    async with something(http("200 OK", "x" * 1001)) as address:
        client = EtcdHttp([address], None, 5.0)
        with pytest.raises(Unavailable, match="more than 1000 bytes"):
            await client.send("GET", "/")
        async with client.open(address, "GET", "/") as response:
            with pytest.raises(Unavailable, match="line of more than 1000 bytes"):
                async for _ in client.lines(response):
                    pass
        await client.close()


async def test_lines_are_read_in_any_pieces() -> None:
    body = b"one\n\ntwo\r\nthr", b"ee\nfour"
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in body) + b"0\r\n\r\n"
    async with something(
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + chunks
    ) as address:
        client = EtcdHttp([address], None, 5.0)
        async with client.open(address, "GET", "/") as response:
            lines = [line async for line in client.lines(response)]
        assert lines == [b"one", b"two\r", b"three", b"four"]
        await client.close()
