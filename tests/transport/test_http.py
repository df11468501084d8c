"""The http transport: the suite, over HTTP/1.1 and over what two of its kind speak."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from shoal.testing.conformance.transport import TransportConformance
from shoal.transport import NO_METADATA, Listener, Transport
from shoal.transport.http import HttpTransport


class TestHttpTransport(TransportConformance):
    def make(self) -> Transport:
        return HttpTransport()

    def told(self, listener: Listener) -> Mapping[str, str]:
        assert listener.metadata
        return NO_METADATA


class TestHttpTransportAlone(TransportConformance):
    def make(self) -> Transport:
        return HttpTransport(native=False)


class TestHttpTransportNative(TransportConformance):
    def make(self) -> Transport:
        return HttpTransport()


class TestHttpTransportOverUnixSockets(TestHttpTransport):
    ports = False

    @pytest.fixture(autouse=True)
    def place(self, tmp_path: Path) -> None:
        type(self).address = f"unix://{tmp_path}/listener.sock"
