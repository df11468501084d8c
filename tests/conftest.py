"""Which tests are collected."""

import contextlib
import os
import signal

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
