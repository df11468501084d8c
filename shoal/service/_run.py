"""Module _run runs a service in an event loop of its own until a signal ends it."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

from shoal.errors import Error
from shoal.options import Options
from shoal.plugins import PluginError
from shoal.service._workers import Worker, patience, supervise
from shoal.telemetry import JsonFormatter
from shoal.tls import TlsError

logger = logging.getLogger("shoal.service")

THREADS = "shoal-"  # what the names of a server's threads begin with
IDLE = 1.0  # seconds in which a thread that does nothing has surely ended


def run_until_signal(
    service: AbstractAsyncContextManager[Any],
    options: Options,
    identity: Callable[[], Mapping[str, str]],
) -> None:
    """Enter the service, wait for SIGINT or SIGTERM, leave it; or have workers do so.

    `identity` gives what every line of a log in JSON says of who wrote it.
    """
    worker = Worker.here()
    if not logging.getLogger().handlers:
        _log(options, worker, identity)
    try:
        if worker is None and options.workers > 1:
            if code := supervise(options):
                raise SystemExit(code)
            return
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(_serve(service, worker, patience(options)))
    except (Error, PluginError, TlsError) as error:
        sys.stderr.write(f"{options.name or 'service'}: {error}\n")
        raise SystemExit(1) from None
    _leave_threads()


def _log(
    options: Options, worker: Worker | None, identity: Callable[[], Mapping[str, str]]
) -> None:
    """Set up logging to stderr."""
    handler = logging.StreamHandler()
    if options.log_format == "json":
        number = {} if worker is None else {"worker": str(worker.number)}
        handler.setFormatter(JsonFormatter(lambda: {**identity(), **number}))
    else:
        who = "" if worker is None else f"worker {worker.number}: "
        handler.setFormatter(
            logging.Formatter(f"%(asctime)s %(levelname)-7s {who}%(name)s: %(message)s")
        )
    level = getattr(logging, options.log_level.upper(), logging.INFO)
    logging.basicConfig(level=level, handlers=[handler])


async def _serve(
    service: AbstractAsyncContextManager[Any], worker: Worker | None, patience: float
) -> None:
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None
    stop = asyncio.Event()
    started = signalled = False  # a worker can be asked by its parent and by a signal

    def on_signal(number: int) -> None:
        nonlocal signalled
        logger.info("%s: stopping", signal.Signals(number).name)
        if signalled:
            _end_now(128 + number)  # asked twice
        signalled = True
        on_stop()

    def on_stop() -> None:
        if not stop.is_set() and not started:
            task.cancel()  # what was begun is undone
        stop.set()

    # Not possible outside the main thread, where the owner of the thread has to end it.
    with contextlib.suppress(NotImplementedError, ValueError, RuntimeError):
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, on_signal, number)
    if worker is not None:
        worker.until_stopped(on_stop, patience)
    try:
        async with service:
            started = True
            if worker is not None:
                worker.serves(getattr(service, "health_address", ""))
            await stop.wait()
    except asyncio.CancelledError:
        if started or not stop.is_set():
            raise
        task.uncancel()


def _end_now(code: int) -> None:
    """End the process without waiting for anything: no task, no thread, no clean-up."""
    with contextlib.suppress(Exception):
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def _leave_threads() -> None:
    """See that the process ends although handlers block threads, which Python would wait for."""
    named = (thread for thread in threading.enumerate() if thread.name.startswith(THREADS))
    busy = [thread for thread in named if not thread.daemon]

    def leave() -> None:
        for thread in busy:
            thread.join(IDLE)
        if late := sum(thread.is_alive() for thread in busy):
            logger.warning("the process ends without %d handlers that still block a thread", late)
            atexit._run_exitfuncs()
            _end_now(1)

    if busy:
        # Functions of atexit run after Python has waited for threads; these run before.
        threading._register_atexit(leave)  # type: ignore[attr-defined]  # it has no public name


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop  # imported late: it costs a program that runs no service
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
