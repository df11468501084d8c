"""Module _reload runs a program, and starts it again whenever a file of it changes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from shoal.cli._output import note

_PAUSE = 0.3  # seconds between two looks at the files
_PATIENCE = 60.0  # seconds a program may take to stop: its linger and grace, and some more
_SKIPPED = frozenset({"__pycache__", "node_modules", "site-packages"})

_Times = dict[str, int]  # when a file was last changed, by its path


def run_reloading(
    command: Sequence[str], environment: Mapping[str, str], folders: Sequence[Path]
) -> int:
    """Run until a signal ends it, and return the exit code."""
    return asyncio.run(_Reloader(command, environment, folders).run())


class _Reloader:
    """One program at a time, and what its files were like when it was started."""

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], folders: Sequence[Path]
    ) -> None:
        self._command = command
        self._environment = environment
        self._folders = folders
        self._signals: asyncio.Queue[signal.Signals] = asyncio.Queue()

    async def run(self) -> int:
        """Start the program again and again."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._signals.put_nowait, number)
        while True:
            times = _times(self._folders)
            # A group of its own: the terminal sends Ctrl-C to all of one, and a service that is
            # asked to stop twice stops at once.
            process = await asyncio.create_subprocess_exec(
                *self._command, env=self._environment, process_group=0
            )
            try:
                came = await self._wait(process, times)
                asked = await self._stop(process, came)
            finally:
                _kill(process)
            if asked is not None:
                code = await process.wait()
                return code if code >= 0 else 128 - code

    async def _wait(
        self, process: asyncio.subprocess.Process, times: _Times
    ) -> signal.Signals | None:
        """Wait for a signal, which is returned, or for a change, which is told."""
        loop = asyncio.get_running_loop()
        ended = asyncio.create_task(process.wait())
        told = False
        pause = _PAUSE
        try:
            while True:
                if ended.done() and not told:
                    note(f"the program ended ({_ending(ended.result())}): waiting for a change")
                    told = True
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        return await self._signals.get()
                began = loop.time()
                now = await asyncio.to_thread(_times, self._folders)
                pause = max(_PAUSE, 10 * (loop.time() - began))  # a tenth of a core at most
                if changed := _changed(times, now):
                    note(f"{changed}: starting again")
                    return None
        finally:
            ended.cancel()

    async def _stop(
        self, process: asyncio.subprocess.Process, asked: signal.Signals | None
    ) -> signal.Signals | None:
        """Wait for the program to stop in order, and return the signal that asked for it if any.

        One that came before or meanwhile is waited with, another one is for the impatient.
        """
        if process.returncode is None:
            _send(process, asked or signal.SIGTERM)
        ended = asyncio.create_task(process.wait())
        try:
            async with asyncio.timeout(_PATIENCE):
                while not ended.done():
                    again = asyncio.create_task(self._signals.get())
                    try:
                        await asyncio.wait({ended, again}, return_when=asyncio.FIRST_COMPLETED)
                    finally:
                        again.cancel()
                    if again.done() and asked is not None:
                        note("asked twice: the program is killed")
                        break
                    asked = again.result() if again.done() else asked
        except TimeoutError:
            note(f"still there after {_PATIENCE:g} s: the program is killed")
        finally:
            ended.cancel()
        return asked


def _send(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(number)


def _kill(process: asyncio.subprocess.Process) -> None:
    """End the program and whatever it has started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _ending(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def _times(folders: Sequence[Path]) -> _Times:
    return dict(found for folder in folders for found in _files(str(folder)))


def _files(folder: str) -> Iterator[tuple[str, int]]:
    """Yield the .py files below a folder with their times; environments and caches are skipped."""
    try:
        with os.scandir(folder) as entries:
            found = list(entries)
    except OSError:
        return  # it is gone meanwhile
    if any(entry.name == "pyvenv.cfg" for entry in found):
        return
    for entry in found:
        with contextlib.suppress(OSError):
            if entry.is_dir(follow_symlinks=False):
                if entry.name not in _SKIPPED and not entry.name.startswith("."):
                    yield from _files(entry.path)
            elif entry.name.endswith(".py"):
                yield entry.path, entry.stat().st_mtime_ns


def _changed(before: _Times, now: _Times) -> str:
    """Return which file changed and how, empty if none did."""
    changes = dict.fromkeys(now.keys() - before.keys(), "is new")
    changes |= dict.fromkeys(before.keys() - now.keys(), "is gone")
    changes |= {path: "changed" for path, time in before.items() if now.get(path, time) != time}
    if not changes:
        return ""
    path = min(changes)
    more = f", and {len(changes) - 1} more" if len(changes) > 1 else ""
    return f"{os.path.relpath(path)} {changes[path]}{more}"
