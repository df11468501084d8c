"""Module _faulty_transport is a transport whose connections suffer."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from typing import Any

from shoal.errors import ConnectionClosed, Error, Unavailable
from shoal.message import Message
from shoal.testing.faults import HOLD, ID, Faults, Flow, after_join
from shoal.transport import NO_METADATA, Accept, Listener, Socket, Transport

PATIENCE = 5.0  # seconds a dial takes that nobody hears


class FaultyTransport(Transport):
    """Dials and listens by another transport."""

    def __init__(self, inner: Transport, faults: Faults, place: str) -> None:
        self.place = place
        self._inner = inner
        self._faults = faults
        self._dials = itertools.count(1)

    def __repr__(self) -> str:
        return f"FaultyTransport({self.place!r}, {self._inner!r})"

    async def dial(self, address: str, metadata: Mapping[str, str] = NO_METADATA) -> Socket:
        faults, there = self._faults, self._faults.whose(address)
        name = f"{self.place} dial {next(self._dials)}"
        if faults.apart(self.place, there):
            with suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE):
                    await faults.joined(self.place, there)
        faults.check(self.place, there)
        inner = await self._inner.dial(address, metadata)
        flows = faults.flow(f"{name} out"), faults.flow(f"{name} in")

        async def again(message: Message) -> None:
            """Let a request arrive a second time, as if a proxy had repeated it."""
            other = await self._inner.dial(address, metadata)
            try:
                await other.send(message)
                await other.recv()
            finally:
                await other.close()

        return FaultySocket(inner, faults, (self.place, there), flows, again)

    async def listen(self, address: str, accept: Accept) -> Listener:
        if self._faults.dead(self.place):
            raise Unavailable(f"{self.place} was killed, and cannot listen", id=ID)

        async def accepted(socket: Socket) -> None:
            if self._faults.dead(self.place):
                return
            wrapped = AcceptedSocket(socket, self._faults, self.place)
            try:
                await accept(wrapped)
            finally:
                await wrapped.close()

        listener = await self._inner.listen(address, accepted)
        self._faults.listens(listener.address, self.place)
        return listener


class AcceptedSocket(Socket):
    """The side that was dialled: it suffers what its peer does, and dies with its place."""

    def __init__(self, inner: Socket, faults: Faults, place: str) -> None:
        self.local, self.remote = inner.local, inner.remote
        self._inner = inner
        self._faults = faults
        self._place = place
        self._lost: Callable[[], object] | None = None
        faults.live(place, self)

    def __repr__(self) -> str:
        return f"<AcceptedSocket at {self._place}: {self._inner!r}>"

    async def send(self, message: Message) -> None:
        await self._inner.send(message)

    async def recv(self) -> Message:
        return await self._inner.recv()

    def on_lost(self, callback: Callable[[], object]) -> None:
        self._lost = callback
        self._inner.on_lost(callback)

    def on_message(self, take: Callable[[Message], bool]) -> None:
        return  # what is sent in answer has to come this way

    async def close(self) -> None:
        self._faults.ended(self._place, self)
        self._lost = None
        await self._inner.close()

    async def killed(self) -> None:
        """Let the peer see the connection break, and what serves it end."""
        callback, self._lost = self._lost, None
        await self._inner.close()
        if callback is not None:  # who closes a socket is not told by it
            callback()


class FaultySocket(Socket):
    """The side that dialled: messages of both ways meet their fates here."""

    def __init__(
        self,
        inner: Socket,
        faults: Faults,
        places: tuple[str, str],
        flows: tuple[Flow, Flow],
        again: Callable[[Message], Coroutine[Any, Any, None]],
    ) -> None:
        self.local, self.remote = inner.local, inner.remote
        self._inner = inner
        self._faults = faults
        self._places = places
        self._out, self._in = flows
        self._again = again
        self._sending = asyncio.Lock()
        self._held: Message | None = None  # shall go after the next one
        self._arrived: deque[tuple[Message, float]] = deque()  # with the time they arrive at
        self._late: Message | None = None  # shall come after the next one
        self._tasks: set[asyncio.Task[None]] = set()
        self._streams = False
        self._killed = False
        for place in places:
            faults.live(place, self)

    def __repr__(self) -> str:
        return f"<FaultySocket from {' to '.join(self._places)}: {self._inner!r}>"

    # Out

    async def send(self, message: Message) -> None:
        async with self._sending:
            await self._faults.joined(*self._places)
            fate = self._out.next()
            if fate.delay:
                await asyncio.sleep(fate.delay)
            if fate.cut:
                await self._inner.close()
            if fate.drop:
                return
            item = self._streams and _is_item(message)
            opens = "Micro-Stream" in message.header and not self._streams
            self._streams = self._streams or opens
            message = fate.changed(message)
            if fate.reorder and item and self._held is None:
                self._held = message
                self._start(self._release())
                return
            if not item:
                await self._send_held()  # nothing comes before the beginning or after the end
            await self._inner.send(message)
            if fate.duplicate and item:
                await self._inner.send(message)
            elif fate.duplicate and not self._streams:
                # With two answers on one connection the next call would get the second.
                self._start(self._repeat(message))
            await self._send_held()

    async def _repeat(self, message: Message) -> None:
        with suppress(Error):
            await self._again(message)

    async def _release(self) -> None:
        """Send what waits for a next message that does not come."""
        await asyncio.sleep(HOLD)
        async with self._sending:
            with suppress(ConnectionClosed):
                await self._send_held()

    async def _send_held(self) -> None:
        held, self._held = self._held, None
        if held is not None:
            await self._inner.send(held)

    # In

    async def recv(self) -> Message:
        while not self._arrived:
            await self._fetch()
        message, when = self._arrived[0]
        wait = when - asyncio.get_running_loop().time()
        if wait > 0:
            await asyncio.sleep(wait)
        await self._faults.joined(*self._places)
        self._arrived.popleft()  # now, since being cancelled loses no message
        return message

    async def _fetch(self) -> None:
        now = asyncio.get_running_loop().time
        late = self._late
        try:
            async with asyncio.timeout(None if late is None else HOLD):
                message = await self._inner.recv()
        except TimeoutError:
            self._come(late, now())
            return
        except ConnectionClosed:
            if late is None:
                if not self._killed:
                    await self._faults.joined(*self._places)
                raise
            self._come(late, now())  # the next one who asks hears of the end
            return
        fate = self._in.next()
        if fate.cut:
            await self._inner.close()
            raise ConnectionClosed(f"{self.remote} closed the connection")
        if fate.drop:
            return
        message = fate.changed(message)
        item = self._streams and _is_item(message)
        if fate.reorder and item and late is None:
            self._late = message
            return
        when = now() + fate.delay
        twice = message if fate.duplicate and item else None
        for one in (message, twice, late) if item else (late, message):
            self._come(one, when)

    def _come(self, message: Message | None, when: float) -> None:
        self._late = None
        if message is not None:
            self._arrived.append((message, when))

    def on_lost(self, callback: Callable[[], object]) -> None:
        self._inner.on_lost(lambda: after_join(self._faults, *self._places, callback))

    def on_message(self, take: Callable[[Message], bool]) -> None:
        return  # messages meet their fates in recv()

    # The end

    async def close(self) -> None:
        for place in self._places:
            self._faults.ended(place, self)
        if self._held is not None and not self._sending.locked():
            with suppress(ConnectionClosed):
                await self._send_held()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._inner.close()

    async def killed(self) -> None:
        """Let both sides see the connection break."""
        self._killed = True
        await self._inner.close()

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _is_item(message: Message) -> bool:
    """Whether a message of a stream is one of its items, not its beginning or end."""
    return "Micro-Error" not in message.header
