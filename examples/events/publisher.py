"""Publishes four orders; whoever has subscribed gets them."""

import asyncio

from orders import TOPIC, Order

import shoal


async def main() -> None:
    async with shoal.connect() as client:
        for id, item in enumerate(("bread", "butter", "salt", "tea"), start=1):
            await client.publish(TOPIC, Order(id, item))
            print(f"published order {id}")


if __name__ == "__main__":
    asyncio.run(main())
