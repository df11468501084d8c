"""promise_12: TLS with certificates that are renewed, and nobody in who may not."""

from __future__ import annotations

import asyncio
import itertools
import ssl
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import shoal
from bench.reliability import Report
from bench.reliability._guarded import Guarded
from bench.reliability._processes import Fleet, Process, until
from bench.reliability._service import Job, Worker
from bench.reliability._soaked import Soak
from shoal.auth import bearer
from shoal.client import Client
from shoal.tls import Tls
from tests.auth.keys import Key
from tests.test_tls import Authority

TITLE = "TLS and identity: renewed without a lost call, and nobody in without a fitting token"
WITHOUT = "looking for renewed certificates, and the rules of the endpoints"
NAME = "guarded"
PASSWORD = "swordfish of the key"
AT_ONCE = 4
PAUSE = 1.2  # seconds between two renewals; files count as unchanged for one
GREETING = "an event"


class Renewals:
    """A folder with certificate and key, replaced by a symlink as mounted secrets are."""

    def __init__(self, folder: Path, authority: Authority) -> None:
        self._folder, self._authority = folder, authority
        self._numbers = itertools.count()
        self.renew()
        for name in ("certificate", "key"):
            (folder / name).symlink_to(f"current/{name}")

    def renew(self) -> None:
        """Put a new certificate in place."""
        name = f"generation-{next(self._numbers)}"
        issued = self._authority.issue(name, password=PASSWORD)
        generation = self._folder / name
        generation.mkdir()
        for path, target in zip(issued, ("certificate", "key"), strict=True):
            Path(path).rename(generation / target)
        link = self._folder / "next"
        link.symlink_to(name)
        link.replace(self._folder / "current")


async def prove(report: Report, scale: float) -> None:
    """Renew certificates under load, then try to get in in every wrong way."""
    renewals = max(2, round(10 * scale))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        authority = Authority(folder, "authority")
        served = folder / "served"
        served.mkdir()
        mounted = Renewals(served, authority)
        key = Key()
        pem = folder / "issuer.pem"
        pem.write_text(key.pem)
        async with Fleet() as fleet:
            process = await fleet.start(
                "bench.reliability._guarded", str(pem), NAME,
                f"--tls_cert_file={served}/certificate", f"--tls_key_file={served}/key",
                f"--tls_ca_file={authority.file}", "--tls_client_auth", "--log_level=debug",
                MICRO_TLS_KEY_PASSWORD=PASSWORD,
            )  # fmt: skip
            certificate, own_key = authority.issue("client")
            tls = Tls(cert_file=certificate, key_file=own_key, ca_file=authority.file)
            await renewed(report, fleet, process, tls, key, mounted.renew, renewals)
            tokens = await strangers(report, fleet, process, tls, key, Authority(folder, "other"))
            log = process.log(64 << 20)
            found = sum(secret in log for secret in (PASSWORD, *tokens))
            report.check("secrets in the service's log at level debug", found, 0, "")
            report.check("bytes of that log", len(log), 1, "", at_most=False)


async def renewed(
    report: Report,
    fleet: Fleet,
    process: Process,
    tls: Tls,
    key: Key,
    renew: Callable[[], None],
    times: int,
) -> None:
    """Replace the certificate under load."""
    ends: Counter[str] = Counter()
    seen: set[str] = set()
    middleware = [bearer(key.token("work", lasts=3600.0))]
    async with fleet.connect(tls=tls, middleware=middleware) as client:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(calling(client, ends)) for _ in range(AT_ONCE)]
            for number in range(times + 1):
                if number:
                    renew()
                await asyncio.sleep(PAUSE)
                seen.add(await subject(process, tls))
            for task in tasks:
                task.cancel()
        await client.publish("guarded", GREETING)
        soak = shoal.stub(Soak, NAME, client, address=process.address)

        async def arrived() -> bool:
            return (await soak.held()).events > 0

        await until(arrived, "an event came over the same TLS")
    report.check("certificates that new connections saw", len(seen), times + 1, "", at_most=False)
    report.check("calls meanwhile", ends["done"], 100 * scale_of(times), "", at_most=False)
    report.check("calls that failed while certificates were replaced", ends["failed"], 0, "")


def scale_of(times: int) -> float:
    """Return how long the load ran, in units of a renewal of the shortest run."""
    return times / 2


async def calling(client: Client, ends: Counter[str]) -> None:
    """Call over and over, each time on a connection of its own or one that is open."""
    worker = shoal.stub(Worker, NAME, client)
    while True:
        try:
            await worker.work(Job())
            ends["done"] += 1
        except shoal.Error:
            ends["failed"] += 1
        await asyncio.sleep(0.005)


async def subject(process: Process, tls: Tls) -> str:
    """Return what the certificate says that a new connection is shown."""
    host, _, port = process.address.rpartition(":")
    context = tls.client_context()
    _, writer = await asyncio.open_connection(host, int(port), ssl=context, server_hostname=host)
    try:
        secure: ssl.SSLObject = writer.get_extra_info("ssl_object")
        return str(secure.getpeercert())
    finally:
        writer.transport.abort()


async def strangers(
    report: Report, fleet: Fleet, process: Process, tls: Tls, key: Key, other: Authority
) -> list[str]:
    """Try to get in in every wrong way; returns the tokens that were shown."""
    cut = key.token("work").rpartition(".")[0]
    tokens = {
        "expired": key.token("work", lasts=-60.0),
        "for others": key.token("work", aud="others"),
        "from others": key.token("work", iss="https://others.example/"),
        "by another key": Key().token("work"),
        "unsigned": f"eyJhbGciOiJub25lIn0.{cut.partition('.')[2]}.",
        "no token": "nonsense",
    }
    async with fleet.connect(tls=tls) as client:
        for kind, token in {**tokens, "missing": ""}.items():
            end = await attempt(client, process, "Worker.Work", token)
            report.check(f"let in with a token that is {kind}", end != "Unauthorized", 0, "")
        good = key.token("work", lasts=3600.0)
        for endpoint in ("Worker.Repeatable", "Worker.Counts", "Debug.Stats"):
            end = await attempt(client, process, endpoint, good)
            report.check(f"let in to {endpoint} without its scope", end != "Forbidden", 0, "")
        who = await shoal.stub(
            Guarded, NAME, client, metadata={"Authorization": f"Bearer {good}"}
        ).who("") if not report.without else "john"  # fmt: skip
        report.check("handlers that know their caller", who == "john", 1, "", at_most=False)
    certificate, own_key = other.issue("stranger")
    wrong = {
        "a stranger's certificate": Tls(
            cert_file=certificate, key_file=own_key, ca_file=tls.ca_file
        ),
        "no certificate": Tls(ca_file=tls.ca_file),
        "another authority": Tls(cert_file=certificate, key_file=own_key, ca_file=other.file),
        "no TLS": None,
    }
    for kind, settings in wrong.items():
        async with fleet.connect(tls=settings) as client:
            end = await attempt(client, process, "Worker.Work", good)
            report.check(f"let in with {kind}", end in ("done", "Unauthorized"), 0, "")
    return [*tokens.values(), good]


async def attempt(client: Client, process: Process, endpoint: str, token: str) -> str:
    """Call once and return how it ended: done, or the error's class."""
    metadata = {"Authorization": f"Bearer {token}"} if token else {}
    request = shoal.Request(NAME, endpoint, {}, dict)
    try:
        await client.call(request, address=process.address, metadata=metadata, timeout=10.0)
    except shoal.Error as error:
        return type(error).__name__
    return "done"
