"""Tests of the form nodes have in Consul: Go Micro's bytes, and everything strangers write."""

from __future__ import annotations

import zlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.registry import Endpoint, Node, Record, Value
from shoal.registry import _consul_tags as tags
from shoal.registry._consul_settings import ConsulSettings, HttpCheck, TcpCheck

# What Go Micro v6 writes for a node of helloworld 1.0.0.
PROTOCOL = "t-789caa562a28ca2fc94fcecf51b252ca2d4d2e50aa05040000ffff46a906e2"
TRANSPORT = "t-789caa562a294acc2b2ec82f2a51b252ca28292950aa05040000ffff4f930768"
ENDPOINT = (
    "e-789c8ccc41aa02311084e1bbd43abc03e402cfb55b7111b018844e26d3dd1124e4eec28063c08daba6e0ef"
    "af43b9359a237694948988333704f8b37ec62349a3215e8e683f4765aef7b24c616922e33a029456d7629c7d"
    "ab93bf8f6f3fdbf20b9fe9e9963c21f611debfff4a3af5ef449115e3150000ffff8bc74bc5"
)
VERSION = "v-789c32d433d03300040000ffff02ce00ee"

REQUEST = Value("Req", "Req", (Value("name", "string"),))
REPLY = Value("Rsp", "Rsp", (Value("msg", "string"),))
NODE = Node("helloworld-1", "10.0.0.5:8080", {"protocol": "mucp", "transport": "http"})
RECORD = Record("helloworld", "1.0.0", (NODE,), (Endpoint("Greeter.Hello", REQUEST, REPLY),))


def entry(service: dict[str, object], *states: str) -> tags.Entry:
    checks = [{"Status": state} for state in states]
    said = {"Node": {"Address": "10.9.9.9"}, "Service": service, "Checks": checks}
    return msgspec.convert(said, tags.Entry)


def test_what_go_micro_writes_is_read() -> None:
    service = {
        "ID": "helloworld-1", "Service": "helloworld", "Address": "10.0.0.5", "Port": 8080,
        "Tags": [PROTOCOL, TRANSPORT, ENDPOINT, VERSION],
    }  # fmt: skip
    assert tags.records_of("helloworld", [entry(service, "passing", "warning")]) == [RECORD]


def test_what_is_written_differs_from_gos_in_the_compression_alone() -> None:
    written = list(tags.tags_of(RECORD, NODE))
    read = [zlib.decompress(bytes.fromhex(tag[2:])) for tag in written]
    theirs = [PROTOCOL, TRANSPORT, ENDPOINT, VERSION]
    inflaters = [zlib.decompressobj() for _ in theirs]
    assert [tag[:2] for tag in written] == ["t-", "t-", "e-", "v-"]
    assert read == [
        one.decompress(bytes.fromhex(tag[2:])) for one, tag in zip(inflaters, theirs, strict=True)
    ]


def test_the_registration_is_gos() -> None:
    payload = tags.registration(RECORD, NODE, 90, ConsulSettings())
    payload["Tags"] = len(payload["Tags"])
    assert payload == {
        "ID": "helloworld-1",
        "Name": "helloworld",
        "Address": "10.0.0.5",
        "Port": 8080,
        "Tags": 4,
        "Meta": {"protocol": "mucp", "transport": "http"},
        "Check": {
            "TTL": "1m30s",
            "Status": "passing",
            "DeregisterCriticalServiceAfter": "1m35s",
        },
    }


@pytest.mark.parametrize(
    ("ttl", "check", "wanted"),
    [
        (None, None, {}),
        (30.0, None, {"TTL": "30s", "Status": "passing"}),
        (0.2, None, {"TTL": "200ms", "Status": "passing"}),
        (90.0, TcpCheck(interval=10), {"TCP": "[::1]:80", "Interval": "10s"}),
        (
            None,
            HttpCheck(url="http://{host}:81/health", interval=5, timeout=0.5),
            {"HTTP": "http://[::1]:81/health", "Interval": "5s", "Timeout": "500ms"},
        ),
    ],
)
def test_what_tells_consul_that_a_node_lives(
    ttl: float | None, check: TcpCheck | HttpCheck | None, wanted: dict[str, str]
) -> None:
    node = Node("a", "[::1]:80")
    payload = tags.registration(Record("a", nodes=(node,)), node, ttl, ConsulSettings(check=check))
    assert payload["Address"] == "::1"
    if wanted:
        wanted = {**wanted, "DeregisterCriticalServiceAfter": "1m5s"}
    assert payload.get("Check", {}) == wanted


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "200ms"), (1, "1s"), (1.5, "1.5s"), (59, "59s"), (60, "1m0s"), (65, "1m5s"),
     (90, "1m30s"), (3600, "1h0m0s"), (3661, "1h1m1s"), (0.0001, "1ms")],
)  # fmt: skip
def test_durations_are_gos(seconds: float, text: str) -> None:
    assert tags.go_duration(seconds) == text


@pytest.mark.parametrize(
    ("said", "metadata", "version"),
    [
        (['t={"a":"b"}', "v=1.0"], {"a": "b"}, "1.0"),
        (['t={"a":"b"}', PROTOCOL], {"a": "b"}, ""),  # the form found first is the form
        ([PROTOCOL, 't={"a":"b"}', VERSION, "v=2"], {"protocol": "mucp"}, "1.0.0"),
        (["traefik.enable=true", "t", "v", "v2", PROTOCOL], {"protocol": "mucp"}, ""),
        (["t-", "t-zz", "t-00", "t=7", 't={"a":7}', "", "v-beta"], {}, ""),
        (["t-" + zlib.compress(b"{" * 4).hex(), PROTOCOL], {"protocol": "mucp"}, ""),
    ],
)
def test_other_tags_and_old_ones(said: list[str], metadata: dict[str, str], version: str) -> None:
    assert tags.metadata_of(said) == metadata
    assert tags.version_of(said) == version


def test_a_bomb_is_no_tag() -> None:
    bomb = "e-" + zlib.compress(b" " * (tags.MAX_JSON * 64)).hex()
    assert tags.endpoints_of([bomb, ENDPOINT]) == RECORD.endpoints


def test_who_is_critical_is_left_out() -> None:
    def one(id: str, version: str, *states: str) -> tags.Entry:
        return entry(
            {"ID": id, "Service": "a", "Port": 80, "Tags": [f"v={version}"]}, "passing", *states
        )

    found = tags.records_of(
        "a",
        [
            one("c", "2"), one("b", "1", "warning"), one("a", "1"), one("d", "1", "critical"),
            one("e", "3", "critical"), entry({"ID": "x", "Service": "a-sidecar", "Port": 1}),
        ],
    )  # fmt: skip
    ids = {record.version: [node.id for node in record.nodes] for record in found}
    assert ids == {"1": ["a", "b"], "2": ["c"]}
    assert {node.address for record in found for node in record.nodes} == {"10.9.9.9:80"}


def test_what_consul_cannot_hold_is_no_meta() -> None:
    fits = {f"key-{index}": "v" for index in range(70)}
    metadata = {"a b": "c", "consul-token": "c", "long": "ä" * 257, "k" * 129: "v", **fits}
    node = Node("a", "h:1", metadata)
    payload = tags.registration(Record("a", nodes=(node,)), node, None, ConsulSettings())
    assert payload["Meta"] == dict(list(fits.items())[:64])
    assert tags.metadata_of(payload["Tags"]) == metadata


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@given(TEXT, st.dictionaries(TEXT, TEXT, max_size=5), st.lists(TEXT, max_size=3))
def test_what_is_written_is_read(
    version: str, metadata: dict[str, str], endpoints: list[str]
) -> None:
    record = Record("a", version, endpoints=tuple(Endpoint(name) for name in endpoints))
    written = list(tags.tags_of(record, Node("a", "h:1", metadata)))
    assert tags.version_of(written) == version
    assert tags.metadata_of(written) == metadata
    assert tags.endpoints_of(written) == record.endpoints


@given(st.lists(st.one_of(st.text(max_size=40), st.from_regex(r"[tev][-=][0-9a-f{}\":]*"))))
def test_strange_tags_hurt_nobody(said: list[str]) -> None:
    tags.version_of(said)
    tags.metadata_of(said)
    tags.endpoints_of(said)
