"""Module etcdv2 is a registry in the v2 keys of etcd, for fleets that still have it."""

from __future__ import annotations

from shoal.registry._etcd_keys import Keys
from shoal.registry._etcd_registry import EtcdBase
from shoal.registry._etcd_settings import LEGACY_PREFIX, EtcdSettings
from shoal.tls import Tls

__all__ = ["EtcdSettings", "EtcdV2Registry"]


class EtcdV2Registry(EtcdBase):
    """Keeps nodes in etcd's v2 keys (go-plugins of Go Micro v0 and v1, registry/etcd).

    Needs etcd up to 3.5, started with `--enable-v2`. A node's key has a time to live that is
    renewed, unseen by watches, while its owner refreshes it.
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
        super().__init__(address, tls, settings, LEGACY_PREFIX, Keys)
