"""startup: how long a service takes to be registered and answer, and the memory it takes idle.

    python -m bench.startup [flags of a service]

The time is set beside that of starting Python with the core dependencies imported.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench._process import resident

CORE = "import os, asyncio, httptools, msgspec, uvloop; os.write(1, b'.')"
SERVICE = """
import os
import shoal

class Greeter:
    async def hello(self, name: str) -> str:
        return f"Hello {name}"

class Saying(shoal.Group):
    async def __aenter__(self):
        await super().__aenter__()
        os.write(1, b".")
        return self

service = shoal.Service("greeter", address="127.0.0.1:0")
service.init()
service.handle(Greeter())
Saying(service).run()
"""


@dataclass(frozen=True, slots=True)
class Startup:
    """Seconds, best and median, of Python with the core dependencies and of a service; memory."""

    python: Sequence[float]
    service: Sequence[float]
    resident: int
    """Bytes."""

    @property
    def ratio(self) -> float:
        """How many times as long a service takes, at best."""
        return min(self.service) / min(self.python)

    def __str__(self) -> str:
        rows = [
            f"{what:28} best {min(times) * 1000:4.0f} ms, median"
            f" {statistics.median(times) * 1000:4.0f} ms"
            for what, times in (
                ("Python, core dependencies", self.python),
                ("a service that answers", self.service),
            )
        ]
        memory = f"{'memory when idle':28} {self.resident / 1e6:.1f} MB"
        return "\n".join([*rows, f"{'ratio of the best':28} {self.ratio:.2f}", memory])


def measure(flags: Sequence[str] = (), rounds: int = 7) -> Startup:
    """Start both in turn; what a first run compiles is kept for the others."""
    with tempfile.TemporaryDirectory() as folder:
        compiled = {"PYTHONPYCACHEPREFIX": folder, "PYTHONDONTWRITEBYTECODE": ""}
        kept = {key: value for key, value in os.environ.items() if not key.startswith("MICRO_")}
        environment = {**kept, **compiled, "PYTHONPATH": str(Path(__file__).parents[1])}
        _start(CORE, (), environment)
        _start(SERVICE, flags, environment)
        python, service, resident = [], [], []
        for _ in range(rounds):
            python.append(_start(CORE, (), environment)[0])
            seconds, memory = _start(SERVICE, flags, environment)
            service.append(seconds)
            resident.append(memory)
        return Startup(python, service, max(resident))


def _start(code: str, flags: Sequence[str], environment: Mapping[str, str]) -> tuple[float, int]:
    """Return the seconds until a program has said something, and its memory in bytes then."""
    begun = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-c", code, *flags],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdout is not None
        said = process.stdout.read(1)
        seconds = time.perf_counter() - begun
        memory = resident(process.pid) if said else 0
        process.terminate()
    if not said:
        raise RuntimeError("the program did not start")
    return seconds, memory


if __name__ == "__main__":
    print(measure(sys.argv[1:]))
