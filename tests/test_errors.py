"""Errors keep class, code, detail and id over the wire, in the form Go Micro has."""

from __future__ import annotations

import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal import errors
from shoal.errors import Error, NotFound, Unavailable, from_parts, from_wire, to_wire

KINDS = [
    (400, "BadRequest", "Bad Request"),
    (401, "Unauthorized", "Unauthorized"),
    (403, "Forbidden", "Forbidden"),
    (404, "NotFound", "Not Found"),
    (405, "MethodNotAllowed", "Method Not Allowed"),
    (408, "Timeout", "Request Timeout"),
    (409, "Conflict", "Conflict"),
    (429, "TooManyRequests", "Too Many Requests"),
    (500, "InternalServerError", "Internal Server Error"),
    (501, "Unimplemented", "Not Implemented"),
    (503, "Unavailable", "Service Unavailable"),
]


@pytest.mark.parametrize(("code", "name", "status"), KINDS)
def test_every_kind_survives_the_wire(code: int, name: str, status: str) -> None:
    kind: type[Error] = getattr(errors, name)
    text = to_wire(kind("what is wrong", id="greeter"))
    # The order of the members is the one Go writes.
    assert text == (
        f'{{"id":"greeter","code":{code},"detail":"what is wrong","status":"{status}"}}'
    )
    again = from_wire(text)
    assert type(again) is kind
    assert (again.id, again.code, again.detail) == ("greeter", code, "what is wrong")
    assert again.status == status
    assert str(again) == "what is wrong"


def test_too_large_survives_the_wire() -> None:
    # The phrase of 413 differs between versions of Python, the class does not.
    again = from_wire(to_wire(errors.TooLarge("over", id="x")))
    assert type(again) is errors.TooLarge
    assert again.code == 413


def test_what_go_micro_v6_sends() -> None:
    error = from_wire('{"id":"x","code":403,"detail":"no","status":"Forbidden"}')
    assert type(error) is errors.Forbidden
    assert (error.id, error.detail) == ("x", "no")
    error = from_wire("rpc: can't find method Nope")
    assert (type(error), error.code, error.id) == (Error, 0, "")
    assert error.detail == "rpc: can't find method Nope"


def test_an_error_without_code_is_a_bare_text() -> None:
    assert to_wire(Error("just so")) == "just so"
    assert to_wire(Error()) == "error"
    assert from_wire(to_wire(Error("just so"))).detail == "just so"
    assert json.loads(to_wire(Error("named", id="x"))) == {"id": "x", "detail": "named"}


def test_a_code_without_a_class_is_kept() -> None:
    again = from_wire(to_wire(Error("teapot", id="x", code=418)))
    assert type(again) is Error
    assert (again.code, again.status) == (418, "I'm a Teapot")
    assert from_parts("", 799, "").status == ""
    assert str(from_parts("", 404, "")) == "Not Found"
    assert str(Error()) == ""


def test_a_class_can_have_another_code() -> None:
    error = NotFound("gone", code=410)
    assert error.code == 410
    assert json.loads(to_wire(error))["code"] == 410


@pytest.mark.parametrize(
    ("text", "code", "detail"),
    [
        ('{"code":"404","detail":"a number as a string"}', 404, "a number as a string"),
        ('{"Code":404}', 0, ""),
        ('{"code":500,"status":"Only This"}', 500, "Only This"),
        ("{", 0, "{"),
        ('{"code":"x"}', 0, '{"code":"x"}'),
        ('{"detail":null}', 0, '{"detail":null}'),
        ("[1]", 0, "[1]"),
        ("", 0, ""),
        ("EOS", 0, "EOS"),
        ('{"detail":"\ud800"}', 0, '{"detail":"\ud800"}'),
        ('{"unknown":[{}],"code":404}', 404, ""),
    ],
)
def test_whatever_a_peer_sends_is_an_error(text: str, code: int, detail: str) -> None:
    error = from_wire(text)
    assert (error.code, error.detail) == (code, detail)


def test_depth_without_end_is_a_text() -> None:
    text = '{"x":' + "[" * 60_000
    assert from_wire(text).detail == text


@given(st.text(st.characters(codec="utf-8")))
def test_any_text_is_an_error(text: str) -> None:
    assert isinstance(from_wire(text), Error)
    assert isinstance(from_wire("{" + text), Error)


@given(st.text(), st.text(), st.integers(1, 999))
def test_any_error_has_a_text(detail: str, id: str, code: int) -> None:
    again = from_wire(to_wire(Error(detail, id=id, code=code)))
    assert again.code == code
    if (detail + id).isascii() and detail:
        assert (again.detail, again.id) == (detail, id)


def test_half_a_surrogate_is_replaced() -> None:
    assert from_wire(to_wire(NotFound("a\ud800b"))).detail == "a?b"


def test_what_was_not_sent() -> None:
    assert not Unavailable("x").unsent
    assert errors.ServiceNotFound("x").unsent
    error = errors.ConnectionClosed("x")
    error.unsent = True
    assert not errors.ConnectionClosed.unsent


def test_classes() -> None:
    assert issubclass(errors.ServiceNotFound, Unavailable)
    assert issubclass(errors.ConnectionClosed, Unavailable)
    assert not issubclass(errors.Timeout, TimeoutError)
    assert type(from_parts("", 503, "x")) is Unavailable


def test_shown_and_pickled() -> None:
    error = NotFound("no such order", id="orders")
    assert repr(error) == "NotFound('no such order', id='orders', code=404)"
    again = pickle.loads(pickle.dumps(error))
    assert repr(again) == repr(error)
