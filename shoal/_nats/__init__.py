"""Package _nats is the connection to NATS that registry, brokers and transport stand on."""

from __future__ import annotations

from shoal._nats._client import Msg
from shoal._nats._interest import Interest, nobody
from shoal._nats._link import Link
from shoal._nats._settings import NatsSettings
from shoal._nats._subjects import check_subject

__all__ = ["Interest", "Link", "Msg", "NatsSettings", "check_subject", "nobody"]
