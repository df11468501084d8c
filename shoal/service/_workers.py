"""Module _workers runs a program several times at once, each a process with a node of its own.

The parent executes its own command line again for every worker, so that whatever the program does
before `run()` is done in each of them, wherever it stands. A worker knows that it is one by a
socket it inherits; it says on it that it serves, and stops when the parent's end is closed,
whether by the parent or by the parent's death.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import re
import signal
import socket
import stat
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace

from shoal.options import Options
from shoal.service._workers_health import WorkersHealth

logger = logging.getLogger("shoal.service")

VARIABLE = "SHOAL_WORKER"  # number, file descriptor and inode: nobody inherits all three by chance
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 30.0  # seconds before a worker that ended is started again
STEADY = 60.0  # seconds a worker has to last until its earlier ends are forgotten
CLOSING = 10.0  # seconds a worker may take to stop, besides its linger and grace


@dataclass(frozen=True, slots=True)
class Worker:
    """What a worker process knows of itself: its number, from 0, and the way to its parent."""

    number: int
    parent: int

    @classmethod
    def here(cls) -> Worker | None:
        """Return which worker this process is, None for a parent and everyone else.

        What a worker starts inherits the variable, and not the descriptor.
        """
        try:
            number, descriptor, inode = map(int, os.environ.get(VARIABLE, "").split(":"))
            found = os.fstat(descriptor)
        except (ValueError, OSError):
            return None
        if not stat.S_ISSOCK(found.st_mode) or found.st_ino != inode:
            return None
        return cls(number, descriptor)

    def options(self, options: Options) -> Options:
        """Return the options of this worker: what is given once is the first one's.

        A port is the first of as many as there are workers, an id gets a number behind it.
        """
        broker, address = options.plugin("broker")
        if broker == "http" and address:
            options = replace(options, broker="http", broker_address=self._own(address))
        return replace(
            options,
            id=f"{options.id}-{self.number}" if options.id else "",
            address=self._own(options.address),
            health="127.0.0.1:0" if options.health else "",  # the parent's port asks this one
            advertise=self._own(options.advertise),
        )

    def _own(self, address: str) -> str:
        if address.startswith("unix:"):
            return f"{address}.{self.number}" if self.number else address
        found = re.fullmatch(r"(.*:)([0-9]+)", address)
        if found is None or found[2] == "0" or (address.count(":") > 1 and "]" not in address):
            return address
        return f"{found[1]}{int(found[2]) + self.number}"

    def serves(self, health: str) -> None:
        """Tell the parent that this worker has started, and where it answers probes."""
        with contextlib.suppress(OSError):  # the parent is gone: `until_stopped` sees to it
            os.write(self.parent, f"{health}\n".encode())

    def until_stopped(self, stop: Callable[[], object], patience: float) -> None:
        """Call `stop` in the event loop when the parent asks for it or has died.

        The process is killed if it is still there `patience` seconds later: nobody else would.
        """
        loop = asyncio.get_running_loop()

        def wait() -> None:
            with contextlib.suppress(OSError):
                while os.read(self.parent, 1):
                    pass
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(stop)
            threading.Event().wait(patience)
            os.kill(os.getpid(), signal.SIGKILL)

        # A thread, as a handler may block the loop for ever.
        threading.Thread(target=wait, name="shoal-worker", daemon=True).start()


def patience(options: Options) -> float:
    """Return the seconds a service gets to stop in order."""
    return options.server_linger + options.server_grace + CLOSING


def supervise(options: Options) -> int:
    """Run as many workers as the options say until a signal, and return the exit code."""
    return asyncio.run(_Supervisor(options).run())


class _Supervisor:
    """The parent: it starts workers, starts those again that end, and stops all of them."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._stopping = asyncio.Event()
        self._processes: dict[int, _Process] = {}
        self._code = 0

    async def run(self) -> int:
        """Keep all workers until a signal comes, or one cannot start in the first place."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._on_signal, number)
        count = self._options.workers
        health = WorkersHealth(self._options, self._probes) if self._options.health else None
        if health is not None:
            health.port.start()
            logger.info("Health on http://%s/readyz", health.port.address)
        logger.info("starting %d workers", count)
        keepers = [loop.create_task(self._keep(number)) for number in range(count)]
        try:
            await self._stopping.wait()
            for process in self._processes.values():
                process.stop()
            seconds = patience(self._options)
            _, late = await asyncio.wait(keepers, timeout=seconds)
            if late:
                logger.error("%d workers still run after %g s: killed", len(late), seconds)
                self._code = self._code or 1
        finally:
            for process in self._processes.values():
                process.kill()
            if health is not None:
                health.port.stop()
        await asyncio.gather(*keepers)
        return self._code

    def _probes(self) -> dict[int, str]:
        found = dict(self._processes)
        return {
            number: found[number].health if number in found else ""
            for number in range(self._options.workers)
        }

    def _on_signal(self, number: int) -> None:
        if not self._stopping.is_set():
            logger.info("%s: stopping all workers", signal.Signals(number).name)
            self._stopping.set()
            return
        self._code = 128 + number  # asked twice: at once
        for process in self._processes.values():
            process.kill()

    def _end(self, code: int) -> None:
        self._code = self._code or code
        self._stopping.set()

    async def _keep(self, number: int) -> None:
        """Run one worker again and again."""
        loop = asyncio.get_running_loop()
        failures = 0
        served = False
        while not self._stopping.is_set():
            began = loop.time()
            try:
                process = await _Process.start(number)
            except OSError as error:
                logger.error("worker %d cannot be started: %s", number, error)
                self._end(1)
                return
            self._processes[number] = process
            if self._stopping.is_set():
                process.stop()
            code = await process.wait()
            del self._processes[number]
            served = served or process.serving
            if self._stopping.is_set():
                if code > 0 or (code < 0 and process.serving):
                    logger.error("worker %d %s while it was to stop", number, _ending(code))
                    self._code = self._code or 1
                return
            if not served:
                # As a service alone would: what is wrong with it is wrong again the next time.
                logger.error("worker %d %s before it served", number, _ending(code))
                self._end(code if code > 0 else 1)
                return
            failures = failures + 1 if loop.time() - began < STEADY else 0
            pause = min(FIRST_PAUSE * 2.0 ** min(failures, 20), LONGEST_PAUSE)
            pause *= random.uniform(0.5, 1.0)
            logger.error(
                "worker %d (pid %d) %s: started again in %.1f s",
                number, process.pid, _ending(code), pause,
            )  # fmt: skip
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._stopping.wait()


class _Process:
    """One worker process, and this end of the socket it inherits."""

    def __init__(self, number: int, process: asyncio.subprocess.Process, line: socket.socket):
        self.serving = False
        self.health = ""
        self.pid = process.pid
        self._number = number
        self._process = process
        self._line = line
        self._asked = False
        asyncio.get_running_loop().add_reader(line, self._hear)

    @classmethod
    async def start(cls, number: int) -> _Process:
        """Execute the command line of this process again."""
        line, theirs = socket.socketpair()
        with theirs:
            inode = os.fstat(theirs.fileno()).st_ino
            said = f"{number}:{theirs.fileno()}:{inode}"
            line.setblocking(False)
            try:
                process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    *sys.orig_argv[1:],
                    stdin=asyncio.subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(),),
                    env={**os.environ, VARIABLE: said},
                )
            except BaseException:
                line.close()
                raise
        return cls(number, process, line)

    def _hear(self) -> None:
        if said := self._line.recv(256):
            self.serving = True
            self.health = said.decode().strip()
            logger.info("worker %d (pid %d) serves", self._number, self.pid)
        else:
            asyncio.get_running_loop().remove_reader(self._line)

    async def wait(self) -> int:
        """Wait for its end; a negative code is the signal that ended it."""
        code = await self._process.wait()
        asyncio.get_running_loop().remove_reader(self._line)
        self._line.close()
        return code

    def stop(self) -> None:
        """Ask it to stop in order; no signal, since a terminal may have sent it one."""
        with contextlib.suppress(OSError):
            self._line.shutdown(socket.SHUT_WR)
        if not self.serving:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()  # it may not listen to anything else yet

    def kill(self) -> None:
        """End it at once."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()


def _ending(code: int) -> str:
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
