"""Package plugins turns a name the user typed into the class it stands for."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

# Interface, name, where it is, and the extra that installs what it imports.
# Alphabetical within an interface; a test holds it to the files.
_TABLE: dict[str, dict[str, str]] = {
    "broker": {
        "http": "shoal.broker.http:HttpBroker",
        "jetstream": "shoal.broker.jetstream:JetStreamBroker",
        "memory": "shoal.broker.memory:MemoryBroker",
        "nats": "shoal.broker.nats:NatsBroker",
        "rabbitmq": "shoal.broker.rabbitmq:RabbitBroker",
        "redis": "shoal.broker.redis:RedisBroker",
        "redis-streams": "shoal.broker.redis_streams:RedisStreamsBroker",
    },
    "client": {
        "rpc": "shoal.client.rpc:RpcClient",
    },
    "codec": {
        "bytes": "shoal.codec.bytes:BytesCodec",
        "json": "shoal.codec.json:JsonCodec",
        "json-rpc": "shoal.codec.json_rpc:JsonRpcCodec",
        "msgpack": "shoal.codec.msgpack:MsgpackCodec",
        "proto": "shoal.codec.proto:ProtoCodec",
        "proto-rpc": "shoal.codec.proto_rpc:ProtoRpcCodec",
        "text": "shoal.codec.text:TextCodec",
    },
    "registry": {
        "consul": "shoal.registry.consul:ConsulRegistry",
        "dns": "shoal.registry.dns:DnsRegistry",
        "etcd": "shoal.registry.etcd:EtcdRegistry",
        "etcdv2": "shoal.registry.etcdv2:EtcdV2Registry",
        "mdns": "shoal.registry.mdns:MdnsRegistry",
        "memory": "shoal.registry.memory:MemoryRegistry",
        "multi": "shoal.registry.multi:MultiRegistry",
        "nats": "shoal.registry.nats:NatsRegistry",
        "static": "shoal.registry.static:StaticRegistry",
    },
    "selector": {
        "blacklist": "shoal.selector.blacklist:BlacklistSelector",
        "consistent_hash": "shoal.selector.consistent_hash:ConsistentHashSelector",
        "label": "shoal.selector.label:LabelSelector",
        "least_connections": "shoal.selector.least_connections:LeastConnectionsSelector",
        "p2c": "shoal.selector.p2c:P2cSelector",
        "random": "shoal.selector.random:RandomSelector",
        "round_robin": "shoal.selector.round_robin:RoundRobinSelector",
    },
    "server": {
        "rpc": "shoal.server.rpc:RpcServer",
    },
    "transport": {
        "http": "shoal.transport.http:HttpTransport",
        "memory": "shoal.transport.memory:MemoryTransport",
        "nats": "shoal.transport.nats:NatsTransport",
        "rabbitmq": "shoal.transport.rabbitmq:RabbitTransport",
        "tcp": "shoal.transport.tcp:TcpTransport",
    },
}

# Other names the same plugin goes by, Go Micro's among them.
_ALIASES = {
    ("client", "mucp"): "rpc",
    ("server", "mucp"): "rpc",
    ("selector", "default"): "p2c",
    ("selector", "registry"): "p2c",
    ("selector", "cache"): "p2c",
    ("selector", "roundrobin"): "round_robin",
}

# The extra that brings a library a plugin imports, where the names differ.
_EXTRAS: dict[str, str] = {"google": "proto", "redis": "redis"}


class PluginError(Exception):
    """A plugin's name is unknown, or what it needs is not installed."""


def interfaces() -> list[str]:
    """Return the names of the interfaces that have plugins."""
    return list(_TABLE)


def names(interface: str) -> list[str]:
    """Return the names known for an interface, installed outsiders included, sorted."""
    outside = (point.name for point in _outsiders(interface))
    return sorted({*_TABLE[interface], *outside})


def load(interface: str, name: str) -> Callable[..., Any]:
    """Return the class for a name; nothing is imported before it is asked for.

    Raises PluginError with a sentence that says what to do.
    """
    name = _ALIASES.get((interface, name), name)
    target = _TABLE[interface].get(name)
    if target is None:
        for point in _outsiders(interface):
            if point.name == name:
                target = point.value
                break
        else:
            raise PluginError(_unknown(interface, name))
    module, _, attribute = target.partition(":")
    try:
        plugin: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
        return plugin
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] == "shoal":
            raise
        extra = _EXTRAS.get(error.name.split(".")[0], name)
        raise PluginError(
            f"the {interface} {name!r} needs {error.name!r}: pip install 'shoal[{extra}]'"
        ) from error


def plugin_name(plugin: object) -> str:
    """Return the name of a plugin as the user types it; of an outsider's, its module's."""
    module = type(plugin).__module__
    for known in _TABLE.values():
        for name, target in known.items():
            if target.partition(":")[0] == module:
                return name
    return module.rpartition(".")[2]


def _outsiders(interface: str) -> Iterator[EntryPoint]:
    from importlib.metadata import entry_points  # a fifth of what importing shoal would cost

    yield from entry_points(group=f"shoal.{interface}")


def _unknown(interface: str, name: str) -> str:
    known = names(interface)
    close = get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(known)}"
    return f"there is no {interface} {name!r}: {hint}"
