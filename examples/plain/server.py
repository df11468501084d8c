"""A calculator whose messages are plain dicts: run it, then client.py."""

import shoal


class Calculator:
    """Adds and divides."""

    async def add(self, request: dict[str, float]) -> dict[str, float]:
        """Add two numbers, `a` and `b`."""
        return {"sum": request["a"] + request["b"]}

    async def divide(self, request: dict[str, float]) -> dict[str, float]:
        """Divide `a` by `b`."""
        if not request["b"]:
            raise shoal.BadRequest("nothing can be divided by zero")
        return {"quotient": request["a"] / request["b"]}


if __name__ == "__main__":
    service = shoal.Service("calculator")
    service.init()
    service.handle(Calculator())
    service.run()
