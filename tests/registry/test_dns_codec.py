"""Tests of the DNS codec."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.registry import _dns
from shoal.registry._dns import DnsError, Message, Name, Question, Resource, Service

labels = st.binary(min_size=1, max_size=63)


def _fits(name: list[bytes]) -> bool:
    return sum(map(len, name)) + len(name) < 255


names = st.lists(labels, max_size=6).filter(_fits).map(tuple)
numbers = st.integers(0, 0xFFFF)
services = st.builds(Service, numbers, numbers, numbers, names)
strings = st.lists(st.binary(max_size=255), max_size=6).map(tuple)
others = numbers.filter(lambda kind: kind not in (_dns.PTR, _dns.TXT, _dns.SRV))
ttls = st.integers(0, 0xFFFFFFFF)
resources = st.one_of(
    st.builds(Resource, names, st.just(_dns.PTR), ttls, names, numbers),
    st.builds(Resource, names, st.just(_dns.SRV), ttls, services, numbers),
    st.builds(Resource, names, st.just(_dns.TXT), ttls, strings, numbers),
    st.builds(Resource, names, others, ttls, st.binary(max_size=300), numbers),
)
sections = st.lists(resources, max_size=4).map(tuple)
questions = st.lists(st.builds(Question, names, numbers, numbers), max_size=3).map(tuple)
messages = st.builds(Message, numbers, numbers, questions, sections, sections, sections)


@given(messages, st.booleans())
def test_what_is_written_is_read_again(message: Message, compress: bool) -> None:
    assert _dns.decode(_dns.encode(message, compress=compress)) == message


@given(st.binary(max_size=600))
def test_bytes_that_are_no_message_raise_the_codecs_error_only(data: bytes) -> None:
    with contextlib.suppress(DnsError):
        _dns.decode(data)


@given(messages, st.data())
def test_damaged_messages_raise_the_codecs_error_only(
    message: Message, data: st.DataObject
) -> None:
    damaged = bytearray(_dns.encode(message))
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(DnsError):
        _dns.decode(bytes(damaged))


@given(messages, st.integers(1, 40))
def test_a_truncated_message_is_refused(message: Message, lost: int) -> None:
    data = _dns.encode(message, compress=False)
    with pytest.raises(DnsError):
        _dns.decode(data[: -min(lost, len(data))])


def header(questions: int = 0, answers: int = 0) -> bytes:
    return bytes(4) + questions.to_bytes(2, "big") + answers.to_bytes(2, "big") + bytes(4)


@pytest.mark.parametrize(
    "name",
    [
        b"\xc0\x0c",  # points at itself
        b"\xc0\x0e\xc0\x0c",  # two that point at each other
        b"\x01a\xc0\x0c",  # grows for ever
        b"\xc0\xff",  # points behind the end
        b"\x40" + bytes(70),  # reserved kind of label
        (b"\x3f" + b"x" * 63) * 4 + b"\0",  # 257 bytes
        b"\x05ab",
        b"\xc0",
        b"",
    ],
)
def test_names_that_lead_nowhere_are_refused(name: bytes) -> None:
    with pytest.raises(DnsError):
        _dns.decode(header(questions=1) + name + b"\0\x0c\0\x01")


def test_a_long_way_of_pointers_is_refused() -> None:
    # A record's data, at 23, holds an empty name and then pointers, each to the one before it.
    targets = [23, *range(24, 800, 2)]
    data = b"\0" + b"".join((0xC000 | target).to_bytes(2, "big") for target in targets)
    record = b"\0" + b"\0\x01\0\x01" + bytes(4) + len(data).to_bytes(2, "big") + data
    last = (0xC000 | targets[-1]).to_bytes(2, "big") + b"\0\x01\0\x01" + bytes(6)
    with pytest.raises(DnsError, match="too often"):
        _dns.decode(header(answers=2) + record + last)


@pytest.mark.parametrize("counts", [{"questions": 33}, {"answers": 257}, {"answers": 0xFFFF}])
def test_more_than_anybody_needs_is_refused(counts: dict[str, int]) -> None:
    with pytest.raises(DnsError, match="more"):
        _dns.decode(header(**counts) + bytes(60_000))


@pytest.mark.parametrize(
    "resource",
    [
        b"\0" + b"\0\x10\0\x01" + bytes(4) + b"\0\x03" + b"\x05ab",  # string behind its record
        b"\0" + b"\0\x0c\0\x01" + bytes(4) + b"\0\x04" + b"\x01a\0\0",  # data behind the name
        b"\0" + b"\0\x01\0\x01" + bytes(4) + b"\0\x05" + b"abcd",  # data behind the message
        b"\0" + b"\0\x21\0\x01" + bytes(4) + b"\0\x02" + b"\0\0",  # half a service
    ],
)
def test_records_of_the_wrong_length_are_refused(resource: bytes) -> None:
    with pytest.raises(DnsError):
        _dns.decode(header(answers=1) + resource)


def test_txt_may_have_no_string_at_all() -> None:
    message = Message(answers=(Resource((b"a",), _dns.TXT, 120, ()),))
    data = _dns.encode(message)
    assert data.endswith(b"\0\0")
    assert _dns.decode(data) == message


@pytest.mark.parametrize(
    "name",
    [(b"",), (b"a" * 64,), (b"a" * 60,) * 5, (b"a", b"", b"c")],
    ids=["", "64", "305", "gap"],
)
def test_a_name_dns_cannot_carry_is_refused(name: Name) -> None:
    with pytest.raises(DnsError):
        _dns.encode(Message(questions=(Question(name, _dns.PTR),)))


@pytest.mark.parametrize(
    "message",
    [
        Message(answers=(Resource((b"a",), _dns.TXT, 120, (b"x" * 256,)),)),
        Message(answers=(Resource((b"a",), _dns.TXT, 120, (b"x" * 255,) * 300),)),
        Message(answers=(Resource((b"a",), _dns.A, -1, b"abcd"),)),
        Message(id=1 << 16),
    ],
)
def test_what_does_not_fit_is_refused(message: Message) -> None:
    with pytest.raises(DnsError):
        _dns.encode(message)


def test_names_are_for_people_to_read() -> None:
    assert _dns.text((b"caf\xc3\xa9", b"\xff")) == "caf\u00e9.\\xff"
