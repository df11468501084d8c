"""promise_13: what happens in a fleet is seen: one trace, metrics, state, logs with its id."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import shoal
from bench.reliability import Report
from bench.reliability._processes import Fleet, Process, free_port, page, until
from bench.reliability._traced import Greeting, Hop, Told
from shoal.client import Client
from tests.interop import peers

TITLE = "To be seen: one trace across Python, Go and the broker; metrics, state and logs"
WITHOUT = "telemetry"

STATE = """ready part_well server_requests_running server_requests_limit client_connections_idle
client_retry_budget selector_nodes selector_nodes_out selector_calls_in_flight""".split()


async def prove(report: Report, scale: float) -> None:
    """Follow a call through four processes, and read what they tell of it."""
    await _silent(report)
    async with Fleet() as fleet:
        await _seen(report, fleet, max(20, int(200 * scale)))


async def _silent(report: Report) -> None:
    """A service that was not asked for telemetry loads nothing of it."""
    async with Fleet() as fleet:
        process = await fleet.start("bench.reliability._traced", "silent")
        async with fleet.connect() as client:
            told = await _ask(client, "silent", process)
        report.check("libraries loaded by a service that did not ask", len(told.loaded), 0, "")


async def _ask(client: Client, name: str, process: Process) -> Told:
    asked = shoal.Request(name, "Back.Tell", None, Told)
    return await client.call(asked, address=process.address)


async def _seen(report: Report, fleet: Fleet, calls: int) -> None:
    front, back, relay, to_go, from_go = (
        f"{word}-{uuid.uuid4().hex[:8]}" for word in ("front", "back", "relay", "to-go", "from-go")
    )
    probe = f"127.0.0.1:{free_port()}"
    flags = ["--registry=mdns", "--log_level=info", "--log_format=json"]
    flags += [] if report.without else ["--telemetry=otel,prometheus"]
    module = "bench.reliability._traced"
    first = await fleet.start(
        module, front, *flags, f"--health_address={probe}", TRACED_HEARS=from_go
    )
    last = await fleet.start(module, back, *flags, TRACED_SAYS=to_go)
    go: peers.Running | None = None
    try:
        program = await asyncio.to_thread(peers.build, "traced")
        words = (relay, back, last.address, to_go, from_go)
        go = await peers.Running.start(program, *words)
        address = (await go.event("ready", timeout=30))["address"]
        hop = Hop(relay, "Relay.Pass", address)
    except peers.Unavailable as error:
        report.skip("the part of the trace that is Go's", " ".join(str(error).split()))
        hop = Hop(back, "Back.Finish", last.address)
    try:
        async with shoal.connect(registry="mdns") as client:
            await _once(client, front, first, hop)
            await _traces(report, client, {front: first, back: last}, go)
            found = replace(hop, address="")  # so that the selector has something to tell of
            for _ in range(calls):
                await _once(client, front, first, found)
            await _numbers(report, client, (front, first, probe), calls + 1)
    finally:
        if go is not None:
            await go.stop()


async def _once(client: Client, name: str, process: Process, hop: Hop) -> None:
    asked = shoal.Request(name, "Back.Begin", hop, Greeting)
    assert (await client.call(asked, address=process.address)).greeting == "Hello John"


async def _traces(
    report: Report, client: Client, processes: Mapping[str, Process], go: peers.Running | None
) -> None:
    """All spans of one call, whoever made them, are one trace."""
    if go is not None:
        (front, first), *_ = processes.items()

        async def heard() -> bool:
            return (await _ask(client, front, first)).heard > 0

        await until(heard, "the event that Go published", timeout=20)
    spans: list[dict[str, str]] = []
    for name, process in processes.items():
        told = await _ask(client, name, process)
        spans += [vars(span) for span in told.spans if span.name != "Back.Tell"]
    theirs = 0
    while go is not None and theirs < 4 and not report.without:
        spans.append(await go.event("span", timeout=15))
        theirs += 1
    traces = {span["trace"] for span in spans}
    known = {span["span"] for span in spans}
    roots = [span["name"] for span in spans if span["parent"] not in known]
    report.check("traces of one call", len(traces), 1, "")
    report.check("its spans, of all processes", len(spans), 9 if go else 4, "", at_most=False)
    report.check("spans without their parent, beside the first", len(roots) - 1, 0, "")
    report.check("spans made by Go Micro's wrapper", theirs, 4 if go else 0, "", at_most=False)
    lines = [line for process in processes.values() for line in _logged(process)]
    named = [line for line in lines if line.get("trace_id") in traces and "node" in line]
    report.check("log lines that name the trace", len(named), 3 if go else 2, "", at_most=False)


def _logged(process: Process) -> list[dict[str, Any]]:
    lines = (line for line in process.log(100_000).splitlines() if line.startswith("{"))
    return [line for line in map(json.loads, lines) if line["logger"] == "traced"]


async def _numbers(
    report: Report, client: Client, who: tuple[str, Process, str], calls: int
) -> None:
    """Metrics count every call, and tell the state of the parts; so does Debug.Stats."""
    name, process, probe = who
    _, text = await page(probe, "/metrics")
    found = [line for line in text.splitlines() if not line.startswith("#")]
    counted = 0.0
    for line in found:
        if line.startswith("rpc_server_call_duration_seconds_count") and "Back.Begin" in line:
            counted += float(line.rpartition(" ")[2])
    report.check(f"of {calls} calls counted", counted, calls, "", at_most=False)
    asked = shoal.Request(name, "Debug.Stats", {"state": True}, dict[str, Any])
    state = (await client.call(asked, address=process.address))["state"]
    missing = [one for one in STATE if not any(line.startswith(f"shoal_{one}") for line in found)]
    report.check(f"of {len(STATE)} numbers of state not in metrics", len(missing), 0, "")
    untold = [one for one in STATE if not any(key.startswith(one) for key in state)]
    report.check(f"of {len(STATE)} not in Debug.Stats", len(untold), 0, "")
