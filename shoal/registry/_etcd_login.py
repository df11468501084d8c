"""Module _etcd_login knows the token that stands for a user of etcd, and gets another in time."""

from __future__ import annotations

import asyncio

import msgspec

from shoal.errors import Unavailable
from shoal.registry._etcd_http import EtcdHttp, Reply
from shoal.registry._etcd_settings import EtcdSettings

NOT_FOUND, OUT_OF_RANGE, UNAUTHENTICATED = 5, 11, 16  # codes of gRPC
_FAILED_PRECONDITION = 9


NO_USER = "user name is empty"  # who did not log in


class Refused(Unavailable):
    """A member does not do what it was asked; `reason` is gRPC's code."""

    def __init__(self, member: str, text: str, reason: int) -> None:
        said = "it wants a user and a password" if NO_USER in text else text
        super().__init__(f"etcd at {member}: {said.removeprefix('etcdserver: ')}")
        self.text = text
        self.reason = reason

    @property
    def about_login(self) -> bool:
        """Whether another token might help."""
        return (
            self.reason == UNAUTHENTICATED
            or "invalid auth token" in self.text
            or NO_USER in self.text
            or "revision of auth store is old" in self.text
        )


class _Problem(msgspec.Struct):
    message: str = ""
    error: str = ""
    code: int = 0


class _Token(msgspec.Struct):
    token: str = ""


_problem = msgspec.json.Decoder(_Problem, strict=False).decode
_token = msgspec.json.Decoder(_Token).decode


class Login:
    """A token for the user of the settings, if there is one."""

    def __init__(self, http: EtcdHttp, settings: EtcdSettings) -> None:
        self._http = http
        self._settings = settings
        self._token: str | None = None
        self._lock = asyncio.Lock()

    @property
    def wanted(self) -> bool:
        """Whether there is a user to log in."""
        return bool(self._settings.user)

    async def headers(self) -> dict[str, str]:
        """Return the headers that say who asks; raises Unavailable for a wrong password."""
        if not self.wanted:
            return {}
        async with self._lock:
            if self._token is None:
                self._token = await self._ask()
        return {"authorization": self._token} if self._token else {}

    def forget(self) -> None:
        """Get another token the next time: this one is not taken any more."""
        self._token = None

    async def _ask(self) -> str:
        said = {"name": self._settings.user, "password": self._settings.secret()}
        reply = await self._http.send(
            "POST", "/v3/auth/authenticate", content=msgspec.json.encode(said)
        )
        if reply.status == 200:
            try:
                return _token(reply.body).token
            except msgspec.DecodeError as error:
                raise Unavailable(f"etcd at {reply.member} sends no token: {error}") from None
        problem = await refusal(self._http, reply)
        if problem.reason == _FAILED_PRECONDITION:
            return ""  # it asks nobody who he is, so nobody needs to say it
        raise problem


async def refusal(http: EtcdHttp, reply: Reply) -> Refused:
    """Return what an answer that is no success says, or why there is no API to answer."""
    try:
        problem = _problem(reply.body)
    except msgspec.DecodeError:
        pass
    else:
        return Refused(reply.member, problem.message or problem.error, problem.code)
    version = await version_of(http, reply.member)
    if not version:
        return Refused(reply.member, f"this is no etcd: it answers {reply.status}", 0)
    return Refused(
        reply.member,
        f"version {version} answers nothing below /v3: Shoal needs etcd 3.4 or newer with its"
        " JSON gateway (--enable-grpc-gateway)",
        0,
    )


class _Version(msgspec.Struct):
    etcdserver: str = ""


async def version_of(http: EtcdHttp, member: str) -> str:
    """Return the version of a member, empty if it does not tell."""
    try:
        reply = await http.send("GET", "/version", member=member)
        return msgspec.json.decode(reply.body, type=_Version).etcdserver
    except (Unavailable, msgspec.DecodeError):
        return ""
