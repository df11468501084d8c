"""process: runs one program pinned to a core, with a deadline, and surely ends it."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO


class Crashed(Exception):
    """What a program said last."""


class Unavailable(Exception):
    """Why a program cannot run here."""


@dataclass(frozen=True, slots=True)
class Cores:
    """Where each side runs; None where this system cannot pin."""

    server: int | None
    client: int | None

    def __str__(self) -> str:
        if self.server is None:
            return "not pinned: this system cannot"
        if self.server == self.client:
            return f"one core only: server and client share core {self.server}"
        return f"server on core {self.server}, client on core {self.client}"


def cores() -> Cores:
    """Picks a core for each side among those this process may use."""
    if sys.platform != "linux":
        return Cores(None, None)
    usable = sorted(os.sched_getaffinity(0))
    return Cores(usable[0], usable[min(1, len(usable) - 1)])


def pin(core: int | None) -> None:
    """Keeps this process on one core, where this system can."""
    if sys.platform == "linux" and core is not None:
        os.sched_setaffinity(0, {core})


@dataclass(frozen=True, slots=True)
class Program:
    """A running program."""

    process: subprocess.Popen[bytes]
    errors: IO[str]
    said: bytearray = field(default_factory=bytearray)
    """What it printed and nobody has asked for yet."""

    def line(self, seconds: float) -> str:
        """Returns the next line it prints; raises `Crashed` when none comes in time."""
        assert self.process.stdout is not None
        output, until = self.process.stdout.fileno(), time.monotonic() + seconds
        while b"\n" not in self.said:
            ready, _, _ = select.select([output], [], [], max(0.0, until - time.monotonic()))
            if not ready:
                raise Crashed(f"said nothing for {seconds:.0f} s")
            data = os.read(output, 1 << 16)
            if not data:
                raise Crashed(self._last_words())
            self.said.extend(data)
        line, _, rest = self.said.partition(b"\n")
        self.said[:] = rest
        return line.decode()

    def cpu(self) -> float | None:
        """Returns the CPU seconds used so far; None where /proc does not tell."""
        try:
            stat = Path(f"/proc/{self.process.pid}/stat").read_text()
        except OSError:
            return None
        user, system = stat.rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def resident(self) -> int:
        """Returns the bytes of memory it has now; 0 where /proc does not tell."""
        return resident(self.process.pid)

    def _last_words(self) -> str:
        status = self.process.wait()
        self.errors.seek(0)
        lines = [line.strip() for line in self.errors if line.strip()]
        return f"{lines[-1] if lines else 'no message'} (exit status {status})"


@contextmanager
def run(command: Sequence[str], core: int | None) -> Iterator[Program]:
    """Runs a program and kills it at the end, whatever happened.

    Its standard input stays open as long as this process lives: servers end when it closes.
    """
    with (
        tempfile.TemporaryFile("w+", errors="replace") as errors,
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            preexec_fn=lambda: pin(
                core
            ),  # before the program makes threads; this process has only one
        ) as process,
    ):
        try:
            yield Program(process, errors)
        finally:
            process.kill()


def resident(pid: int) -> int:
    """Returns the bytes of memory a process has now; 0 where /proc does not tell."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    found = [line.split()[1] for line in text.splitlines() if line.startswith("VmRSS:")]
    return int(found[0]) * 1024 if found else 0
