"""Package codec is an interface for turning messages into bytes and back."""

from __future__ import annotations

from abc import abstractmethod
from typing import Protocol, TypeVar

T = TypeVar("T")


class Codec(Protocol):
    """Turns a Python object into the body of a message and back; it keeps no state of a call."""

    content_type: str
    """The name on the wire, exactly as the `Content-Type` header has it."""

    @abstractmethod
    def encode(self, message: object) -> bytes:
        """Return the body for a message.

        Raises InternalServerError if this codec cannot carry an object of its type.
        """

    @abstractmethod
    def decode(self, data: bytes, into: type[T]) -> T:
        """Return the message a body holds, as an instance of the hinted type.

        `into` is any type hint the codec supports, not only a class. An empty body is the type's
        value with all defaults where it has one. Raises BadRequest naming what does not fit.
        """
