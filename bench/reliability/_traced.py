"""traced: a service of the proof of telemetry: `python -m bench.reliability._traced NAME [flags]`.

It gives its spans to a list in memory, subscribes to TRACED_HEARS, publishes to TRACED_SAYS, and
tells what it has loaded of telemetry.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from dataclasses import dataclass, field

import shoal
from bench.reliability._service import main, make

logger = logging.getLogger("traced")


@dataclass
class Name:
    name: str


@dataclass
class Greeting:
    greeting: str


@dataclass
class Hop:
    """The service to pass a name on to, and where it is if that is not to be found out."""

    service: str
    endpoint: str
    address: str = ""
    name: str = "John"


@dataclass
class Span:
    name: str
    trace: str
    span: str
    parent: str


@dataclass
class Told:
    """What this process knows: its spans, events it heard, and what of telemetry it loaded."""

    spans: list[Span] = field(default_factory=list[Span])
    heard: int = 0
    loaded: list[str] = field(default_factory=list[str])


class Back:
    """The handlers, called by each other and by Go."""

    def __init__(self, service: shoal.Service) -> None:
        self._service = service
        self._heard = 0

    async def begin(self, hop: Hop) -> Greeting:
        """Pass a name on to the next hop."""
        logger.info("passed on")
        asked = shoal.Request(hop.service, hop.endpoint, Name(hop.name), Greeting)
        if not hop.address:
            return await self._service.client.call(asked)
        return await self._service.client.call(asked, address=hop.address)

    async def finish(self, request: Name) -> Greeting:
        """Say so in an event, and answer."""
        logger.info("finished")
        await self._service.client.publish(os.environ["TRACED_SAYS"], request)
        return Greeting(f"Hello {request.name}")

    async def tell(self) -> Told:
        """Tell what this process knows."""
        found = sys.modules.get("bench.reliability._traced_spans")
        spans = [Span(*line) for line in found.lines()] if found is not None else []
        loaded = [name for name in sys.modules if name.startswith(("opentelemetry", "prometheus"))]
        return Told(spans, self._heard, sorted({name.split(".")[0] for name in loaded}))

    async def hear(self, event: Name) -> None:
        """Count an event."""
        logger.info("heard")
        await asyncio.sleep(0)
        self._heard += 1


if __name__ == "__main__":
    if any(word.startswith("--telemetry") for word in sys.argv):
        from bench.reliability import _traced_spans

        _traced_spans.keep()
    made = make(sys.argv[1:])
    back = Back(made)
    made.handle(back)
    if topic := os.environ.get("TRACED_HEARS"):
        made.subscribe(topic, back.hear)
    main(made)
