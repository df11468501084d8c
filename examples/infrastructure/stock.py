"""What both sides share: messages, the handler, and the topic of what was sold."""

from dataclasses import dataclass, field

import shoal

TOPIC = "sold"


@dataclass
class Sale:
    item: str
    count: int


@dataclass
class Left:
    count: int


@dataclass
class Stock:
    """Knows how much is left."""

    shelves: dict[str, int] = field(default_factory=lambda: {"bread": 10})

    async def take(self, sale: Sale) -> Left:
        """Take something off its shelf."""
        if self.shelves.get(sale.item, 0) < sale.count:
            raise shoal.Conflict(f"there is not that much {sale.item}")
        self.shelves[sale.item] -= sale.count
        return Left(self.shelves[sale.item])
