"""Runs a fuzz target for a while: with atheris where it is installed, else with its own mutations.

A harness is a module with a function that takes bytes and raises when something is wrong:

    if __name__ == "__main__":
        main("http1", check, words=WORDS)

`python -m tests.fuzz.http1 --seconds 60` starts from `tests/fuzz/corpus/http1/`, prints what it
did, and keeps the input that failed beside the corpus; `--input FILE` runs that one again.
Atheris finds more, as it sees which code an input reaches: `pip install atheris`.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import random
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
LONGEST = 8192

Check = Callable[[bytes], None]


def corpus(name: str) -> list[bytes]:
    """Return the inputs a harness begins with."""
    return [path.read_bytes() for path in sorted((HERE / "corpus" / name).iterdir())]


def main(name: str, check: Check, *, words: Sequence[bytes] = ()) -> None:
    """Run a harness as the command line says."""
    parser = argparse.ArgumentParser(prog=f"python -m tests.fuzz.{name}")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=None, help="repeat a run without atheris")
    parser.add_argument("--input", type=Path, default=None, help="check one file and end")
    parser.add_argument("--plain", action="store_true", help="do without atheris")
    options = parser.parse_args()
    if options.input is not None:
        check(options.input.read_bytes())
    elif options.plain or importlib.util.find_spec("atheris") is None:
        seed = random.randrange(2**32) if options.seed is None else options.seed
        print(f"fuzzing {name} for {options.seconds:g} s with seed {seed}")
        count = mutate(check, corpus(name), words, options.seconds, seed, HERE / f"{name}.failed")
        print(f"{count} inputs, nothing wrong")
    else:
        _atheris(name, check, options.seconds)


def mutate(
    check: Check,
    seeds: Sequence[bytes],
    words: Sequence[bytes],
    seconds: float,
    seed: int,
    failed: Path | None = None,
) -> int:
    """Check mutations of inputs for so many seconds, up to the first error; return how many."""
    chance = random.Random(seed)
    pool = list(seeds) or [b""]
    end = time.monotonic() + seconds
    count = 0
    while time.monotonic() < end:
        for _ in range(100):
            data = mutated(chance, pool, words)
            try:
                check(data)
            except Exception:
                if failed is not None:
                    failed.write_bytes(data)
                    print(f"this input is in {failed}", file=sys.stderr)
                raise
            count += 1
            if chance.random() < 0.01:  # further mutations of mutations
                pool[len(seeds) :] = [*pool[len(seeds) :], data][-200:]
    return count


def mutated(chance: random.Random, pool: Sequence[bytes], words: Sequence[bytes]) -> bytes:
    """Return an input of the pool with a few changes."""
    data = bytearray(chance.choice(pool))
    for _ in range(chance.randint(1, 5)):
        begin = chance.randint(0, len(data))
        end = min(len(data), begin + chance.choice((0, 1, 2, 8, 64)))
        kind = chance.randrange(6)
        if kind == 0:
            data[begin:end] = chance.randbytes(chance.choice((1, 2, 8)))
        elif kind == 1:
            data[begin:end] = b""
        elif kind == 2 and words:
            data[begin:end] = chance.choice(words)
        elif kind == 3:
            data[begin:begin] = data[begin:end] * chance.randint(1, 4)
        elif kind == 4:
            other = chance.choice(pool)
            data[begin:] = other[chance.randint(0, len(other)) :]
        elif begin < len(data):
            data[begin] ^= 1 << chance.randrange(8)
    return bytes(data[:LONGEST])


def _atheris(name: str, check: Check, seconds: float) -> None:
    atheris: Any = importlib.import_module("atheris")  # not there for every Python
    atheris.instrument_all()
    found = HERE / "found" / name  # what reaches new code is kept here for the next run
    found.mkdir(parents=True, exist_ok=True)
    arguments = [
        sys.argv[0],
        f"-max_total_time={seconds:g}",
        f"-max_len={LONGEST}",
        f"-artifact_prefix={HERE}/{name}.failed.",
        str(found),
        str(HERE / "corpus" / name),
    ]
    try:
        atheris.Setup(arguments, check)
        atheris.Fuzz()
    except Exception:
        traceback.print_exc()
        sys.exit(1)
