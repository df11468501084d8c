"""What publishers and subscribers share: the topic and its event."""

from dataclasses import dataclass

TOPIC = "orders"


@dataclass
class Order:
    id: int
    item: str
