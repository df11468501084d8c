"""promise_07: calls go on whatever happens to the registry, and all is repaired afterwards."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from bench.reliability import Report
from bench.reliability._network import Forbidden, Host, Network
from bench.reliability._processes import Fleet, Process, free_port, page, until
from shoal import plugins
from shoal.registry import Registry
from tests.servers import MissingServer, Server, find
from tests.servers.consul import ConsulServer
from tests.servers.etcd import EtcdServer
from tests.servers.nats import NatsServer

TITLE = "Registry down, registry lying"
WITHOUT = "keeping the nodes known last, when the registry fails or knows nobody all at once"

RATE = 50.0  # calls a second
INTERVAL, TTL = 2, 6  # seconds; shorter than the defaults, so that an outage outlasts them
LOOKUP = "1"  # seconds between look-ups of the callers, 60 by default
MODULE = "bench.reliability._caller_07"


async def prove(report: Report, scale: float) -> None:
    """Run every story, those that wait for each other's machines at the same time."""
    outage = max(120 * scale, TTL + 4.0)
    stories: list[Callable[[Report], Awaitable[None]]] = [
        partial(_file_lies, seconds=max(20 * scale, 3.0)),
        partial(_network, "multicast blocked", _multicast, outage),
    ]
    for kind in (EtcdServer, ConsulServer, NatsServer):
        if missing := _missing(kind):
            report.skip(f"{kind.binary} stopped", missing)
            continue
        stories.append(partial(_outage, server=kind(), seconds=outage))
    for lossy in (EtcdServer, ConsulServer):  # NATS stores nothing that could be lost
        if not _missing(lossy):
            stories.append(partial(_lost, server=lossy()))  # noqa: PERF401  (it reads as above)
    if not _missing(ConsulServer):
        stories.append(_hidden)
    if not _missing(EtcdServer):
        stories.append(partial(_network, "client cut off from etcd", _client_cut_off, outage))
        stories.append(partial(_network, "nodes cut off from etcd", _nodes_cut_off, outage))
    parts = [replace(report, checks=[], skipped={}) for _ in stories]
    await asyncio.gather(*(story(part) for story, part in zip(stories, parts, strict=True)))
    for part in parts:
        report.checks.extend(part.checks)
        report.skipped.update(part.skipped)


def _missing(kind: type[Server]) -> str:
    if os.environ.get("SHOAL_SERVERS") == "no":
        return "left out: SHOAL_SERVERS=no"
    try:
        find(kind.binary)
    except MissingServer as error:
        return str(error)
    return ""


# A registry that is down


async def _outage(report: Report, server: Server, seconds: float) -> None:
    name = type(server).__name__.removesuffix("Server").lower()
    async with server, Fleet() as fleet:
        where = f"{name}://{server.address}"
        probe = f"127.0.0.1:{free_port()}"
        nodes = [
            await _serve(
                fleet.service, where, f"--health_address={probe}", "--telemetry=prometheus"
            ),
            await _serve(fleet.service, where),
        ]
        caller = await fleet.start(MODULE, "proof", LOOKUP, where)
        await until(lambda: _ready(probe), f"{name}: ready before the outage")
        await _begin(caller)
        await asyncio.sleep(1)
        await server.stop()
        noticed = await until(lambda: _unready(probe), f"{name}: readiness tells of the outage")
        _, metrics = await page(probe, "/metrics")
        await asyncio.sleep(max(seconds - noticed, 1.0))
        await server.start()
        back = await until(lambda: _found(where, nodes), f"{name}: all registered again")
        ready = await until(lambda: _ready(probe), f"{name}: ready again")
        newcomer = await _serve(fleet.service, where)
        await asyncio.sleep(3)
        results = await _end(caller)
    text = f"{name} down for {seconds:.0f} s: "
    _went_on(report, text, results)
    report.check(f"{text}until readiness said so", noticed, 15, "s", machine=True)
    said = sum(line in metrics for line in ("shoal_ready 0.0", 'shoal_part_well{part="regist'))
    report.check(f"{text}metrics that said so", said, 2, "", at_most=False)
    report.check(f"{name} back: until all were registered again", back, 15, "s", machine=True)
    report.check(f"{name} back: until ready again", back + ready, 20, "s", machine=True)
    _reached(report, f"{name} back: calls that reach a node started then", results, newcomer)


# A registry that forgot


async def _lost(report: Report, server: EtcdServer | ConsulServer) -> None:
    """An operator deletes what is registered while all is well: it is put back."""
    name = type(server).__name__.removesuffix("Server").lower()
    async with server, Fleet() as fleet:
        where = f"{name}://{server.address}"
        nodes = [await _serve(fleet.service, where) for _ in range(2)]
        caller = await fleet.start(MODULE, "proof", LOOKUP, where)
        await _begin(caller)
        await asyncio.sleep(1)
        if isinstance(server, EtcdServer):
            for lease in (await server.ask("lease/leases", {})).get("leases", []):
                await server.ask("lease/revoke", {"ID": lease["ID"]})
        else:
            await _of_every_service(server, "deregister")
        back = await until(lambda: _found(where, nodes), f"{name}: registered again")
        results = await _end(caller)
    _went_on(report, f"{name} lost every registration: ", results)
    report.check(
        f"{name} lost every registration: until all stood there again",
        back, INTERVAL + 2, "s", machine=True,
    )  # fmt: skip


async def _hidden(report: Report) -> None:
    """A node is registered, and yet nobody who asks is told of it: it says that it is not ready."""
    async with ConsulServer() as server, Fleet() as fleet:
        probe = f"127.0.0.1:{free_port()}"
        await _serve(fleet.service, f"consul://{server.address}", f"--health_address={probe}")
        await until(lambda: _ready(probe), "ready before it is hidden")
        await _of_every_service(server, "maintenance", "?enable=true")
        noticed = await until(lambda: _unready(probe, "discovery"), "readiness tells of it")
        await _of_every_service(server, "maintenance", "?enable=false")
        back = await until(lambda: _ready(probe), "ready again")
    text = "consul hides a node: until it says that it is not ready"
    report.check(text, noticed, 20, "s", machine=True)
    report.check("consul shows it again: until it is ready", back, 5, "s", machine=True)


async def _of_every_service(server: ConsulServer, what: str, how: str = "") -> None:
    async with httpx.AsyncClient(trust_env=False) as client:
        base = f"http://{server.address}/v1/agent"
        for one in (await client.get(f"{base}/services")).json():
            (await client.put(f"{base}/service/{what}/{one}{how}")).raise_for_status()


# A registry that lies


async def _file_lies(report: Report, seconds: float) -> None:
    """A list of nodes that is empty, rubbish and gone, one after the other."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "nodes")
        async with Fleet() as fleet:
            nodes = [await _serve(fleet.service, "memory") for _ in range(2)]
            _write(path, f"proof={','.join(node.address for node in nodes)}\n")
            caller = await fleet.start(MODULE, "proof", LOOKUP, f"static://{path}")
            await _begin(caller)
            await asyncio.sleep(1)
            for content in ("", "\x00\xff{[", None):
                _write(path, content)
                await asyncio.sleep(seconds)
            newcomer = await _serve(fleet.service, "memory")
            _write(path, f"proof={newcomer.address}\n")
            await asyncio.sleep(4)
            results = await _end(caller)
    _went_on(report, f"an empty, garbled and missing list, {seconds:.0f} s each: ", results)
    _reached(report, "the list is right again: calls that reach a new node", results, newcomer)


def _write(path: Path, content: str | None) -> None:
    if content is None:
        path.unlink()
    else:
        path.write_text(content, encoding="latin-1")


# A network that fails


async def _network(
    what: str, story: Callable[..., Awaitable[None]], seconds: float, report: Report
) -> None:
    try:
        network = Network(seed=7)
    except Forbidden as error:
        report.skip(what, str(error))
        return
    async with network, Fleet() as fleet:
        await story(report, network, fleet, seconds)
        for process in fleet.processes:  # before their machines
            await process.kill()


async def _multicast(report: Report, network: Network, fleet: Fleet, seconds: float) -> None:
    """The default registry hears nobody any more, which looks as if nobody were there."""
    one, other, third = [await network.host() for _ in range(3)]
    flags = (f"--register_interval={INTERVAL}", f"--register_ttl={TTL}")
    for host in (one, other):
        await host.service(fleet, "proof", *flags)
    caller = await third.start(fleet, MODULE, "proof", LOOKUP, "")
    await _begin(caller)
    await asyncio.sleep(2)
    network.multicast = False
    await asyncio.sleep(seconds)
    network.multicast = True
    newcomer = await one.service(fleet, "proof", *flags)
    await asyncio.sleep(5)
    results = await _end(caller)
    _went_on(report, f"multicast blocked for {seconds:.0f} s: ", results)
    _reached(report, "multicast passes again: calls that reach a new node", results, newcomer)


async def _client_cut_off(report: Report, network: Network, fleet: Fleet, seconds: float) -> None:
    """The client cannot reach etcd, and then it can."""
    one, third, middle = [await network.host() for _ in range(3)]
    async with _Inside(middle) as server:
        where = f"etcd://{server.address}"
        for _ in range(2):
            await _serve(one.service, where, fleet=fleet)
        caller = await third.start(fleet, MODULE, "proof", LOOKUP, where)
        await _begin(caller)
        await asyncio.sleep(1)
        network.cut(third, middle)
        await asyncio.sleep(seconds)
        hidden = await _serve(one.service, where, fleet=fleet)
        network.heal()
        await asyncio.sleep(8)
        results = await _end(caller)
    _went_on(report, f"client cut off from etcd for {seconds:.0f} s: ", results)
    _reached(report, "client healed: calls that reach a node of then", results, hidden)


async def _nodes_cut_off(report: Report, network: Network, fleet: Fleet, seconds: float) -> None:
    """No node can reach etcd, which therefore ends their leases and tells the client so."""
    one, other, third, middle = [await network.host() for _ in range(4)]
    async with _Inside(middle) as server:
        where = f"etcd://{server.address}"
        for host in (one, other):
            await _serve(host.service, where, fleet=fleet)
        caller = await third.start(fleet, MODULE, "proof", LOOKUP, where)
        await _begin(caller)
        network.cut(one, middle)
        network.cut(other, middle)
        await asyncio.sleep(max(seconds, 2.0 * TTL))
        network.heal()
        await asyncio.sleep(2)
        results = await _end(caller)
    _went_on(report, "all nodes cut off from etcd until their leases ended: ", results)


class _Inside(EtcdServer):
    """An etcd on a host of the network."""

    def __init__(self, host: Host) -> None:
        super().__init__()
        self._host = host

    @property
    def address(self) -> str:
        return f"{self._host.address}:{self.port}"

    def command(self) -> list[str]:
        program, *words = super().command()
        return ["ip", "netns", "exec", self._host.namespace, find(program), *words]

    async def ready(self) -> bool:
        """Tell whether it is ready, asking from its own host: there is no way in from here."""
        where = f"http://{self.address}/health"
        ask = f"import urllib.request as r; print(r.urlopen({where!r}, timeout=3).status)"
        process = await asyncio.create_subprocess_exec(
            *("ip", "netns", "exec", self._host.namespace, "python3", "-c", ask),
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        answer, _ = await process.communicate()
        return answer.strip() == b"200"


# What they have in common


async def _serve(
    start: Callable[..., Awaitable[Process]], registry: str, *flags: str, fleet: Fleet | None = None
) -> Process:
    times = (f"--register_interval={INTERVAL}", f"--register_ttl={TTL}")
    words = ("proof", f"--registry={registry}", *times, *flags)
    return await (start(*words) if fleet is None else start(fleet, *words))


async def _begin(caller: Process) -> None:
    await caller.ask({"call": {"timeout": 10}})
    await caller.ask({"begin": {"rate": RATE, "timeout": 5}})


async def _end(caller: Process) -> list[list[Any]]:
    results: list[list[Any]] = (await caller.ask({"end": {}}))["results"]
    return results


def _went_on(report: Report, text: str, results: list[list[Any]]) -> None:
    failed = [error for _, _, error, _ in results if error]
    if failed:
        print(f"  {text}{failed[0]}", flush=True)
    report.check(f"{text}failed calls of {len(results)}", len(failed), 0, "")


def _reached(report: Report, text: str, results: list[list[Any]], node: Process) -> None:
    pid = node.ready["pid"]
    report.check(text, sum(one[3] == pid for one in results), 1, "", at_most=False)


async def _ready(probe: str) -> bool:
    return (await page(probe, "/readyz"))[0] == 200


async def _unready(probe: str, part: str = "regist") -> bool:
    status, body = await page(probe, "/readyz")
    return status == 503 and part in body


async def _found(where: str, nodes: list[Process]) -> bool:
    """Whether somebody who asks for the first time finds all nodes."""
    name, _, address = where.partition("://")
    registry: Registry = plugins.load("registry", name)(address)
    try:
        async with asyncio.timeout(3):
            records = await registry.get("proof")
    except Exception:
        return False
    finally:
        await registry.close()
    found = {node.id for record in records for node in record.nodes}
    return {node.ready["node"] for node in nodes} <= found
