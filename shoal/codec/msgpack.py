"""Module msgpack carries messages as MessagePack, decoded straight into the type a method hints."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from shoal.codec._hooks import MISFITS, from_plain, to_plain
from shoal.codec._typed import Typed


class MsgpackCodec(Typed):
    """One MessagePack value: smaller and quicker than JSON, between services that both know it."""

    content_type = "application/msgpack"

    def __init__(self) -> None:
        super().__init__()
        self._encode = msgspec.msgpack.Encoder(enc_hook=to_plain).encode
        self._parse = msgspec.msgpack.Decoder().decode

    def encode(self, message: object) -> bytes:
        try:
            return self._encode(message)
        except (*MISFITS, OverflowError) as error:
            raise self._refused(message, error) from error

    def _decoder(self, hint: Any) -> Callable[[bytes], Any]:
        return msgspec.msgpack.Decoder(hint, dec_hook=from_plain).decode

    def _plain(self, data: bytes) -> Any:
        return self._parse(data)
