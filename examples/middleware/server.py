"""A service with middleware: one measures, one lets in who knows the word. Then run client.py."""

import time
from typing import Any

import shoal


async def timed(call: shoal.Call, next: shoal.Next) -> Any:
    """Print how long every call took, whatever came of it."""
    begun = time.perf_counter()
    try:
        return await next(call)
    finally:
        print(f"{call.endpoint} took {(time.perf_counter() - begun) * 1000:.1f} ms")


async def authorized(call: shoal.Call, next: shoal.Next) -> Any:
    """Refuse calls whose header does not have the word."""
    if call.header.get("Authorization") != "Bearer sesame":
        raise shoal.Unauthorized("say the word")
    return await next(call)


class Greeter:
    """Greets whoever the metadata of the call names."""

    async def hello(self) -> str:
        return f"Hello {shoal.metadata().get('User', 'stranger')}"


if __name__ == "__main__":
    service = shoal.Service("doorman", middleware=[timed, authorized])  # the first is outermost
    service.init()
    service.handle(Greeter())
    service.run()
