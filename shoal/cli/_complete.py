"""Module _complete tells a shell the names a word on the command line can become.

It asks the registry for a moment only, and whatever goes wrong is silence: the user is typing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

import click
from click.shell_completion import CompletionItem

_LIMIT = 0.4  # seconds; longer, and the shell feels stuck


def services(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the services whose name begins so."""

    async def ask(fleet: Any) -> list[CompletionItem]:
        return _items(((name, "") for name in await fleet.names()), incomplete)

    return _asked(ctx, ask)


def endpoints(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the endpoints of the service that was named, with what they do."""

    async def ask(fleet: Any) -> list[CompletionItem]:
        found = {
            endpoint.name: endpoint.metadata.get("description", "")
            for record in await fleet.parts.registry.get(ctx.params.get("name") or "")
            for endpoint in record.endpoints
            if endpoint.metadata.get("subscriber") != "true"
        }
        return _items(found.items(), incomplete)

    return _asked(ctx, ask)


def topics(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the topics that services say they listen to."""

    async def ask(fleet: Any) -> list[CompletionItem]:
        found = {
            endpoint.metadata.get("topic", ""): record.name
            for record in await fleet.all_records()
            for endpoint in record.endpoints
        }
        found.pop("", None)
        return _items(found.items(), incomplete)

    return _asked(ctx, ask)


def _asked(
    ctx: click.Context, ask: Callable[[Any], Coroutine[Any, Any, list[CompletionItem]]]
) -> list[CompletionItem]:
    logging.disable(logging.CRITICAL)
    try:
        from shoal.cli import _parts

        async def limited(fleet: _parts.Fleet) -> list[CompletionItem]:
            async with asyncio.timeout(_LIMIT):
                return await ask(fleet)

        return _parts.run(ctx, limited)
    except (Exception, SystemExit):
        return []


def _items(found: Iterable[tuple[str, str]], incomplete: str) -> list[CompletionItem]:
    """Return what begins as the word does; a name no shell could take is left out."""
    return [
        CompletionItem(name, help=" ".join(about.split())[:80] or None)
        for name, about in sorted(found)
        if name.startswith(incomplete) and name.isprintable() and about.isprintable()
    ]
