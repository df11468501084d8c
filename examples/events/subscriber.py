"""Takes orders: run it twice, then publisher.py. Both write each order down, one sends the mail."""

from orders import TOPIC, Order

import shoal


async def write_down(order: Order) -> None:
    print(f"order {order.id}: {order.item}")


async def send_mail(order: Order) -> None:
    print(f"mail about order {order.id}")


if __name__ == "__main__":
    service = shoal.Service("shop")
    service.init()
    service.subscribe(TOPIC, write_down)  # every event
    service.subscribe(TOPIC, send_mail, queue="mail")  # a share, with all others of the queue
    service.run()
