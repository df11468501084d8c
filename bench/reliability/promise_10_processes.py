"""promise_10: several processes, forks, several event loops, and an owner for all that runs."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import shoal
from bench.reliability import Report, is_off
from bench.reliability._processes import Ended, Fleet, Process, until
from bench.reliability._service import make
from shoal import deadlines
from shoal.client import Client, EndOfStream
from shoal.service import _workers
from shoal.testing import leaks, serve

TITLE = "Processes: workers are as fast as cores, crash alone, end together; forks are told"
WITHOUT = "the parent that looks after workers, and the look at who uses a client"
WORKERS = 2
WORK = shoal.Request("proof", "Hasher.Work", 10_000, str)  # rounds of hashing: milliseconds
HOLD = shoal.Request("proof", "Hasher.Hold", 0.01, str)  # seconds: what computing does, idle
IN_FLIGHT = 4  # enough for two cores; more would wait, and then be refused


async def prove(report: Report, scale: float) -> None:
    """Measure workers, end them in all ways, and use clients where they do not belong."""
    seconds = max(2.0, 10.0 * scale)
    await _speed(report, seconds)
    async with Fleet() as fleet:
        await _crashes(report, fleet)
        await _drain(report, fleet, seconds)
        await _orphans(report, fleet)
        await _forks(report, fleet)
    await _foreign(report)
    await _leaks(report)


# Workers


async def _speed(report: Report, seconds: float) -> None:
    """One worker and two in turn, several times, as other work comes and goes."""
    if len(os.sched_getaffinity(0)) < WORKERS:
        report.skip("speed of two workers", "there is one core")
        return
    rates: dict[int, list[float]] = {1: [], WORKERS: []}
    blocked: dict[int, list[float]] = {1: [], WORKERS: []}
    costs: dict[int, list[float]] = {1: [], WORKERS: []}
    for _ in range(3):
        for workers in rates:
            async with Fleet() as fleet:
                parent = await start(fleet, workers)
                async with fleet.connect() as client:
                    rate, cost = await measure(client, parent.ready["pids"], seconds / 3)
                    held, _ = await measure(client, parent.ready["pids"], seconds / 3, HOLD)
                rates[workers].append(rate)
                blocked[workers].append(held)
                costs[workers].append(cost)
    one, two = (max(found) for found in rates.values())
    what = f"{WORKERS} workers, {two:.0f} calls a second, against one"
    report.check(what, two / one, 0.85 * WORKERS, "times", at_most=False, machine=True)
    one, two = (max(found) for found in blocked.values())
    what = f"{WORKERS} workers whose handlers hold the event loop, against one"
    report.check(what, two / one, 0.85 * WORKERS, "times", at_most=False, machine=True)
    one, two = (min(found) for found in costs.values())
    what = f"CPU of a call with {WORKERS} workers, {1000 * two:.2f} ms, against one"
    report.check(what, two / one, 1.25, "times", machine=True)


async def measure(
    client: Client, pids: Sequence[int], seconds: float, request: shoal.Request[str] = WORK
) -> tuple[float, float]:
    """Return calls a second, and the CPU seconds of a call in the workers."""
    seen = _Seen(request)
    async with asyncio.TaskGroup() as group:
        for _ in range(IN_FLIGHT):
            group.create_task(seen.work(client))
        await asyncio.sleep(0.5)
        begun, done, used = time.perf_counter(), seen.done, sum(map(_cpu, pids))
        await asyncio.sleep(seconds)
        calls = max(seen.done - done, 1)
        rate = calls / (time.perf_counter() - begun)
        cost = (sum(map(_cpu, pids)) - used) / calls
        seen.over = True
    return rate, cost


def _cpu(pid: int) -> float:
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


async def _crashes(report: Report, fleet: Fleet) -> None:
    """Kill a worker again and again under load."""
    parent = await start(fleet, WORKERS)
    seen = _Seen()
    pids = set(map(int, parent.ready["pids"]))
    async with fleet.connect() as client:

        async def all_serve() -> bool:
            return {await _pid(client) for _ in range(20)} == pids

        async with asyncio.TaskGroup() as group:
            group.create_task(seen.work(client))
            try:
                for _ in range(3):
                    await until(all_serve, "all workers serve", timeout=15.0)
                    pids.discard(await _crash(client))
                    pids.add((await parent.line(15.0))["pid"])  # of the one in its place
                await until(all_serve, "all workers serve", timeout=15.0)
            except Ended as error:
                print(f"    {str(error).splitlines()[0]}", flush=True)
                pids.clear()
            seen.over = True
    report.check("workers that serve after three crashes", len(pids), WORKERS, "", at_most=False)
    _tell(seen.errors)
    report.check("failed calls at three crashes", len(seen.errors), 6, "")
    os.kill(parent.pid, signal.SIGTERM)
    report.check("exit code of their parent", await _end(parent), 0, "")
    report.check("processes left", await _left(pids), 0, "")


async def _drain(report: Report, fleet: Fleet, seconds: float) -> None:
    """Stop all workers with one signal, while others serve."""
    parent = await start(fleet, WORKERS)
    await start(fleet, 1)
    seen = _Seen()
    async with fleet.connect() as client, asyncio.TaskGroup() as group:
        for _ in range(IN_FLIGHT):
            group.create_task(seen.work(client))
        await asyncio.sleep(seconds / 4)
        os.kill(parent.pid, signal.SIGTERM)
        code = await _end(parent)
        await asyncio.sleep(seconds / 4)
        seen.over = True
    report.check("exit code after one SIGTERM", code, 0, "")
    _tell(seen.errors)
    report.check(f"failed of {seen.done:,} calls meanwhile", len(seen.errors), 0, "")


async def _orphans(report: Report, fleet: Fleet) -> None:
    """Kill the parent."""
    parent = await start(fleet, WORKERS)
    pids = set(map(int, parent.ready["pids"]))
    os.kill(parent.pid, signal.SIGKILL)
    await parent.wait()
    report.check("workers left 5 s after the death of their parent", await _left(pids, 5.0), 0, "")


async def start(fleet: Fleet, workers: int) -> Process:
    """Start a service of so many processes; `pids` of what it is ready with are theirs."""
    parent = await fleet.start(__name__, "proof", f"--workers={workers}", "--broker=memory")
    pids = [parent.ready["pid"]] + [(await parent.line())["pid"] for _ in range(workers - 1)]
    parent.ready["pids"] = pids
    return parent


async def _end(process: Process) -> int:
    try:
        return abs(await process.wait(30.0))
    except Ended:
        return 255  # it did not end


async def _pid(client: Client) -> int:
    # At random: by their latencies one would get all of a few calls.
    request = shoal.Request("proof", "Hasher.Pid", None, int)
    return await client.call(request, strategy=lambda _, loads: random.choice(loads))


async def _crash(client: Client) -> int:
    """Let one worker end at once, and return which."""
    crashing = shoal.Request("proof", "Hasher.Crash", None, int)
    async with client.stream(crashing) as stream:
        pid = await stream.recv()
        with suppress(shoal.Error, EndOfStream):
            await stream.recv()
    return pid


async def _left(pids: set[int], seconds: float = 1.0) -> int:
    def alive() -> list[int]:
        return [pid for pid in pids if _state(pid) not in "ZX"]

    with suppress(Ended):
        await until(lambda: not alive(), "all ended", timeout=seconds)
    left = alive()
    for pid in left:  # nobody else ends them now
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return len(left)


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "X"


def _tell(errors: Sequence[str]) -> None:
    for text, count in Counter(errors).most_common(3):
        print(f"    {count} x {text}", flush=True)


class _Seen:
    """What callers saw."""

    def __init__(self, request: shoal.Request[str] = WORK) -> None:
        self.request = request
        self.done = 0
        self.over = False
        self.errors: list[str] = []

    async def work(self, client: Client) -> None:
        """Call until it is over."""
        while not self.over:
            try:
                await client.call(self.request, timeout=20.0)
                self.done += 1
            except shoal.Error as error:
                self.errors.append(str(error))


# Where a client does not belong


async def _forks(report: Report, fleet: Fleet) -> None:
    """Use a client in a process that was forked while the parent used it."""
    told = (await fleet.start(__name__, "fork")).ready
    report.check("uses in a forked process that were told", told["told"], 3, "", at_most=False)
    report.check("calls of the parent that went wrong after that", told["wrong"], 0, "")


async def _foreign(report: Report) -> None:
    """Use a client in the loop of another thread, many at a time."""
    answers: Counter[str] = Counter()

    async def use(client: Client) -> None:
        try:
            async with asyncio.timeout(10):
                await client.call(shoal.Request("hasher", "Hasher.Pid", None, int))
            answers["nothing"] += 1
        except RuntimeError as error:
            answers["told" if "belongs to" in str(error) else str(error)] += 1
        except TimeoutError:
            answers["nothing"] += 1

    async with serve(Hasher()) as client:
        call = shoal.Request("hasher", "Hasher.Pid", None, int)
        await client.call(call)
        threads = [
            threading.Thread(target=lambda: asyncio.run(use(client)), daemon=True)
            for _ in range(20)
        ]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            with suppress(TimeoutError):
                await client.call(call, timeout=1.0)
    report.check("uses in another loop that were told", answers["told"], 20, "", at_most=False)


async def _leaks(report: Report) -> None:
    """Leave something behind on purpose, and start and stop a service in order."""
    found = 0
    task = None
    try:
        async with leaks.no_leaks(0.1):
            task = asyncio.create_task(asyncio.sleep(3600))
    except AssertionError:
        found += 1
    if task is not None:
        task.cancel()
    report.check("leaks on purpose that were found", found, 1, "", at_most=False)
    left = 0
    try:
        async with leaks.no_leaks(10.0), serve(Hasher()) as client:
            await client.call(shoal.Request("hasher", "Hasher.Pid", None, int))
    except AssertionError:
        left = 1
    report.check("services that left something behind", left, 0, "")


# The programs


class Hasher:
    """Handlers that need a core."""

    async def work(self, rounds: int) -> str:
        """Compute for a while."""
        value = b""
        for _ in range(rounds):
            value = hashlib.sha256(value).digest()
        return value.hex()

    async def hold(self, seconds: float) -> str:
        """Hold the event loop for a while."""
        time.sleep(seconds)  # noqa: ASYNC251  (what must not be done)
        return ""

    async def pid(self) -> int:
        """Tell who answers."""
        return os.getpid()

    async def crash(self) -> AsyncIterator[int]:
        """Tell who this is, and end this process at once."""
        yield os.getpid()
        await asyncio.sleep(0.05)
        os._exit(70)


class _Saying(shoal.Group):
    """A group that says which process serves."""

    async def __aenter__(self) -> _Saying:
        await super().__aenter__()
        print(json.dumps({"pid": os.getpid()}), flush=True)
        return self


def _fork() -> None:
    """Use a client, fork, use it in the child, and go on in the parent."""

    async def main() -> dict[str, int]:
        async with serve(Hasher()) as client:
            call = shoal.Request("hasher", "Hasher.Pid", None, int)
            await client.call(call)

            async def stream() -> None:
                async with client.stream(call):
                    pass

            told = 0
            for use in (client.call(call), client.publish("topic", "a"), stream()):
                told += _in_child(use)
                use.close()
            wrong = [await client.call(call) != os.getpid() for _ in range(10)]
            return {"told": told, "wrong": sum(wrong)}

    print(json.dumps(asyncio.run(main())), flush=True)


def _in_child(use: Coroutine[Any, Any, Any]) -> bool:
    pid = os.fork()
    if pid == 0:
        try:
            use.send(None)
        except RuntimeError as error:
            os._exit(0 if "forked" in str(error) else 1)
        except BaseException:
            os._exit(1)
        os._exit(1)
    return os.waitpid(pid, 0)[1] == 0


def _switch_off() -> None:
    """Have nobody look after workers, nor at who uses a client."""

    async def keep(supervisor: _workers._Supervisor, number: int) -> None:
        process = await _workers._Process.start(number)
        await process.wait()

    _workers._Supervisor._keep = keep  # type: ignore[method-assign, assignment]  # it is off
    _workers.Worker.until_stopped = lambda *_: None  # type: ignore[method-assign]  # as well
    deadlines._alive.add = lambda *_: None  # type: ignore[method-assign]  # and so is this


if __name__ == "__main__":
    if is_off(10):
        _switch_off()
    if sys.argv[1:] == ["fork"]:
        _fork()
    else:
        made = make(sys.argv[1:])
        made.handle(Hasher())
        _Saying(made).run()
