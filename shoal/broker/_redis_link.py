"""Module _redis_link is one connection to Redis: commands in flight, and what is pushed."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from redis import exceptions
from redis._parsers import _AsyncRESP2Parser
from redis.asyncio.connection import Connection, SSLConnection

from shoal._reasons import reason
from shoal.broker._redis_settings import RedisSettings, Server
from shoal.errors import BadRequest, ConnectionClosed, Error, Forbidden, Unavailable
from shoal.tls import Tls

ID = "shoal.broker"
_PIECE = 64 * 1024

Push = Callable[[list[Any]], Awaitable[None]]
"""Takes what the server sends unasked; nothing else is read from the connection meanwhile."""


class Refused(Exception):
    """The server answered a command with an error; `code` is its first word: NOGROUP, ..."""

    def __init__(self, error: exceptions.ResponseError) -> None:
        super().__init__(str(error))
        # redis-py takes those words off for which it has a class.
        known = {
            exceptions.NoPermissionError: "NOPERM",
            exceptions.ReadOnlyError: "READONLY",
            exceptions.OutOfMemoryError: "OOM",
        }
        self.code = known.get(type(error)) or str(error).partition(" ")[0]

    def error(self) -> Error:
        """Return it as the error that publishers and subscribers get."""
        kinds: dict[str, type[Error]] = {"WRONGTYPE": BadRequest, "NOPERM": Forbidden}
        return kinds.get(self.code, Unavailable)(f"Redis refuses: {self}", id=ID)


class TooLong(bytes):
    """Stands for a value over the limit, which was thrown away; holds its length."""


class _Parser(_AsyncRESP2Parser):
    """Bounds what is kept of a value: Redis itself allows 512 MiB."""

    limit = 0

    async def _read(self, length: int) -> bytes:
        if length <= self.limit:
            return await super()._read(length)
        assert self._stream is not None
        left = length + 2 - len(self._buffer[self._pos :])
        self._pos += length + 2
        while left > 0:
            piece = await self._stream.read(min(left, _PIECE))
            if not piece:
                raise exceptions.ConnectionError("the connection ended inside a value")
            left -= len(piece)
        return TooLong(str(length).encode())


class Link:
    """An open connection; it breaks once, and `ended` tells when."""

    def __init__(self, server: Server, connection: Connection, push: Push | None) -> None:
        self.server = server
        self.info: dict[str, str] = {}
        """What the server says of itself: version, mode, role; empty if it does not."""
        self.reads = 0
        """How many answers and pushes there were: whether it lives."""
        self.pushing = False
        self.error: Error | None = None
        """Why it ended."""
        self._connection = connection
        self._push = push
        self._answers: deque[asyncio.Future[Any]] = deque()
        self._sending = asyncio.Lock()
        self.ended = asyncio.get_running_loop().create_task(self._read())
        """Is done when the connection has ended."""

    def __repr__(self) -> str:
        state = "open" if not self.ended.done() else f"ended: {self.error}"
        return f"<Link {self.server} {len(self._answers)} unanswered, {state}>"

    @property
    def broken(self) -> bool:
        """Whether nothing can be sent any more."""
        return self.error is not None or self.ended.done()

    async def call(self, *words: str | bytes | int, timeout: float) -> Any:
        """Return the answer to a command; raises Refused, ConnectionClosed, or Unavailable."""
        try:
            async with asyncio.timeout(timeout):
                return await (await self.send(*words))
        except TimeoutError:
            error = Unavailable(f"Redis at {self.server} did not answer in {timeout:g} s", id=ID)
            self.fail(error)
            raise error from None

    async def send(self, *words: str | bytes | int) -> asyncio.Future[Any]:
        """Send a command and return its answer to come."""
        answer = asyncio.get_running_loop().create_future()
        async with self._sending:
            self._check()
            self._answers.append(answer)
            try:
                await self._connection.send_command(*words, check_health=False)
            except (exceptions.RedisError, OSError) as error:
                self.fail(self._gone(error))
            except BaseException:
                self.fail(self._gone("a command was cancelled when half sent"))
                raise
            self._check()
        return answer

    def fail(self, error: Error) -> None:
        """End it for a reason; what is unanswered fails with that."""
        if self.error is None:
            self.error = error
        self.ended.cancel()

    async def close(self) -> None:
        """End it; never raises."""
        self.fail(ConnectionClosed("the broker was disconnected", id=ID))
        await asyncio.wait([self.ended])

    def _gone(self, why: object) -> Error:
        return ConnectionClosed(f"the connection to Redis at {self.server} broke: {why}", id=ID)

    def _check(self) -> None:
        if self.error is not None:
            raise ConnectionClosed(str(self.error), id=ID)
        if self.ended.done():
            raise self._gone("it was cancelled")

    async def _read(self) -> None:
        try:
            while True:
                try:
                    answer: Any = await self._connection.read_response(disable_decoding=True)
                except exceptions.ResponseError as error:
                    answer = Refused(error)
                self.reads += 1
                if self._push is not None and isinstance(answer, list) and answer[0] == b"message":
                    self.pushing = True
                    await self._push(answer)
                    self.pushing = False
                else:
                    self._answer(answer)
        except asyncio.CancelledError:
            if self.error is None:  # not by `fail`
                raise
        except Exception as error:
            self.error = self.error or self._gone(error)
            self.error.__cause__ = error
        finally:
            for waiting in self._answers:
                if not waiting.done():
                    waiting.set_exception(ConnectionClosed(str(self.error or "ended"), id=ID))
                    waiting.exception()  # nobody may be waiting any more
            with suppress(exceptions.RedisError, OSError):
                await self._connection.disconnect(nowait=True)

    def _answer(self, answer: Any) -> None:
        if not self._answers:
            raise exceptions.ConnectionError("it gave an answer nobody had asked for")
        waiting = self._answers.popleft()
        if waiting.done():
            return
        if isinstance(answer, Refused):
            waiting.set_exception(answer)
            waiting.exception()  # nobody may be waiting any more
        else:
            waiting.set_result(answer)


async def connect(
    server: Server,
    settings: RedisSettings,
    tls: Tls | None,
    *,
    limit: int,
    push: Push | None = None,
) -> Link:
    """Return a connection to one server; raises Unavailable saying why there is none.

    `limit` bounds a value in bytes.
    """
    connection = _connection(server, settings, tls, limit)
    try:
        async with asyncio.timeout(settings.timeout):
            await connection.connect()  # type: ignore[no-untyped-call]  # redis's own lacks types
    except BaseException as error:
        with suppress(exceptions.RedisError, OSError):
            await connection.disconnect(nowait=True)
        why = _unavailable(server, settings, error)
        if why is None:
            raise
        raise why from error
    link = Link(server, connection, push)
    try:
        # Without an argument it changes nothing, and every user is permitted to ask.
        answer = await link.call("HELLO", timeout=settings.timeout)
        words = [one.decode() if isinstance(one, bytes) else str(one) for one in answer]
        link.info = dict(zip(words[::2], words[1::2], strict=False))
        if settings.name:
            await link.call("CLIENT SETNAME", settings.name, timeout=settings.timeout)
    except Refused:
        pass  # before Redis 6, or something between; and a name may not be permitted
    except BaseException as error:
        await link.close()
        if link.error and isinstance(link.error.__cause__, exceptions.AuthenticationError):
            raise Unavailable(f"Redis at {server} wants a password", id=ID) from error
        raise
    return link


def _unavailable(
    server: Server, settings: RedisSettings, error: BaseException
) -> Unavailable | None:
    """Return why there is no connection, in a sentence; nothing for what is no failure of it."""
    match error:
        case TimeoutError():
            sentence = f"Redis at {server} did not answer in {settings.timeout:g} s"
        case exceptions.AuthenticationError():
            who = server.user or settings.user or "default"
            sentence = f"Redis at {server} refuses user {who!r}: {error}"
        case exceptions.InvalidResponse():
            sentence = f"what answers at {server} is no Redis server"
        case exceptions.RedisError() | OSError():
            sentence = f"Redis at {server} cannot be used: {reason(error)}"
        case _:
            return None
    return Unavailable(sentence, id=ID)


def primary(link: Link) -> None:
    """Raise Unavailable for a server that takes no writes."""
    if link.info.get("mode") == "sentinel":
        raise Unavailable(
            f"{link.server} is a Sentinel: give the addresses of the servers it watches, and the "
            "primary among them is found",
            id=ID,
        )
    if link.info.get("role", "master") != "master":
        raise Unavailable(f"Redis at {link.server} is a replica, not the primary", id=ID)


def _connection(server: Server, settings: RedisSettings, tls: Tls | None, limit: int) -> Connection:
    password = server.password or settings.password
    arguments: dict[str, Any] = {
        "host": server.host,
        "port": server.port,
        "db": server.database,
        "username": server.user or settings.user or None,
        "password": (password() if callable(password) else password) or None,
        "socket_timeout": None,
        "socket_connect_timeout": settings.timeout,
        "socket_keepalive": True,
        "protocol": 2,
        "parser_class": type("_Bounded", (_Parser,), {"limit": limit}),
    }
    if not server.secure and tls is None:
        return Connection(**arguments)
    connection = SSLConnection(**arguments)
    # Its own settings would trust the system's authorities beside the one that is given.
    connection.ssl_context.context = (tls or Tls()).client_context(())
    return connection
