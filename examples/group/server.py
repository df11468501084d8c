"""Two services in one process, one of which calls the other by name. Then run client.py."""

from dataclasses import dataclass

import shoal


@dataclass
class Item:
    name: str


@dataclass
class Price:
    cents: int


class Prices:
    """Knows what things cost."""

    async def of(self, item: Item) -> Price:
        return Price(100 * len(item.name))


class Shop:
    """Tells prices with tax."""

    def __init__(self, prices: Prices) -> None:
        self._prices = prices

    async def ask(self, item: Item) -> Price:
        return Price(round((await self._prices.of(item)).cents * 1.25))


if __name__ == "__main__":
    prices, shop = shoal.Service("prices"), shoal.Service("shop")
    for service in (prices, shop):
        service.init()
    prices.handle(Prices())
    shop.handle(Shop(shoal.stub(Prices, "prices", shop.client)))
    shoal.Group(prices, shop).run()  # prices starts first and stops last
