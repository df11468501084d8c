"""Module filters has the filters of Go Micro's selector: by version, label and endpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from shoal.registry import Record
from shoal.selector import Filter


class Pure:
    """Base of filters whose result depends on nothing but the records.

    Equal ones are interchangeable (make them frozen dataclasses): a selector may keep what they
    left and not ask again until the records change.
    """

    __slots__ = ()


def version(value: str) -> Filter:
    """Keep the nodes that run exactly this version."""
    return _Version(value)


def label(key: str, value: str) -> Filter:
    """Keep the nodes whose metadata has this value under the key."""
    return _Label(key, value)


def endpoint(name: str) -> Filter:
    """Keep the nodes of versions that have an endpoint of this name (`Greeter.Hello`)."""
    return _Endpoint(name)


# Semantics: Go Micro v6, selector/filter.go.


@dataclass(frozen=True, slots=True)
class _Version(Pure):
    value: str

    def __call__(self, records: Sequence[Record]) -> Sequence[Record]:
        return [record for record in records if record.version == self.value]


@dataclass(frozen=True, slots=True)
class _Label(Pure):
    key: str
    value: str

    def __call__(self, records: Sequence[Record]) -> Sequence[Record]:
        kept = []
        for record in records:
            # As in Go, a missing key has the value "", but a node without any metadata is out.
            nodes = tuple(
                node
                for node in record.nodes
                if node.metadata and node.metadata.get(self.key, "") == self.value
            )
            if nodes:
                kept.append(replace(record, nodes=nodes))
        return kept


@dataclass(frozen=True, slots=True)
class _Endpoint(Pure):
    name: str

    def __call__(self, records: Sequence[Record]) -> Sequence[Record]:
        return [
            record
            for record in records
            if any(endpoint.name == self.name for endpoint in record.endpoints)
        ]
