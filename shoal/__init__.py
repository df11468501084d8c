"""Shoal is a microservices framework that speaks Go Micro's wire formats."""

from shoal.client import Request
from shoal.context import deadline, metadata, with_metadata
from shoal.endpoints import endpoint
from shoal.errors import (
    BadRequest,
    Conflict,
    Error,
    Forbidden,
    InternalServerError,
    MethodNotAllowed,
    NotFound,
    Timeout,
    TooManyRequests,
    Unauthorized,
    Unavailable,
)
from shoal.middleware import Call, Middleware, Next
from shoal.options import Options
from shoal.service import Group, Service, connect
from shoal.stubs import stub
from shoal.tls import Tls

__all__ = [
    "BadRequest",
    "Call",
    "Conflict",
    "Error",
    "Forbidden",
    "Group",
    "InternalServerError",
    "MethodNotAllowed",
    "Middleware",
    "Next",
    "NotFound",
    "Options",
    "Request",
    "Service",
    "Timeout",
    "Tls",
    "TooManyRequests",
    "Unauthorized",
    "Unavailable",
    "connect",
    "deadline",
    "endpoint",
    "metadata",
    "stub",
    "with_metadata",
]
