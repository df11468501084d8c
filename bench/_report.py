"""report: medians, ratios and the table."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

from bench.peers import BASELINE

CONCURRENCY = (1, 16, 64)

Cell = Mapping[str, float | None]
Cells = dict[str, dict[str, float | None]]
Calls = dict[str, Cells]


def medians(rounds: Sequence[Cell]) -> dict[str, float | None]:
    """Returns the median of each figure over the rounds, and how far apart the rates were."""
    result: dict[str, float | None] = {}
    for key in rounds[0]:
        values = [value for cell in rounds if (value := cell[key]) is not None]
        result[key] = round(median(values), 2) if values else None
    rates = [rate for cell in rounds if (rate := cell["rps"]) is not None]
    result["spread"] = round((max(rates) - min(rates)) / median(rates), 3)
    return result


def ratios(calls: Calls, to: str = BASELINE) -> dict[str, dict[str, float]]:
    """Divides each rate by the baseline's, or another peer's, in the same cell."""
    base = calls.get(to, {})
    result: dict[str, dict[str, float]] = {}
    for peer, cells in calls.items():
        for name, cell in cells.items():
            rate, unit = cell["rps"], base.get(name, {}).get("rps")
            if rate is not None and unit is not None:
                result.setdefault(peer, {})[name] = round(rate / unit, 2)
    return result


def table(calls: Calls) -> str:
    """Returns the results as text."""
    names = [f"c{concurrency}" for concurrency in CONCURRENCY]
    header = (
        f"{'calls/s':18}"
        + "".join(f"{name:>9}" for name in names)
        + f"   x {BASELINE:14}spread   c16: p50    p99 us   client / server cpu us"
    )
    lines = [header, "-" * len(header)]
    over = ratios(calls)
    for peer, cells in calls.items():
        rates = "".join(number(cells.get(name, {}).get("rps"), 9, 0) for name in names)
        ratio = " / ".join(number(over.get(peer, {}).get(name), 0, 1) for name in names)
        spread = max(cell["spread"] or 0.0 for cell in cells.values())
        c16 = cells.get("c16", {})
        lines.append(
            f"{peer:18}{rates}   {ratio:16}{spread:6.0%}"
            + number(c16.get("p50_us"), 11, 0)
            + number(c16.get("p99_us"), 10, 0)
            + number(c16.get("client_cpu_us"), 12, 1)
            + " / "
            + number(c16.get("server_cpu_us"), 0, 1)
        )
    return "\n".join(lines)


def environment() -> dict[str, object]:
    """Describes the machine."""
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def number(value: float | None, width: int, digits: int) -> str:
    """Returns a figure right-justified, a dash for none."""
    return f"{'-' if value is None else f'{value:,.{digits}f}':>{width}}"


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
