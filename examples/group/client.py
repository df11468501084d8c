"""Calls the shop, which calls the prices."""

import asyncio

from server import Item, Prices, Shop

import shoal


async def main() -> None:
    async with shoal.connect() as client:
        tea = Item("tea")
        net = await shoal.stub(Prices, "prices", client).of(tea)
        gross = await shoal.stub(Shop, "shop", client).ask(tea)
        print(f"tea costs {net.cents} cents, {gross.cents} with tax")


if __name__ == "__main__":
    asyncio.run(main())
