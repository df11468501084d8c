"""A service whose registry and broker are what the environment says: see the README."""

from stock import TOPIC, Sale, Stock

import shoal


async def on_sold(sale: Sale) -> None:
    print(f"sold: {sale.count} {sale.item}")


if __name__ == "__main__":
    service = shoal.Service("stock")
    service.init()
    service.handle(Stock())
    service.subscribe(TOPIC, on_sold, queue="books")
    service.run()
