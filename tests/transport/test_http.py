"""The http transport: the suite."""

from __future__ import annotations

from shoal.testing.conformance.transport import TransportConformance
from shoal.transport import Transport
from shoal.transport.http import HttpTransport


class TestHttpTransport(TransportConformance):
    def make(self) -> Transport:
        return HttpTransport()
