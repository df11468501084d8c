"""registries: how fast services are found, and what a selector makes of what is known of them."""

SERVERS = {"etcd": "etcd", "consul": "consul", "nats": "nats", "dns": "dns"}
"""The server each registry needs, by the name of the registry."""

REGISTRIES = ("memory", "static", "mdns", *SERVERS)

ALL = 1000, 10
SIZES = {"mdns": (200, 1), "consul": (100, 10), "etcd": (100, 10)}
"""Services, and nodes of each, where so many cannot be on one machine, or take minutes to tell."""


def name(number: int) -> str:
    """Names a service."""
    return f"service-{number}"


def address(service: int, node: int) -> str:
    """Makes up where a node is."""
    return f"127.{1 + service // 250}.{service % 250}.{1 + node}:{8000 + node}"


SELECTORS = (
    "p2c",
    "random",
    "round_robin",
    "least_connections",
    "consistent_hash",
    "label",
    "blacklist",
)
