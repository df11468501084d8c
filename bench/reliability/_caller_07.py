"""caller_07: `_caller.py` that looks services up often: `_caller_07 SERVICE SECONDS REGISTRY`."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Set
from typing import Any

from bench.reliability import _caller, is_off
from bench.reliability._service import DOMAIN, private_registry
from shoal import plugins
from shoal.options import split
from shoal.registry import Registry
from shoal.selector._cached import CachedSelector
from shoal.selector._doubt import Doubt
from shoal.selector.p2c import P2cSelector


async def main(service: str, ttl: str, chosen: str) -> None:
    """Call through a registry, `name://address`; without one through the fleet's own."""
    if is_off(7):
        believe_the_registry()
    registry: Registry
    if chosen:
        name, address = split(chosen)
        registry = plugins.load("registry", name)(address)
    else:
        registry = private_registry(os.environ[DOMAIN])
    selector = P2cSelector(registry, ttl=float(ttl))
    try:
        await _caller.main(service, {"registry": registry, "selector": selector})
    finally:
        await selector.close()
        await registry.close()


def believe_the_registry() -> None:
    """Know no node that the registry does not tell of now."""
    failed = CachedSelector._failed

    def forget(self: CachedSelector, entry: Any, error: Exception) -> None:
        failed(self, entry, error)
        entry.nodes.replace([])
        entry.nodes.replace([])  # the second answer that misses them counts

    def leaving(self: Doubt, lost: Set[str], *_: object, **__: object) -> Set[str]:
        return lost

    CachedSelector._failed = forget  # type: ignore[method-assign]  # what is switched off
    Doubt.leaving = leaving  # type: ignore[method-assign]  # what is switched off


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3]))
