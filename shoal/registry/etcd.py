"""Module etcd is a registry in etcd (v3), the one most fleets share."""

from __future__ import annotations

from shoal.registry._etcd_gateway import Gateway
from shoal.registry._etcd_registry import EtcdBase
from shoal.registry._etcd_settings import PREFIX, EtcdSettings
from shoal.tls import Tls

__all__ = ["EtcdRegistry", "EtcdSettings"]


class EtcdRegistry(EtcdBase):
    """Keeps nodes in etcd 3.4 and later (Go Micro v1.12 to v6, registry/etcd).

    A node's key has a lease that is renewed while its owner refreshes it; a lease that was lost
    is replaced. Watches survive the loss of connections, members and history.
    """

    def __init__(
        self,
        address: str = "",
        *,
        tls: Tls | None = None,
        settings: EtcdSettings | None = None,
    ) -> None:
        """Ask the members `user:password@host:port,host:port/prefix?name=value`.

        Raises BadRequest for an address that cannot be read.
        """
        super().__init__(address, tls, settings, PREFIX, Gateway)
