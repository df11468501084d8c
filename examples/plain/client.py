"""Calls the calculator knowing nothing but names: no class is shared, nothing is generated."""

import asyncio

import shoal


async def main() -> None:
    async with shoal.connect() as client:
        added = await client.call(
            shoal.Request("calculator", "Calculator.Add", {"a": 1, "b": 2}, dict[str, float])
        )
        print(f"1 + 2 is {added['sum']:g}")
        try:
            await client.call(
                shoal.Request("calculator", "Calculator.Divide", {"a": 1, "b": 0}, dict)
            )
        except shoal.BadRequest as error:
            print(f"refused by {error.id}: {error}")
        try:
            await client.call(shoal.Request("calculator", "Calculator.Multiply", {}, dict))
        except shoal.NotFound as error:
            print(f"not found: {error}")


if __name__ == "__main__":
    asyncio.run(main())
