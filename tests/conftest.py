"""Which tests are collected, and what all of them have to keep."""

import contextlib
import inspect
import os
import signal

import pytest

from shoal.testing.pytest_plugin import no_leaks

__all__ = ["no_leaks"]

# Started in the background, a process ignores interrupts, and so would the programs under test.
with contextlib.suppress(ValueError):  # not the main thread
    signal.signal(signal.SIGINT, signal.default_int_handler)

_OF_SERVERS = [  # what needs a server for every test it has
    "interop/test_consul.py",
    "interop/test_etcd.py",
    "interop/test_nats.py",
    "interop/test_rabbitmq.py",
    "interop/test_redis.py",
    "service/test_nats.py",
]
collect_ignore_glob = _OF_SERVERS if os.environ.get("SHOAL_SERVERS") == "no" else []


@pytest.fixture(autouse=True)
def owned(request: pytest.FixtureRequest) -> None:
    """Every task, socket and thread has an owner that ends it.

    Tests with Go peers share clients and services with all of their module, which own them.
    """
    function = getattr(request.node, "function", None)
    if inspect.iscoroutinefunction(function) and "interop" not in request.keywords:
        request.getfixturevalue("no_leaks")  # set up before all others, torn down after them
