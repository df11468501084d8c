"""What service and callers share: the messages, and a handler with all four shapes of a call."""

from collections.abc import AsyncIterator
from dataclasses import dataclass


@dataclass
class Text:
    text: str


@dataclass
class Count:
    words: int


class Words:
    """Takes texts apart and counts them."""

    async def count(self, request: Text) -> Count:
        """One request, one reply."""
        return Count(len(request.text.split()))

    async def split(self, request: Text) -> AsyncIterator[Text]:
        """One request, a stream of replies."""
        for word in request.text.split():
            yield Text(word)

    async def total(self, texts: AsyncIterator[Text]) -> Count:
        """A stream of requests, one reply."""
        return Count(sum([len(text.text.split()) async for text in texts]))

    async def shout(self, texts: AsyncIterator[Text]) -> AsyncIterator[Text]:
        """Both stream: each request is answered while others are still to come."""
        async for text in texts:
            yield Text(text.text.upper())
