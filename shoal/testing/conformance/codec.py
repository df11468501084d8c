"""Module codec is the suite every codec passes: what the contract's docstrings promise.

class TestZebra(CodecConformance):
    content_type = "application/zebra"
    samples = TYPED
    empty = ((Defaults, Defaults()), (dict, {}))
    refused = (object(),)
    refused_types = (Iterator,)

    def make(self) -> Codec:
        return ZebraCodec()
"""

from __future__ import annotations

import pickle
from abc import abstractmethod
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import msgspec
import pytest

from shoal.codec import Codec
from shoal.errors import BadRequest, Error, InternalServerError
from shoal.testing.conformance._codec import TYPED, Defaults, Item, Order, mutations

__all__ = ["TYPED", "CodecConformance", "Defaults", "Item", "Order"]


class CodecConformance:
    """What one side encodes, the other decodes; everything else is an error that says so."""

    content_type: ClassVar[str]
    """The name on the wire."""
    samples: ClassVar[tuple[tuple[Any, Any], ...]]
    """Pairs of a message and its type hint the codec carries."""
    empty: ClassVar[tuple[tuple[Any, Any], ...]]
    """Pairs of a type hint and what an empty body is for it."""
    needy: ClassVar[tuple[tuple[Any, str], ...]] = ()
    """Pairs of a type hint that cannot be empty and the field its error names."""
    refused: ClassVar[tuple[Any, ...]]
    """Messages the codec cannot carry."""
    refused_types: ClassVar[tuple[Any, ...]]
    """Type hints the codec cannot fill."""
    broken: ClassVar[tuple[tuple[bytes, Any], ...]] = ()
    """Pairs of a body and a type hint it does not fit."""
    big: ClassVar[tuple[Any, Any]]
    """A message of a megabyte or more, and its type hint."""

    @abstractmethod
    def make(self) -> Codec:
        """Return a codec."""

    def test_its_content_type_is_spelled_as_on_the_wire(self) -> None:
        assert self.make().content_type == self.content_type
        assert self.content_type == self.content_type.lower().partition(";")[0].strip()

    def test_what_is_encoded_is_decoded(self) -> None:
        codec = self.make()
        for message, hint in self.samples:
            for _ in range(2):  # the second time everything is cached
                body = codec.encode(message)
                assert type(body) is bytes
                decoded = codec.decode(body, hint)
                assert decoded == _as(hint, message), hint

    def test_decoding_leaves_nothing_behind(self) -> None:
        codec = self.make()
        for hint, expected in self.empty:
            first = codec.decode(b"", hint)
            assert first == expected
            assert type(first) is type(expected)
            second = codec.decode(b"", hint)
            assert second is not first or not isinstance(first, list | dict | set | bytearray)

    def test_an_empty_body_without_defaults_names_the_fields(self) -> None:
        codec = self.make()
        for hint, name in self.needy:
            with pytest.raises(BadRequest, match=name):
                codec.decode(b"", hint)

    def test_a_frame_passes_as_it_is(self) -> None:
        codec = self.make()
        for message, _ in self.samples:
            body = codec.encode(message)
            frame = codec.decode(body, msgspec.Raw)
            assert codec.encode(frame) == body

    def test_a_message_it_cannot_carry_is_refused(self) -> None:
        codec = self.make()
        for message in self.refused:
            with pytest.raises(InternalServerError, match=r"\w+ \w+"):
                codec.encode(message)

    def test_a_type_it_cannot_fill_is_refused(self) -> None:
        codec = self.make()
        body = codec.encode(self.samples[0][0])
        for hint in self.refused_types:
            with pytest.raises((BadRequest, InternalServerError), match=r"\w+ \w+"):
                codec.decode(body, hint)

    def test_a_body_that_does_not_fit_is_a_bad_request(self) -> None:
        codec = self.make()
        for body, hint in self.broken:
            with pytest.raises(BadRequest, match=r"\w+ \w+"):
                codec.decode(body, hint)

    def test_garbage_is_decoded_or_a_bad_request(self) -> None:
        codec = self.make()
        for message, hint in self.samples:
            for body in mutations(codec.encode(message)[:2000], 200):
                try:
                    codec.decode(body, hint)
                except BadRequest:
                    continue

    def test_deep_nesting_is_a_bad_request(self) -> None:
        codec = self.make()
        for body in (b"[" * 100_000, b'{"a":' * 100_000, b"\x91" * 100_000, b"\x0a" * 100_000):
            for _, hint in self.samples:
                try:
                    codec.decode(body, hint)
                except BadRequest:
                    continue

    def test_a_big_message_passes(self) -> None:
        codec = self.make()
        message, hint = self.big
        body = codec.encode(message)
        assert len(body) >= 1_000_000
        assert codec.decode(body, hint) == message

    def test_threads_share_a_codec(self) -> None:
        codec = self.make()

        def carry(number: int) -> bool:
            message, hint = self.samples[number % len(self.samples)]
            return bool(codec.decode(codec.encode(message), hint) == _as(hint, message))

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(carry, range(400)))

    def test_its_errors_can_be_sent(self) -> None:
        codec = self.make()
        for message in self.refused:
            with pytest.raises(Error) as caught:
                codec.encode(message)
            again = pickle.loads(pickle.dumps(caught.value))
            assert (type(again), again.detail) == (type(caught.value), caught.value.detail)


def _as(hint: Any, message: Any) -> Any:
    """Return a message in the form its hint asks for."""
    if hint in (Any, object):
        return message
    return tuple(message) if getattr(hint, "__origin__", None) is tuple else message
