"""Module _log writes log records as JSON, one a line, with the trace they belong to."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from shoal import context

# What every record has, which is none of what somebody added with `extra=`.
_USUAL = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, service, node, trace_id, `extra=`.

    `fields` are put into every line: a mapping, or a function that gives one.
    """

    def __init__(
        self, fields: Mapping[str, str] | Callable[[], Mapping[str, str]] | None = None
    ) -> None:
        super().__init__()
        self._fields = fields if callable(fields) else lambda: fields or {}
        self._encode = msgspec.json.Encoder(enc_hook=repr).encode

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {
            "time": time.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **self._fields(),
            **trace_of_now(),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        if record.stack_info:
            line["stack"] = record.stack_info
        line |= {
            name: value
            for name, value in vars(record).items()
            if name not in _USUAL and name not in line
        }
        try:
            return self._encode(line).decode()
        except (TypeError, ValueError, UnicodeEncodeError):  # keys or texts that JSON cannot hold
            texts = {str(name): str(value) for name, value in line.items()}
            safe = {
                name: value.encode("utf-8", "replace").decode() for name, value in texts.items()
            }
            return self._encode(safe).decode()


def trace_of_now() -> dict[str, str]:
    """Return the ids of the trace and span that run here, empty if there are none.

    Without OpenTelemetry they are those the request came with: W3C's header, or Go Micro's.
    """
    api = sys.modules.get("opentelemetry.trace")  # who never imported it has no span
    if api is not None:
        span = api.get_current_span().get_span_context()
        if span.is_valid:
            return {"trace_id": f"{span.trace_id:032x}", "span_id": f"{span.span_id:016x}"}
    header = context.current.get().incoming
    parts = header.get("Traceparent", "").split("-")  # version, trace, span, flags
    if len(parts) >= 4 and len(parts[1]) == 32 and len(parts[2]) == 16:
        return {"trace_id": parts[1], "span_id": parts[2]}
    trace = header.get("Micro-Trace-Id", "")
    return {"trace_id": trace} if trace else {}
