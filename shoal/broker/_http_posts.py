"""Module _http_posts sends events to subscribers over connections that are reused."""

from __future__ import annotations

import asyncio
from urllib.parse import quote_plus

from shoal.broker._http_sockets import EventTransport, PostSocket
from shoal.errors import ConnectionClosed, Error, NotFound, Timeout, Unavailable, from_wire
from shoal.registry import Node
from shoal.tls import Tls

CONNECTIONS = 16  # to one subscriber; more posts at a time wait for one of them
IDLE = 60.0  # seconds a connection waits for its next event
ANSWER = 64 * 1024  # bytes an answer may have: it is empty, or says what was wrong
ID = "shoal.broker"


class Posts:
    """The connections of one publisher."""

    def __init__(self, tls: Tls | None, timeout: float) -> None:
        self._timeout = timeout
        self._plain = EventTransport(max_message=ANSWER, dial_timeout=timeout, read_timeout=timeout)
        self._secure = EventTransport(
            tls=tls or Tls(), max_message=ANSWER, dial_timeout=timeout, read_timeout=timeout
        )
        self._peers: dict[tuple[bool, str], _Peer] = {}
        self._sweep: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"Posts({sorted(address for _, address in self._peers)})"

    async def post(self, node: Node, path: str, envelope: bytes) -> None:
        """Send an event to a node.

        Raises an Error that says what happened, with `unsent` set if no handler can have got it.
        """
        secure = node.metadata.get("secure") == "true"
        peer = self._peers.get((secure, node.address))
        if peer is None:
            peer = self._peers[secure, node.address] = _Peer()
        peer.users += 1
        sent = False
        try:
            async with asyncio.timeout(self._timeout), peer.limit:
                socket = peer.take() or await self._dial(node.address, secure)
                sent = True
                status, text = await peer.exchange(
                    socket, f"{path}?id={quote_plus(node.id)}", envelope
                )
        except TimeoutError:
            error: Error = Timeout(f"{node.address} did not answer in {self._timeout:g} s", id=ID)
            error.unsent = not sent
            raise error from None
        except Error as error:
            error.unsent = error.unsent or not sent
            raise
        finally:
            peer.users -= 1
            self._tidy()
        if status != 200:
            raise _refusal(node, status, text)

    async def close(self) -> None:
        """Close all connections; posts under way fail."""
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        peers = list(self._peers.values())
        self._peers.clear()
        for peer in peers:
            peer.abort()
        await asyncio.gather(*(socket.close() for peer in peers for socket in peer.all))

    async def _dial(self, address: str, secure: bool) -> PostSocket:
        socket = await (self._secure if secure else self._plain).dial(address)
        assert isinstance(socket, PostSocket)
        return socket

    def _tidy(self, again: bool = False) -> None:
        """Have unused connections closed in a while."""
        if again:
            self._sweep = None
            horizon = asyncio.get_running_loop().time() - IDLE
            for key, peer in list(self._peers.items()):
                peer.drop(horizon)
                if not peer.idle and not peer.users:
                    del self._peers[key]
        if self._sweep is None and self._peers:
            self._sweep = asyncio.get_running_loop().call_later(IDLE / 2, self._tidy, True)


class _Peer:
    """The connections to one address."""

    def __init__(self) -> None:
        self.closed = False
        self.limit = asyncio.Semaphore(CONNECTIONS)
        self.users = 0
        self.idle: list[tuple[float, PostSocket]] = []
        self.all: set[PostSocket] = set()

    def take(self) -> PostSocket | None:
        """Return a connection that is still good; the last used is the surest."""
        while self.idle:
            _, socket = self.idle.pop()
            if socket.reusable:
                return socket
            self._abort(socket)
        return None

    async def exchange(self, socket: PostSocket, target: str, body: bytes) -> tuple[int, bytes]:
        """Post, and keep the connection if all went well."""
        self.all.add(socket)
        try:
            if self.closed:
                raise ConnectionClosed("the broker was disconnected", id=ID)
            answer = await socket.post(target, body)
        except BaseException:
            self._abort(socket)
            raise
        if socket.reusable and not self.closed:
            self.idle.append((asyncio.get_running_loop().time(), socket))
        else:
            self._abort(socket)
        return answer

    def drop(self, horizon: float) -> None:
        """Close connections not used since this loop time, and those the peer has closed."""
        kept = []
        for since, socket in self.idle:
            if since > horizon and socket.reusable:
                kept.append((since, socket))
            else:
                self._abort(socket)
        self.idle = kept

    def abort(self) -> None:
        """Close all connections at once, and those that are being made when they are."""
        self.closed = True
        for socket in self.all:
            socket.abort()

    def _abort(self, socket: PostSocket) -> None:
        self.all.discard(socket)
        socket.abort()


def _refusal(node: Node, status: int, text: bytes) -> Error:
    told = from_wire(text.decode("utf-8", "replace").strip()[:1000])
    why = f"{node.address} answered {status}: {told}"
    if status == 404:
        error: Error = NotFound(why, id=ID)
    else:
        error = Unavailable(why, id=ID)
    error.unsent = True  # whoever answers like this did not take it
    return error
