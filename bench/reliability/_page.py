"""page: keeps what the proofs measured in a JSON file, and makes docs/reliability.md of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from textwrap import wrap
from types import ModuleType
from typing import Any

from bench import _report
from bench.reliability import Report, figure

WIDTH = 100  # of a line of prose

# What each promise is to the people who run services.
PROMISES = {
    1: "A call has one deadline, whatever it sets in motion: retries, the calls its handler makes,"
    " the events it publishes and the look-ups on the way get what is left of it. Nothing goes on"
    " for a caller who has given up, and the error says which limit it was, where and when.",
    2: "Who stops waiting for a reply stops the work: the handler is cancelled, on every transport"
    " and through every service in between. A stream whose peer died ends at both ends instead of"
    " waiting for ever.",
    3: "A handler runs once for one call unless you marked its endpoint as one that may run twice."
    " Only what was certainly never sent is repeated elsewhere, and a budget keeps repetitions"
    " from making an outage worse.",
    4: "A node that crashes costs each client at most one failed call, and gets no more calls until"
    " it answers again. One that hangs is found by its latency and by what it owes, and gets"
    " almost none.",
    5: "Calls go to the better of two nodes chosen by chance, so one slow node among ten is hardly"
    " felt. The choice costs the same among ten nodes and among ten thousand.",
    6: "A server that gets more than it can do goes on doing what it can, and refuses the rest at"
    " once, with a hint when to come again. Breakers, rate limits and bulkheads keep the trouble"
    " of one endpoint from becoming that of all.",
    7: "While the registry is down or cut off, calls go on to the nodes known last, and readiness"
    " says what is wrong; once it is back, everything is repaired without a restart. A service"
    " whose registration was lost notices and registers again.",
    8: "Replacing all instances one after another under load fails no call and loses or doubles no"
    " acknowledged event. SIGTERM is all it takes: a node leaves discovery, finishes what it has,"
    " then ends.",
    9: "A handler that blocks the event loop is found: the log names the file and line. Meanwhile"
    " the probes still answer, and the service stays registered.",
    10: "Several workers, several event loops and several services in a process are all fine; use"
    " after a fork or from a foreign loop is an error that says so. Workers that crash come back,"
    " one SIGTERM ends all, and no task or socket is left behind.",
    11: "Memory, sockets and tasks do not grow with the time a service runs, whatever fails around"
    " it. The run mixes calls, streams, events, cancellations and peers that die.",
    12: "One setting turns TLS on, with verification; certificates are renewed without a lost call."
    " Once an endpoint has a rule nobody calls it without a token that fits, and no secret gets"
    " into a log.",
    13: "Traces, metrics and logs tell one story across services, languages and the broker, and"
    " what balancers, breakers, budgets, pools and registrations know can be seen. Unasked for,"
    " all of it costs nothing.",
    14: "What is proved here with real processes you can prove of your own code in a test: a seeded"
    " plan of faults and a clock that only moves when told. The same seed gives the same run.",
}

ABOUT = (
    "What Shoal promises when something fails, and what the last run measured. Every figure comes"
    " from real processes that are killed, stopped, slowed or cut off; `make reliability` runs all"
    " of it again and writes this page. A small version of every proof is part of `make test`."
    " Each was also run with the mechanism behind it switched off, to see that the proof would"
    " notice: what failed then stands below it."
)


def record(path: Path, module: ModuleType, report: Report, seconds: float) -> None:
    """Put one promise's results into the file, in place of those it had."""
    kept: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    promise = kept.setdefault("promises", {}).setdefault(str(report.number), {})
    promise["title"] = module.TITLE
    promise["without_what"] = getattr(module, "WITHOUT", "")
    promise["without" if report.without else "with"] = {
        "passed": report.passed,
        "scale": report.scale,
        "seconds": round(seconds, 1),
        "checks": [
            {
                "what": check.what,
                "value": check.value if check.value == check.value else None,
                "limit": check.limit,
                "unit": check.unit,
                "at_most": check.at_most,
                "passed": check.passed,
            }
            for check in report.checks
        ],
        "skipped": report.skipped,
    }
    kept["promises"] = dict(sorted(kept["promises"].items(), key=lambda item: int(item[0])))
    kept["environment"] = _report.environment()
    path.write_text(json.dumps(kept, indent=2) + "\n")


def write(source: Path, page: Path) -> None:
    """Make the page of what the file holds."""
    kept = json.loads(source.read_text())
    page.write_text(text(kept), encoding="utf-8")


def text(kept: dict[str, Any]) -> str:
    """Return the page."""
    about = kept["environment"]
    lines = [
        "# Reliability",
        "",
        *wrap(ABOUT, WIDTH),
        "",
        f"Measured on: {about['cpu']}, {about['cores']} cores, {about['kernel']},"
        f" Python {about['python']}.",
        "",
        "| | promise | checks | kept |",
        "|---|---|---|---|",
    ]
    for number, promise in kept["promises"].items():
        done = promise.get("with")
        if done is None:
            continue
        passed = sum(check["passed"] for check in done["checks"])
        said = "yes" if done["passed"] else "**no**"
        anchor = _anchor(f"{number} {promise['title']}")
        title = f"[{promise['title']}](#{anchor})"
        lines.append(f"| {number} | {title} | {passed} of {len(done['checks'])} | {said} |")
    for number, promise in kept["promises"].items():
        if "with" in promise:
            lines += _section(int(number), promise)
    return "\n".join(lines) + "\n"


def _section(number: int, promise: dict[str, Any]) -> list[str]:
    done = promise["with"]
    lines = ["", f"## {number}. {promise['title']}", "", *wrap(PROMISES[number], WIDTH), ""]
    lines += ["| measured | value | limit | |", "|---|---|---|---|"]
    for check in done["checks"]:
        unit = f" {check['unit']}" if check["unit"] else ""
        value = "-" if check["value"] is None else f"{figure(check['value'])}{unit}"
        limit = f"{'at most' if check['at_most'] else 'at least'} {figure(check['limit'])}{unit}"
        mark = "kept" if check["passed"] else "**not kept**"
        lines.append(f"| {_cell(check['what'])} | {value} | {limit} | {mark} |")
    for what, reason in done["skipped"].items():
        lines.append(f"| {_cell(what)} | - | - | not here: {_cell(reason)} |")
    if done["scale"] != 1:
        lines += ["", f"The run had {figure(done['scale'] * 100)} % of its full size."]
    off = promise.get("without")
    if off is not None:
        broken = [check for check in off["checks"] if not check["passed"]]
        lines += ["", f"Without {promise['without_what'] or 'the mechanism'}:"]
        lines[-1] += " nothing failed." if not broken else ""
        lines += [""] if broken else []
        for check in broken:
            unit = f" {check['unit']}" if check["unit"] else ""
            value = "nothing" if check["value"] is None else f"{figure(check['value'])}{unit}"
            sign = "at most" if check["at_most"] else "at least"
            limit = f"{sign} {figure(check['limit'])}"
            lines.append(f"- {check['what']}: {value}, where {limit} is promised")
    return lines


def _anchor(title: str) -> str:
    kept = "".join(c for c in title.lower() if c.isalnum() or c in " -_")
    return kept.replace(" ", "-")


def _cell(words: str) -> str:
    return words.replace("|", "\\|")


if __name__ == "__main__":
    root = Path(__file__).resolve().parents[2]
    write(root / "bench" / "reliability.json", root / "docs" / "reliability.md")
    sys.exit(0)
