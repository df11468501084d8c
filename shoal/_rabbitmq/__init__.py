"""Package _rabbitmq is the connection to RabbitMQ that broker and transport stand on."""

from __future__ import annotations

from shoal._rabbitmq._consumer import Consumer
from shoal._rabbitmq._format import Delivery, Properties, check_name, read, table
from shoal._rabbitmq._link import Link
from shoal._rabbitmq._settings import RabbitSettings

__all__ = [
    "Consumer",
    "Delivery",
    "Link",
    "Properties",
    "RabbitSettings",
    "check_name",
    "read",
    "table",
]
