"""Module _outbox sends on one connection: in order, bounded, and asks whether the server lives."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import nats.errors

from shoal._nats._client import Client
from shoal._nats._settings import NatsSettings
from shoal.errors import BadRequest, TooLarge, Unavailable

WAITING = 8 * 1024 * 1024  # bytes that may wait to be written, before those who send wait


@dataclass(slots=True, eq=False)
class _Job:
    subject: str  # empty for a question only whether all before it was taken
    payload: bytes
    reply: str
    headers: Mapping[str, str] | None
    confirm: bool
    done: asyncio.Future[Any] | None
    asks: bool = False  # the answer ends it, not that it was sent
    written: bool = False

    def finish(self, error: Exception | None = None) -> None:
        if self.done is None or self.done.done():
            return
        if error is not None:
            self.done.set_exception(error)
        elif not self.asks:
            self.done.set_result(None)


class Outbox:
    """Writes from one task of its own, since nats-py loses cancellations of those who publish."""

    def __init__(
        self, client: Client, settings: NatsSettings, give_up: Callable[[Exception], object]
    ) -> None:
        """Call `give_up` when the server does not answer."""
        self.client = client
        self._settings = settings
        self._give_up = give_up
        self._loop = asyncio.get_running_loop()
        self._jobs: deque[_Job] = deque()
        self._writing: list[_Job] = []
        self._size = 0
        self._work = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._error: Unavailable | None = None
        self._task = self._loop.create_task(self._write())

    def __repr__(self) -> str:
        return f"Outbox({len(self._jobs)} messages, {self._size} bytes)"

    async def publish(
        self,
        subject: str,
        payload: bytes = b"",
        *,
        reply: str = "",
        headers: Mapping[str, str] | None = None,
        confirm: bool = True,
        answer: asyncio.Future[Any] | None = None,
    ) -> None:
        """Send a message once there is room; see Link.publish.

        With an `answer` this does not wait until it is sent; what goes wrong then fails the answer.
        """
        if len(payload) > self.client.max_payload:
            error = TooLarge(
                f"a message of {len(payload)} bytes is too large for this NATS server, which takes "
                f"{self.client.max_payload}"
            )
            error.unsent = True
            raise error
        while self._size > WAITING and self._error is None:
            self._room.clear()
            await self._room.wait()
        if answer is not None:
            self._add(_Job(subject, payload, reply, headers, False, answer, asks=True))
            return
        done = self._loop.create_future()
        self._add(_Job(subject, payload, reply, headers, confirm, done))
        await done

    def publish_soon(
        self,
        subject: str,
        payload: bytes = b"",
        *,
        reply: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Send a small message without waiting; dropped when too much waits already."""
        if self._error is None and self._size <= WAITING:
            self._add(_Job(subject, payload, reply, headers, False, None))

    async def confirm(self) -> None:
        """Wait until the server has taken all that was sent before."""
        done = self._loop.create_future()
        self._add(_Job("", b"", "", None, True, done))
        await done

    async def drain(self, timeout: float) -> None:
        """Wait until all is written, for so many seconds at most."""
        with suppress(TimeoutError, Unavailable):
            async with asyncio.timeout(timeout):
                await self.confirm()

    def refused(self, why: str) -> None:
        """Fail what the server does not permit; it says so before it confirms the rest."""
        for job in self._writing:
            if job.subject and f'publish to "{job.subject.lower()}"' in why:
                job.finish(Unavailable(f"NATS does not permit to publish to {job.subject}"))

    async def close(self, error: Unavailable) -> None:
        """Fail what waits with this error, and write no more."""
        self._error = error
        self._work.set()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._room.set()
        for job in (*self._writing, *self._jobs):
            job.finish(self._failure(job))
        self._jobs.clear()
        self._writing.clear()

    def _add(self, job: _Job) -> None:
        if self._error is not None:
            job.finish(self._failure(job))
            return
        self._jobs.append(job)
        self._size += len(job.payload)
        self._work.set()

    def _failure(self, job: _Job) -> Unavailable:
        assert self._error is not None
        failure = Unavailable(self._error.detail, id=self._error.id)
        failure.unsent = not job.written
        return failure

    async def _write(self) -> None:
        """Write what there is, and ask in between whether the server lives."""
        asked = self._loop.time()
        while self._error is None:  # nats-py may lose the cancellation that `close` makes
            with suppress(TimeoutError):
                async with asyncio.timeout_at(asked + self._settings.ping):
                    await self._work.wait()
            self._work.clear()
            self._writing = list(self._jobs)
            self._jobs.clear()
            try:
                sure = await self._send(self._writing)
                if sure or self._loop.time() >= asked + self._settings.ping:
                    await self.client.flush(self._settings.timeout)  # type: ignore[arg-type]  # any
                    asked = self._loop.time()
            except (OSError, nats.errors.Error) as error:
                self._give_up(error)
                await asyncio.Event().wait()  # until the owner closes this
            for job in self._writing:
                job.finish()
            self._writing = []

    async def _send(self, jobs: list[_Job]) -> bool:
        sure = False
        for job in jobs:
            sure = sure or job.confirm
            if job.subject:
                try:
                    job.written = True
                    headers = None if job.headers is None else dict(job.headers)
                    await self.client.publish(job.subject, job.payload, job.reply, headers)
                except (nats.errors.BadSubjectError, nats.errors.BadHeaderError) as error:
                    job.finish(BadRequest(f"NATS cannot carry this: {error}"))
            self._size -= len(job.payload)
            if not job.confirm:
                job.finish()
        if self._size <= WAITING:
            self._room.set()
        return sure
