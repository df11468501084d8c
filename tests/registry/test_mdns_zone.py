"""Tests of what the mdns registry says in DNS records; the bytes are Go Micro's (v6.10)."""

from __future__ import annotations

import binascii
import zlib
from ipaddress import ip_address

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.errors import BadRequest
from shoal.registry import Endpoint, Node, Record, Value, _dns
from shoal.registry import _mdns_zone as zone
from shoal.registry._dns import Message, Question, Resource

# Observed of Go Micro v6.10: node helloworld-1 at 10.0.0.5:8080 on a host called "vm".
GO_TXT = (
    b"789c04c0b10ac2301080e177f9e750ea7abba393e01e920303672ea4571d4adeddefe2a1916b8e8c5c8ce9e1c50d"
    b"e17396c14a3c757e5b5184b79af9cfa755122f9d47f38e70dbf66d2771ef7578eb7120fd345bff000000ffff75441e"
    b"4e"
)
GO_JSON = (
    b'{"Metadata":{"protocol":"mucp"},"Service":"helloworld","Version":"1.0.0","Endpoints":null}'
)
GO_REPLY = (
    bytes.fromhex(
        "000084000001000400000000"
        "0a68656c6c6f776f726c64056d6963726f00000c0001"
        "c00c000c000100000078000f0c68656c6c6f776f726c642d31c00c"
        "c02e0021000100000078000a000a00011f9002766d00"
        "c04f0001000100000078"
        "00040a000005"
        "c02e001000010000007800bdbc"
    )
    + GO_TXT
)
GO_LISTED = bytes.fromhex(
    "000084000001000400000000"
    "095f7365727669636573056d6963726f00000c0001"
    "c00c000c000100000078000d0a68656c6c6f776f726c64c00c"
    "c02d0021000100000078000a000a0001270f02766d00"
    "c04c0001000100000078000400000000"
    "c02d00100001000000780000"
)

NODE = Node("helloworld-1", "10.0.0.5:8080", {"protocol": "mucp"})
RECORD = Record("helloworld", "1.0.0", (NODE,))
PTR_QUERY = Message(id=7, questions=(Question((b"helloworld", b"micro"), _dns.PTR),))


def make(record: Record = RECORD, ip: str = "10.0.0.5", port: int = 8080) -> zone.Instance:
    node = record.nodes[0]
    return zone.instance(record, node, ip_address(ip), port, domain="micro", host="vm")


def with_txt(*strings: bytes) -> zone.Instance:
    instance = make()
    return zone.Instance(
        instance.service, instance.name, instance.host, instance.ip, instance.port, strings
    )


def answer(instance: zone.Instance, query: Message) -> Message:
    (question,) = query.questions
    return zone.reply(query, question, instance.answer(question))


def entries(message: Message, domain: str = "micro") -> list[zone.Entry | BadRequest]:
    return list(zone.read_entries(message, domain))


def only(message: Message) -> zone.Entry:
    (entry,) = entries(message)
    assert isinstance(entry, zone.Entry)
    return entry


def test_an_answer_has_go_micros_bytes() -> None:
    reply = answer(with_txt(GO_TXT), PTR_QUERY)
    assert len(GO_REPLY) == 300
    assert _dns.encode(reply) == GO_REPLY


def test_go_micros_answer_is_read() -> None:
    entry = only(_dns.decode(GO_REPLY))
    assert entry.record == RECORD
    assert not entry.gone
    assert entry.weight == len(GO_JSON) == 90


def test_a_list_answer_has_go_micros_bytes() -> None:
    query = Message(questions=(Question((b"_services", b"micro"), _dns.PTR),))
    listed = zone.listed("helloworld", domain="micro", host="vm")
    assert _dns.encode(answer(listed, query)) == GO_LISTED


def test_go_micros_list_answer_is_read() -> None:
    assert list(zone.read_names(_dns.decode(GO_LISTED), "micro")) == ["helloworld"]
    assert entries(_dns.decode(GO_LISTED)) == []


def test_the_txt_holds_go_micros_json() -> None:
    strings = zone.encode_txt("helloworld", "1.0.0", (), {"protocol": "mucp"})
    assert zlib.decompress(binascii.unhexlify(b"".join(strings))) == GO_JSON
    assert zone.decode_txt((GO_TXT,))[0]["version"] == "1.0.0"


def test_an_announcement_is_as_go_micros() -> None:
    message = make().announcement()
    assert (message.flags, message.questions) == (0x8000, ())
    assert [resource.type for resource in message.answers] == [_dns.SRV, _dns.A, _dns.TXT]
    assert only(message).record == RECORD


def test_a_goodbye_tells_who_goes() -> None:
    message = make().announcement(ttl=0)
    assert {resource.ttl for resource in message.answers} == {0}
    entry = only(message)
    assert entry.gone
    assert entry.record == RECORD


def test_a_probe_asks_for_the_name_and_says_what_will_be_said() -> None:
    message = make().probe()
    assert message.questions == (Question((b"helloworld-1", b"helloworld", b"micro"), _dns.PTR),)
    assert [resource.type for resource in message.authorities] == [_dns.SRV, _dns.TXT]
    assert entries(message) == []


@pytest.mark.parametrize(
    ("name", "type", "types"),
    [
        ("helloworld.micro", _dns.PTR, [_dns.PTR, _dns.SRV, _dns.A, _dns.TXT]),
        ("helloworld.micro", _dns.ANY, [_dns.PTR, _dns.SRV, _dns.A, _dns.TXT]),
        ("helloworld.micro", _dns.SRV, []),
        ("helloworld.local", _dns.PTR, []),
        ("hello.micro", _dns.PTR, []),
        ("helloworld-1.helloworld.micro", _dns.PTR, []),
        ("helloworld-1.helloworld.micro", _dns.ANY, [_dns.SRV, _dns.A, _dns.TXT]),
        ("helloworld-1.helloworld.micro", _dns.SRV, [_dns.SRV, _dns.A]),
        ("helloworld-1.helloworld.micro", _dns.TXT, [_dns.TXT]),
        ("helloworld-1.helloworld.micro", _dns.A, [_dns.A]),
        ("helloworld-1.helloworld.micro", _dns.AAAA, []),
    ],
)
def test_questions_are_answered_as_go_micro_does(name: str, type: int, types: list[int]) -> None:
    question = Question(tuple(name.encode().split(b".")), type)
    assert [resource.type for resource in make().answer(question)] == types


def test_only_the_internet_class_is_answered() -> None:
    assert make().answer(Question((b"helloworld", b"micro"), _dns.PTR, 3)) == ()
    assert make().answer(Question((b"helloworld", b"micro"), _dns.PTR, _dns.ANY)) != ()


def test_the_id_is_echoed_only_if_a_unicast_answer_was_asked_for() -> None:
    unicast = Message(id=7, questions=(Question(PTR_QUERY.questions[0].name, _dns.PTR, 0x8001),))
    assert answer(make(), PTR_QUERY).id == 0
    assert answer(make(), unicast).id == 7
    assert answer(make(), unicast).questions == unicast.questions


def test_an_ipv6_node_is_read() -> None:
    assert only(make(ip="fd00::5").announcement()).record.nodes[0].address == "[fd00::5]:8080"


def test_ipv4_is_preferred() -> None:
    message = make(ip="fd00::5").announcement()
    both = (*message.answers, Resource((b"vm",), _dns.A, 120, bytes([10, 0, 0, 5])))
    for answers in (both, tuple(reversed(both))):
        entry = only(Message(flags=_dns.RESPONSE, answers=answers))
        assert entry.record.nodes[0].address == "10.0.0.5:8080"


def test_additional_records_complete_an_answer() -> None:
    answers = make().announcement().answers
    entry = only(Message(answers=answers[:1], additionals=answers[1:]))
    assert entry.record == RECORD


def test_dots_in_names_are_labels() -> None:
    record = Record("go.micro.srv.greeter", nodes=(Node("greeter.1", "10.0.0.5:8080"),))
    instance = make(record)
    assert instance.service == (b"go", b"micro", b"srv", b"greeter", b"micro")
    assert only(instance.announcement()).record == record


def test_other_domains_are_none_of_our_business() -> None:
    message = make().announcement()
    assert entries(message, "local") == []
    assert entries(message, "elsewhere.micro") == []


@pytest.mark.parametrize(
    "text",
    [
        b"no hexadecimal",
        b"0",
        b"00",
        GO_TXT[:-20],
        binascii.hexlify(zlib.compress(b"[]")),
        binascii.hexlify(zlib.compress(b'"text"')),
        binascii.hexlify(zlib.compress(b"{")),
        binascii.hexlify(zlib.compress(b"[" * 100_000)),
        binascii.hexlify(zlib.compress(b" " * 60_000_000)),  # 58 KB that unpack to 60 MB
        b'{"Metadata":{"a":1},"Service":"helloworld","Version":"1"}',
        b'{"Metadata":["a"],"Service":"helloworld","Version":"1"}',
        b'{"Service":"another","Version":"1"}',
        b'{"Service":"","Version":"1"}',
        b'{"Service":7,"Version":"1"}',
        b'{"Service":"helloworld","Version":null}',
        b'{"Service":"helloworld","Version":"1","Endpoints":{"a":1}}',
        b'{"Service":"helloworld","Version":"1","Endpoints":[{"name":7}]}',
        b'{"Service":"\\ud800","Version":"1"}',
    ],
)
def test_a_txt_that_makes_no_sense_is_told_of(text: bytes) -> None:
    if text.startswith(b"{"):
        text = binascii.hexlify(zlib.compress(text))
    strings = tuple(text[i : i + 255] for i in range(0, len(text), 255))
    (entry,) = entries(with_txt(*strings).announcement())
    assert isinstance(entry, BadRequest)


def test_a_name_that_is_no_utf8_is_told_of() -> None:
    instance = make()
    odd = zone.Instance(
        instance.service,
        (b"\xff\xfe", *instance.service),
        instance.host,
        instance.ip,
        instance.port,
        instance.txt,
    )
    (entry,) = entries(odd.announcement())
    assert isinstance(entry, BadRequest)


@pytest.mark.parametrize("missing", [_dns.SRV, _dns.A, _dns.TXT])
def test_what_is_incomplete_is_ignored(missing: int) -> None:
    answers = make().announcement().answers
    left = tuple(resource for resource in answers if resource.type != missing)
    assert entries(Message(answers=left)) == []


def test_port_zero_is_no_port() -> None:
    assert entries(make(port=0).announcement()) == []


@given(st.lists(st.binary(max_size=255), max_size=5).map(tuple))
def test_any_txt_is_read_or_refused(strings: tuple[bytes, ...]) -> None:
    for entry in entries(with_txt(*strings).announcement()):
        assert isinstance(entry, BadRequest)


json = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["name", "Request", "values", "metadata", "type", "x"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=12,
)


@given(
    st.fixed_dictionaries(
        {"Service": st.just("helloworld") | json, "Version": st.just("1") | json},
        optional={"Metadata": json, "Endpoints": json, "unknown": json},
    )
)
def test_any_json_is_read_or_refused(value: object) -> None:
    text = binascii.hexlify(zlib.compress(msgspec.json.encode(value)))
    strings = tuple(text[i : i + 255] for i in range(0, len(text), 255))
    assert len(entries(with_txt(*strings).announcement())) == 1


words = st.text(st.characters(codec="utf-8"), max_size=20)
values = st.recursive(
    st.builds(Value, words, words),
    lambda inner: st.builds(Value, words, words, st.lists(inner, max_size=3).map(tuple)),
    max_leaves=5,
)
metadata = st.dictionaries(words, words, max_size=4)
endpoints = st.lists(
    st.builds(Endpoint, words, st.none() | values, st.none() | values, metadata), max_size=4
).map(tuple)


@given(words, metadata, endpoints)
def test_what_is_said_is_read_again(
    version: str, metadata: dict[str, str], endpoints: tuple[Endpoint, ...]
) -> None:
    record = Record("greeter", version, (Node("a", "10.0.0.5:8080", metadata),), endpoints)
    data = _dns.encode(make(record).announcement(), compress=False)
    assert only(_dns.decode(data)).record == record


@pytest.mark.parametrize("name", ["", ".", "a..b", "a" * 64, "a." * 130 + "b", "\ud800"])
def test_names_dns_cannot_carry_are_refused(name: str) -> None:
    with pytest.raises(BadRequest, match="name"):
        zone.dns_name(name, "micro")


def test_a_host_without_a_sound_name_is_localhost() -> None:
    assert zone.listed("a", domain="micro", host="x" * 70).host == (b"localhost",)
    assert zone.listed("a", domain="micro", host="").host == (b"localhost",)
    assert zone.listed("a", domain="micro", host="vm.example.").host == (b"vm", b"example")


def test_a_record_of_megabytes_is_refused() -> None:
    endpoints = tuple(Endpoint("A" * 1000, metadata={str(i): "x" * 100}) for i in range(2000))
    with pytest.raises(BadRequest, match="bytes long"):
        zone.encode_txt("helloworld", "1", endpoints, {})
