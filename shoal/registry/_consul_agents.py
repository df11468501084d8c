"""Module _consul_agents asks Consul's agents over HTTP, and others if one does not answer."""

from __future__ import annotations

import asyncio
import base64
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import httpx

from shoal._reasons import reason
from shoal.errors import BadRequest, Error, NotFound, Unavailable
from shoal.registry._consul_settings import ConsulSettings, ssl_context
from shoal.tls import Tls

logger = logging.getLogger(__name__)

MAX_ANSWER = 64 << 20
_MAX_TEXT = 300  # of an error, shown to people

# A connection that was kept is closed by an agent that ends; that says nothing about the next.
_STALE = (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError)


@dataclass(frozen=True, slots=True)
class Answer:
    """What an agent said, and until which change of the data (its index or hash) it is true."""

    data: bytes
    agent: str
    index: int = 0
    hash: str = ""
    hidden: bool = False  # the token may not see all of it


class Agents:
    """A list of agents; the one that answered last is asked first.

    Raises NotFound and BadRequest where an agent says so, and Unavailable for the rest.
    """

    def __init__(self, agents: Sequence[str], tls: Tls | None, settings: ConsulSettings) -> None:
        self._agents = list(agents)
        self._tls = tls
        self._settings = settings
        self._transport: httpx.AsyncHTTPTransport | None = None
        self._changes: list[int] = []

    def __repr__(self) -> str:
        return f"Agents({str(self)!r})"

    def __str__(self) -> str:
        return ",".join(self._agents)

    async def read(
        self, path: str, parameters: Mapping[str, str], *, wait: float = 0.0, agent: str = ""
    ) -> Answer:
        """Ask a question; with `wait`, the answer may take so long (blocking queries)."""
        if wait:
            parameters = {**parameters, "wait": f"{wait * 1000:.0f}ms"}
            wait *= 1 + 1 / 16  # by which Consul spreads the ends of what was asked at once
        return await self._ask("GET", path, parameters, b"", wait=wait, agent=agent)

    async def write(
        self, path: str, parameters: Mapping[str, str], data: bytes = b"", *, agent: str = ""
    ) -> Answer:
        """Tell something, which must be the same when it is told twice; to `agent` alone if set."""
        return await self._ask("PUT", path, parameters, data, agent=agent)

    async def close(self) -> None:
        """Close all connections."""
        transport, self._transport = self._transport, None
        if transport is not None:
            await transport.aclose()

    async def _ask(
        self,
        method: str,
        path: str,
        parameters: Mapping[str, str],
        data: bytes,
        *,
        wait: float = 0.0,
        agent: str = "",
    ) -> Answer:
        problem: Error | None = None
        for one in [agent] if agent else list(self._agents):
            try:
                answer = await self._exchange(one, method, path, parameters, data, wait)
            except _Failed as failed:
                problem = problem or failed.error
                logger.debug("%s", failed.error)
                continue
            if not agent and one != self._agents[0] and one in self._agents:
                logger.info("consul at %s is asked from now on: %s", one, problem)
                self._agents.remove(one)
                self._agents.insert(0, one)
            return answer
        assert problem is not None
        raise problem

    async def _exchange(
        self,
        agent: str,
        method: str,
        path: str,
        parameters: Mapping[str, str],
        data: bytes,
        wait: float,
    ) -> Answer:
        """Ask one agent; raises _Failed if another one may know better."""
        url = f"{'http' if self._tls is None else 'https'}://{agent}/v1/{path}"
        seconds = self._settings.timeout + wait
        try:
            async with asyncio.timeout(seconds):
                try:
                    return await self._receive(agent, method, url, parameters, data)
                except _STALE:
                    if self._transport is None:  # closed by this side
                        raise
                    return await self._receive(agent, method, url, parameters, data)
        except TimeoutError as error:
            late = Unavailable(f"consul at {agent} has not answered within {seconds:g} s")
            raise _Failed(late) from error
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            gone = Unavailable(f"consul at {agent} cannot be reached: {reason(error)}")
            raise _Failed(gone) from error

    async def _receive(
        self, agent: str, method: str, url: str, parameters: Mapping[str, str], data: bytes
    ) -> Answer:
        # The transport alone: a client writes a line into the log for every request.
        transport = await self._open()
        request = httpx.Request(
            method, url, params=dict(parameters), content=data, headers=self._headers()
        )
        response = await transport.handle_async_request(request)
        try:
            answer = bytearray()
            async for chunk in response.aiter_raw():
                answer += chunk
                if len(answer) > MAX_ANSWER:
                    raise Unavailable(f"consul at {agent} answers more than {MAX_ANSWER} bytes")
        finally:
            await response.aclose()
        if response.status_code != 200:
            self._refuse(agent, response.status_code, bytes(answer[: 4 * _MAX_TEXT]))
        index = response.headers.get("X-Consul-Index", "")
        return Answer(
            bytes(answer),
            agent,
            int(index) if index.isascii() and index.isdigit() and len(index) < 20 else 0,
            response.headers.get("X-Consul-ContentHash", ""),
            response.headers.get("X-Consul-Results-Filtered-By-ACLs") == "true",
        )

    def _refuse(self, agent: str, status: int, data: bytes) -> None:
        text = " ".join(data.decode(errors="replace").split())
        for secret in (self._settings.secret(), self._settings.password):
            text = text.replace(secret, "***") if secret else text
        text = text[:_MAX_TEXT]
        if status == 404 and "page not found" not in text:
            raise NotFound(f"consul at {agent}: {text}")
        if status == 400:
            raise BadRequest(f"consul at {agent}: {text}")
        if status in (401, 403):
            raise Unavailable(f"consul at {agent} refuses the token it was shown: {text}")
        raise _Failed(Unavailable(f"consul at {agent} answered {status}: {text}"))

    def _headers(self) -> dict[str, str]:
        # Not compressed: the size of an answer is known before it is in memory.
        headers = {"Accept-Encoding": "identity"}
        if token := self._settings.secret():
            headers["X-Consul-Token"] = token
        if self._settings.user or self._settings.password:
            login = f"{self._settings.user}:{self._settings.password}".encode()
            headers["Authorization"] = f"Basic {base64.b64encode(login).decode()}"
        return headers

    async def _open(self) -> httpx.AsyncHTTPTransport:
        changes = _changes(self._tls)
        if self._changes != changes:
            await self.close()  # a certificate was renewed
        if self._transport is None:
            self._transport = httpx.AsyncHTTPTransport(
                verify=ssl_context(self._tls) or False,
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=8),
                trust_env=False,  # agents are near: no proxy is between
            )
            self._changes = changes
        return self._transport


def _changes(tls: Tls | None) -> list[int]:
    """Return when the files of the certificates changed."""
    files = (tls.cert_file, tls.key_file, tls.ca_file) if tls else ()
    return [os.stat(file).st_mtime_ns for file in files if file and os.path.exists(file)]


class _Failed(Exception):
    """One agent cannot tell; the error is for whoever asked, if no other can."""

    def __init__(self, error: Error) -> None:
        super().__init__(str(error))
        self.error = error
