"""caller: a client in a process of its own: `python -m bench.reliability._caller SERVICE`.

It reads lines of JSON and answers each with one:

    {"begin": {"rate": 50, "timeout": 1, "endpoint": "work", "job": {"seconds": 0.01}}}  -> {}
    {"end": {}}   -> {"results": [[due, elapsed, error or null, pid of the node or null], ...]}
    {"call": {"timeout": 1}}  -> {"results": [one of these]}

Times are seconds, `due` since the load began. Another registry than the fleet's is chosen by
MICRO_REGISTRY.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Iterable
from typing import Any

import shoal
from bench.reliability._load import Load, Result
from bench.reliability._service import DOMAIN, Job, Worker, die_with_parent, private_registry
from shoal.client import Client
from shoal.options import Settings


async def main(service: str, settings: Settings | None = None) -> None:
    """Do what is read from standard input until it ends."""
    die_with_parent()
    if settings is None:
        settings = {}
        if DOMAIN in os.environ and "MICRO_REGISTRY" not in os.environ:
            settings["registry"] = private_registry(os.environ[DOMAIN])
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    async with shoal.connect(**settings) as client:
        print(json.dumps({"pid": os.getpid()}), flush=True)
        load: Load | None = None
        while line := await reader.readline():
            ((verb, said),) = json.loads(line).items()
            answer: dict[str, Any] = {}
            if verb == "begin":
                load = await _load(client, service, said).__aenter__()
            elif verb == "call":
                load = _load(client, service, said)
                await load.one()
                answer = {"results": _rows(load.results)}
            elif load is not None:
                await load.__aexit__()
                answer = {"results": _rows(load.results)}
            print(json.dumps(answer), flush=True)


def _load(client: Client, service: str, said: dict[str, Any]) -> Load:
    worker = shoal.stub(Worker, service, client, timeout=said.get("timeout", 30.0))
    method = getattr(worker, said.get("endpoint", "work"))
    job = Job(**said.get("job", {}))
    return Load(lambda number: method(job), said.get("rate", 1.0))


def _rows(results: Iterable[Result]) -> list[list[Any]]:
    results = list(results)
    begun = results[0].due if results else 0.0
    return [
        [
            round(one.due - begun, 6),
            round(one.elapsed, 6),
            None if one.error is None else f"{type(one.error).__name__}: {one.error}",
            one.reply.pid if one.error is None else None,
        ]
        for one in results
    ]


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
