"""Module json carries messages as JSON, decoded straight into the type a method hints."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from shoal.codec._hooks import MISFITS, from_plain, to_plain
from shoal.codec._typed import Typed


class JsonCodec(Typed):
    """One JSON value and a line feed, as Go Micro's codec writes it (codec/json)."""

    content_type = "application/json"

    def __init__(self) -> None:
        super().__init__()
        self._encode = msgspec.json.Encoder(enc_hook=to_plain).encode
        self._parse = msgspec.json.Decoder().decode

    def encode(self, message: object) -> bytes:
        try:
            return self._encode(message) + b"\n"
        except (*MISFITS, OverflowError) as error:
            raise self._refused(message, error) from error

    def _decoder(self, hint: Any) -> Callable[[bytes], Any]:
        return msgspec.json.Decoder(hint, dec_hook=from_plain).decode

    def _plain(self, data: bytes) -> Any:
        return self._parse(data)
