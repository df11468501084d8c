"""brokers: what moves the same events, by broker: Shoal, the bare client library, FastStream."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Peer:
    """A program of this package: module, first argument, and the distributions it needs."""

    module: str
    argument: str
    needs: tuple[str, ...]


SHOAL, SERVICE, BARE, FASTSTREAM = "shoal", "shoal-service", "bare", "faststream"
MEMORY = "memory"


def _peers(name: str, library: str, bare: Peer | None, faststream: str) -> dict[str, Peer]:
    """Returns the peers of a broker, Shoal's first."""
    needs = ("shoal", library) if library else ("shoal",)
    peers = {
        SHOAL: Peer("shoal_broker", name, needs),
        SERVICE: Peer("shoal_service", name, needs),
    }
    if bare is not None:
        peers[BARE] = bare
    if faststream:
        peers[FASTSTREAM] = Peer("faststream_peers", faststream, ("faststream", library))
    return peers


BROKERS = {
    "memory": _peers("memory", "", None, ""),
    "http": _peers("http", "", None, ""),
    "nats": _peers("nats", "nats-py", Peer("nats_py", "confirmed", ("nats-py",)), "nats")
    | {"bare-unconfirmed": Peer("nats_py", "core", ("nats-py",))},
    "jetstream": _peers(
        "jetstream", "nats-py", Peer("nats_py", "jetstream", ("nats-py",)), "jetstream"
    ),
    "rabbitmq": _peers("rabbitmq", "aiormq", Peer("aiormq_alone", "-", ("aiormq",)), "rabbitmq"),
    "redis": _peers("redis", "redis", Peer("redis_py", "channel", ("redis",)), "redis"),
    "redis-streams": _peers(
        "redis-streams", "redis", Peer("redis_py", "stream", ("redis",)), "streams"
    ),
}
"""What is compared for each broker."""

SERVERS = {
    "nats": "nats",
    "jetstream": "nats",
    "rabbitmq": "rabbitmq",
    "redis": "redis",
    "redis-streams": "redis",
}
"""The server each broker needs."""
