"""Module _run runs a service in an event loop of its own until a signal ends it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from shoal.errors import Error
from shoal.options import Options
from shoal.plugins import PluginError
from shoal.tls import TlsError

logger = logging.getLogger("shoal.service")


def run_until_signal(service: AbstractAsyncContextManager[Any], options: Options) -> None:
    """Enter the service, wait for SIGINT or SIGTERM, leave it."""
    if not logging.getLogger().handlers:
        logging.basicConfig(
            level=getattr(logging, options.log_level.upper(), logging.INFO),
            format="%(asctime)s %(levelname)-7s %(name)s: %(message)s",
        )
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(_serve(service))
    except (Error, PluginError, TlsError) as error:
        sys.stderr.write(f"{options.name or 'service'}: {error}\n")
        raise SystemExit(1) from None


async def _serve(service: AbstractAsyncContextManager[Any]) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()

    def on_signal(number: int) -> None:
        if stop.is_set():
            raise SystemExit(128 + number)  # asked twice: at once
        logger.info("%s: stopping", signal.Signals(number).name)
        stop.set()

    async with service:
        # Not possible outside the main thread, where the owner of the thread has to end it.
        with contextlib.suppress(NotImplementedError, ValueError, RuntimeError):
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, on_signal, number)
        await stop.wait()


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop  # imported late: it costs a program that runs no service
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
