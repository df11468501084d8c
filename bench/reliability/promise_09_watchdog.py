"""promise_09: a handler that blocks the event loop is found, told of, and survived."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from pathlib import Path

import shoal
from bench.reliability import Report
from bench.reliability import _service as program
from bench.reliability._processes import Fleet, Process, free_port, page, until
from bench.reliability._service import Job, Worker
from shoal import plugins
from tests.servers import MissingServer, find
from tests.servers.etcd import EtcdServer

TITLE = "Blocked event loop: the line is logged, probes are answered, registration is kept"
WITHOUT = "the watchdog"

LIMIT = 0.5  # seconds until a blockage is reported
DEAD = 2.0  # until the process is told to be dead
TTL, INTERVAL = 6, 2  # seconds; 90 and 30 by default


async def prove(report: Report, scale: float) -> None:
    """Block the loop of a service again and again, probe it meanwhile, and count what it costs."""
    flags = () if report.without else (f"--watchdog={LIMIT}s",)
    off = ("--watchdog=0",) if report.without else ()
    await _blocked(report, max(3.0, 10 * scale), flags + off)
    await asyncio.gather(
        _many(report, max(3, int(20 * scale)), flags + off),
        _registered(report, flags + off),
        _cost(report, max(5.0, 20 * scale)),
    )


async def _start(fleet: Fleet, *flags: str) -> tuple[Process, str]:
    probe = f"127.0.0.1:{free_port()}"
    limits = (f"--health_address={probe}", f"--health_limit={DEAD}s")
    return await fleet.service("proof", *limits, *flags), probe


async def _block(fleet: Fleet, process: Process, seconds: float) -> None:
    async with fleet.connect() as client:
        worker = shoal.stub(Worker, "proof", client, address=process.address, timeout=60.0)
        await worker.work(Job(seconds, block=True))


async def _blocked(report: Report, seconds: float, flags: tuple[str, ...]) -> None:
    """One long blockage, probed all the time by somebody else."""
    loop = asyncio.get_running_loop()
    async with Fleet() as fleet:
        process, probe = await _start(fleet, *flags)
        await until(lambda: _is(probe, "/readyz", 200), "ready")
        begun = loop.time()
        blocking = asyncio.create_task(_block(fleet, process, seconds))
        answers: list[tuple[float, str, int, float]] = []
        while not blocking.done():
            for path in ("/healthz", "/readyz"):
                asked = loop.time()
                status, _ = await page(probe, path)
                answers.append((asked - begun, path, status, loop.time() - asked))
            await asyncio.sleep(0.02)
        await blocking
        ready = await until(lambda: _is(probe, "/readyz", 200), "ready again")
        if not report.without:
            await until(lambda: "was blocked for" in process.log(20_000), "told how long it took")
        log = process.log(20_000)
    unanswered = sum(status not in (200, 503) for _, _, status, _ in answers)
    report.check(f"of {len(answers)} probes during {seconds:g} s unanswered", unanswered, 0, "")
    slowest = max(took for *_, took in answers) * 1000
    report.check("the slowest answer to a probe", slowest, 250, machine=True)
    unready = min(
        (at for at, path, code, _ in answers if (path, code) == ("/readyz", 503)), default=60
    )
    report.check("until readiness said so", unready, LIMIT + 0.5, "s", machine=True)
    dead = min(
        (at for at, path, code, _ in answers if (path, code) == ("/healthz", 503)), default=60
    )
    report.check(f"until liveness said so, limit {DEAD:g} s", dead, DEAD + 1, "s", machine=True)
    report.check("at the earliest", dead, DEAD - 0.1, "s", at_most=False)
    report.check("until ready again", ready, 1, "s", machine=True)
    if not report.check("log lines that name what blocks", _named(log), 1, "", at_most=False):
        print(re.sub(r"(?m)^", "    ", log), flush=True)
    report.check("of them for one blockage", _named(log), 1, "")
    told = re.search(r"was blocked for ([0-9.]+) s", log)
    off = abs(float(told[1]) - seconds) if told else 60.0
    report.check("the duration in the log is off by", off, 0.5, "s", machine=True)


def _named(log: str) -> int:
    """Return how often the log says that the sleep in the handler blocks."""
    source = Path(program.__file__).read_text(encoding="utf-8").splitlines()
    number = next(at for at, line in enumerate(source, 1) if "time.sleep(job.seconds)" in line)
    where = re.escape(f"_service.py:{number} in work")
    return len(re.findall(rf"was blocked for [0-9.]+ s by \S*{where}", log))


async def _is(probe: str, path: str, status: int) -> bool:
    return (await page(probe, path))[0] == status


async def _many(report: Report, times: int, flags: tuple[str, ...]) -> None:
    """Blockages shorter and longer than the limit: the longer ones are told, each once."""
    async with Fleet() as fleet:
        process, _ = await _start(fleet, *flags)
        for _ in range(times):
            await _block(fleet, process, LIMIT / 5)
            await _block(fleet, process, LIMIT * 2)
            await asyncio.sleep(LIMIT / 2)
        log = process.log(1_000_000)
    report.check(f"told of {times} blockages", _named(log), times, "", at_most=False)
    report.check(f"told of {times} others too short to tell, and twice", _named(log) - times, 0, "")


# Registration


async def _registered(report: Report, flags: tuple[str, ...]) -> None:
    """Block for less than the TTL: the node stays. For longer: it is back at once."""
    what = "registration during a blockage"
    if os.environ.get("SHOAL_SERVERS") == "no":
        report.skip(what, "left out: SHOAL_SERVERS=no")
        return
    try:
        find(EtcdServer.binary)
    except MissingServer as error:
        report.skip(what, str(error))
        return
    async with EtcdServer() as server, Fleet() as fleet:
        where = f"etcd://{server.address}"
        times = (f"--register_ttl={TTL}s", f"--register_interval={INTERVAL}s")
        process, probe = await _start(fleet, f"--registry={where}", *times, *flags)
        registry = plugins.load("registry", "etcd")(server.address)

        async def there() -> bool:
            return any(record.nodes for record in await registry.get("proof"))

        try:
            await until(there, "registered")
            short = TTL - INTERVAL - 1.0
            missing = await _missing(there, asyncio.create_task(_block(fleet, process, short)))
            report.check(
                f"blocked for {short:g} s, TTL {TTL} s: look-ups without it", missing, 0, ""
            )
            long = TTL + INTERVAL + 1.0
            await _missing(there, asyncio.create_task(_block(fleet, process, long)))
            back = await until(there, "registered again")
            report.check(
                f"blocked for {long:g} s: until it is registered again", back, 2, "s", machine=True
            )
            await until(lambda: _is(probe, "/readyz", 200), "ready again")
        finally:
            await registry.close()


async def _missing(there: object, blocking: asyncio.Task[None]) -> int:
    """Look the node up until the blockage is over; return how often it was not there."""
    assert callable(there)
    missing = 0
    while not blocking.done():
        missing += not await there()
        await asyncio.sleep(0.1)
    await blocking
    return missing


# What it costs


async def _cost(report: Report, seconds: float) -> None:
    """Compare what an idle service uses with the watchdog and without."""
    what = "CPU of the watchdog in an idle service"
    if not sys.platform.startswith("linux"):
        report.skip(what, "only Linux tells it to the microsecond")
        return
    used = {}
    async with Fleet() as fleet:
        processes = {
            flag: (await _start(fleet, flag))[0] for flag in ("--watchdog=1s", "--watchdog=0")
        }
        await asyncio.sleep(2.0)  # what a start leaves to be done
        for flag, process in processes.items():
            used[flag] = -_cpu(process.pid)
        await asyncio.sleep(seconds)
        for flag, process in processes.items():
            used[flag] += _cpu(process.pid)
    more = (used["--watchdog=1s"] - used["--watchdog=0"]) / seconds * 1000
    report.check(what, max(more, 0.0), 2.0, "ms/s", machine=True)


def _cpu(pid: int) -> float:
    """Return the CPU seconds of all threads of a process."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((one / "schedstat").read_text().split()[0]) for one in tasks) / 1e9
