"""Errors: class, code, detail and id are the same on the other side."""

from __future__ import annotations

import pytest

import shoal
from shoal.client import Client

from .conftest import Facts
from .greeter import FailRequest, Greeter, PlainRequest
from .matrix import GO_TO_PYTHON, PYTHON_TO_GO
from .peers import Peer, Running

CLASSES = {
    400: shoal.BadRequest,
    401: shoal.Unauthorized,
    403: shoal.Forbidden,
    404: shoal.NotFound,
    405: shoal.MethodNotAllowed,
    408: shoal.Timeout,
    409: shoal.Conflict,
    418: shoal.Error,
    500: shoal.InternalServerError,
}
DETAIL = 'größe "zu" klein \\ <&> 蛇'
ONCE = {"retries": 0}  # Go repeats calls that end in 408, v1 and v2 also those in 500


async def test_codes_from_python(go: Peer, service: shoal.Service, fact: Facts) -> None:
    with fact("errors with a code: id, code, detail", GO_TO_PYTHON):
        for code in CLASSES:
            wanted = {"id": "shop.buy", "code": code, "detail": DETAIL}
            answer = await go.call(
                "x", "Greeter.Fail", wanted, address=service.server.address, **ONCE
            )
            got = answer["error"]
            assert {name: got[name] for name in wanted} == wanted
            assert got["status"] == shoal.Error(code=code).status


async def test_codes_from_go(server: Running, client: Client, fact: Facts) -> None:
    with fact("errors with a code: id, code, detail", PYTHON_TO_GO):
        greeter = shoal.stub(Greeter, "greeter", client, address=server.address)
        for code, kind in CLASSES.items():
            with pytest.raises(kind) as caught:
                await greeter.fail(FailRequest("shop.buy", code, DETAIL))
            error = caught.value
            assert type(error) is kind
            assert (error.id, error.code, error.detail) == ("shop.buy", code, DETAIL)


async def test_plain_error(
    go: Peer, service: shoal.Service, server: Running, client: Client, fact: Facts
) -> None:
    """A Go error that is only text has no code; one of a Shoal handler gets its service's name."""
    with fact("errors that are only text", PYTHON_TO_GO):
        greeter = shoal.stub(Greeter, "greeter", client, address=server.address)
        with pytest.raises(shoal.Error) as caught:
            await greeter.plain(PlainRequest("no öl"))
        assert (caught.value.code, caught.value.detail) == (0, "no öl")
    with fact("errors that are only text", GO_TO_PYTHON):
        answer = await go.call(
            "x", "Greeter.Plain", {"text": "no öl"}, address=service.server.address, **ONCE
        )
        assert answer["ok"] is False
        assert (answer["error"]["code"], answer["error"]["detail"]) == (0, "no öl")


async def test_protobuf_errors_from_python(go: Peer, service: shoal.Service, fact: Facts) -> None:
    with fact("errors of protobuf calls", GO_TO_PYTHON):
        answer = await go.call(
            "x", "Proto.Nothing", {}, proto=True, address=service.server.address, **ONCE
        )
        assert answer["error"]["code"] == 404


async def test_protobuf_errors_from_go(
    version: str, server: Running, client: Client, messages: object, fact: Facts
) -> None:
    request = shoal.Request("x", "Proto.Nothing", None, dict, content_type="application/protobuf")
    if version == "v2":
        why = "Go Micro v2 sends no error reply to a protobuf call: it ends by its timeout"
        with (
            fact.limit("errors of protobuf calls", PYTHON_TO_GO, why),
            pytest.raises(shoal.Timeout),
        ):
            await client.call(request, address=server.address, timeout=0.7)
        return
    with (
        fact("errors of protobuf calls", PYTHON_TO_GO),
        pytest.raises(shoal.Error, match="can't find method Nothing"),
    ):
        await client.call(request, address=server.address)


@pytest.mark.parametrize(
    ("endpoint", "text", "code"),
    [
        ("Nobody.Hello", "can't find service Nobody", 404),
        ("Greeter.Nothing", "can't find method Nothing", 404),
        ("Greeter", "request ill-formed", 400),
    ],
)
async def test_unknown_endpoints(
    go: Peer,
    service: shoal.Service,
    server: Running,
    client: Client,
    fact: Facts,
    endpoint: str,
    text: str,
    code: int,
) -> None:
    with fact("unknown service, method and endpoint", GO_TO_PYTHON):
        answer = await go.call("x", endpoint, {}, address=service.server.address, **ONCE)
        assert answer["error"]["code"] == code
        assert text in answer["error"]["detail"]
    with fact("unknown service, method and endpoint", PYTHON_TO_GO):
        with pytest.raises(shoal.Error) as caught:
            await client.call(shoal.Request("x", endpoint, {}, dict), address=server.address)
        assert text in caught.value.detail


async def test_bad_body(go: Peer, service: shoal.Service, fact: Facts) -> None:
    with fact("a field of the wrong type is a 400 that names it", GO_TO_PYTHON):
        answer = await go.call(
            "x", "Greeter.Hello", {"name": 5}, address=service.server.address, **ONCE
        )
        assert answer["error"]["code"] == 400
        assert "name" in answer["error"]["detail"]


async def test_unknown_content_type(
    version: str, server: Running, client: Client, fact: Facts
) -> None:
    with fact("a content type the server does not know is an error", PYTHON_TO_GO):
        request = shoal.Request("x", "Greeter.Hello", {}, dict, content_type="application/msgpack")
        with pytest.raises(shoal.BadRequest, match=r"(?i)unsupported content-type"):
            await client.call(request, address=server.address)
