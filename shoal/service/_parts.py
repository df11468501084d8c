"""Module _parts makes the seven parts of a service from its options."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from shoal import plugins, wire
from shoal.broker import Broker
from shoal.client import Client
from shoal.client._settings import ClientSettings
from shoal.options import Options
from shoal.registry import Registry
from shoal.selector import Selector
from shoal.server import Server
from shoal.server._settings import ServerSettings
from shoal.telemetry import Telemetry, make
from shoal.transport import Transport

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Parts:
    """What a service is made of; `owned` are the parts that were made here, not passed in."""

    registry: Registry
    transport: Transport
    broker: Broker
    selector: Selector
    client: Client
    server: Server
    owned: set[str]
    telemetry: list[Telemetry]

    async def close(self) -> None:
        """Close what was made here, in the order in which the parts lean on each other."""
        for one in self.telemetry:
            one.close()
        if "client" in self.owned:
            await self.client.close()
        if "broker" in self.owned:
            await self.broker.disconnect()
        if "selector" in self.owned:
            await self.selector.close()
        if "registry" in self.owned:
            await self.registry.close()


def build(options: Options) -> Parts:
    """Make the parts that the options name; objects they hold are taken as they are.

    Raises PluginError for a name that is unknown or needs something installed.
    """
    owned: set[str] = set()

    def part(interface: str, **offered: Any) -> Any:
        chosen = getattr(options, interface)
        if not isinstance(chosen, str):
            return chosen
        name, address = options.plugin(interface)
        owned.add(interface)
        if address:
            offered["address"] = address
        return _construct(interface, name, offered)

    shared = {"tls": options.tls, "max_message": options.max_message_size}
    codecs = wire.Codecs(_construct("codec", name, {}) for name in _codecs())
    registry: Registry = part("registry", tls=options.tls)
    transport: Transport = part("transport", **shared)
    broker: Broker = part("broker", registry=registry, grace=options.server_grace, **shared)
    selector: Selector = part("selector", registry=registry)
    telemetry = make(options.telemetry, options.name, plugins.plugin_name(broker))
    middleware = (*(one.middleware for one in telemetry), *options.middleware)
    made = {"transport": transport, "broker": broker, "codecs": codecs}
    client: Client = part(
        "client",
        **made,
        selector=selector,
        middleware=middleware,
        settings=ClientSettings(
            timeout=options.client_request_timeout,
            retries=options.client_retries,
            pool_size=options.client_pool_size,
            pool_ttl=options.client_pool_ttl,
            route=options.route(),
        ),
    )
    server: Server = part(
        "server",
        **made,
        name=options.name or "shoal.server",
        registry=registry,
        middleware=middleware,
        settings=_server_settings(options, (client, selector, *options.middleware)),
    )
    return Parts(registry, transport, broker, selector, client, server, owned, telemetry)


def _server_settings(options: Options, beside: Sequence[object]) -> ServerSettings:
    settings: dict[str, Any] = {
        "beside": beside,
        "version": options.version,
        "address": options.address,
        "advertise": options.advertise,
        "metadata": options.metadata,
        "register_ttl": options.register_ttl,
        "register_interval": options.register_interval,
        "concurrency": options.server_concurrency,
        "connections": options.server_connections,
        "threads": options.server_threads,
        "linger": options.server_linger,
        "grace": options.server_grace,
    }
    if options.id:
        settings["id"] = options.id
    return ServerSettings(**settings)


def _construct(interface: str, name: str, offered: dict[str, Any]) -> Any:
    """Make a plugin, giving it those of the offered arguments that it takes."""
    make = plugins.load(interface, name)
    taken = inspect.signature(make).parameters
    return make(**{key: value for key, value in offered.items() if key in taken})


def _codecs() -> list[str]:
    found = []
    for name in plugins.names("codec"):
        try:
            plugins.load("codec", name)
        except plugins.PluginError as error:
            logger.debug("%s", error)
        else:
            found.append(name)
    return found
