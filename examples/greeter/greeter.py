"""What the greeter's service and its callers share: messages and the handler."""

from dataclasses import dataclass

import shoal


@dataclass
class HelloRequest:
    name: str


@dataclass
class HelloReply:
    greeting: str


class Greeter:
    """Says hello."""

    async def hello(self, request: HelloRequest) -> HelloReply:
        """Greet somebody by name."""
        if not request.name:
            raise shoal.BadRequest("a name is needed")
        return HelloReply(f"Hello {request.name}")
