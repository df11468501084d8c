"""Takes bread from the stock and tells that it was sold, over what the environment says."""

import asyncio

from stock import TOPIC, Sale, Stock

import shoal


async def main() -> None:
    async with shoal.connect() as client:
        stock = shoal.stub(Stock, "stock", client)
        sale = Sale("bread", 3)
        left = await stock.take(sale)
        print(f"{left.count} bread left")
        await client.publish(TOPIC, sale)
        print("told")


if __name__ == "__main__":
    asyncio.run(main())
