"""The command lines: Go Micro's `micro` on a Shoal service, `shoal` on a Go one."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import Facts, need
from .greeter import unique
from .matrix import GO_TO_PYTHON, PYTHON_TO_GO
from .peers import COMMANDS, Peer
from .test_discovery import ours, until

_ROOT = Path(__file__).resolve().parents[2]
_FAILURE = '{"code": 409, "detail": "sold out"}'


async def ran(*command: str | Path) -> tuple[int | None, str, str]:
    """Run a command for at most 20 s; return its exit code and what it wrote."""
    environment = {name: value for name, value in os.environ.items() if name[:6] != "MICRO_"}
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=_ROOT,
        env=environment,
    )
    try:
        async with asyncio.timeout(20):
            out, complaint = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode, out.decode(), complaint.decode()


async def micro(version: str, *arguments: str) -> tuple[int | None, str, str]:
    return await ran(need(COMMANDS[version]), *arguments)


async def command(*arguments: str) -> tuple[int | None, str, str]:
    return await ran(sys.executable, "-m", "shoal", *arguments)


@pytest.mark.parametrize("version", COMMANDS, indirect=True)
async def test_micro_on_shoal(version: str, fact: Facts) -> None:
    """The command line of v1 and v2 was a repository of its own."""
    need(COMMANDS[version])
    name = unique("py")
    async with ours(name):
        with fact("command line: services, describe, call", GO_TO_PYTHON):

            async def listed() -> list[str]:
                return (await micro(version, "services"))[1].split()

            assert name in await until(listed, lambda names: name in names)
            _, text, _ = await micro(version, "describe", name)
            described = json.loads(text)
            assert described["name"] == name
            assert "Greeter.Hello" in [one["name"] for one in described["endpoints"]]
            code, text, _ = await micro(version, "call", name, "Greeter.Hello", '{"name": "John"}')
            assert (code, json.loads(text)) == (0, {"greeting": "Hello John"})
            code, _, complaint = await micro(version, "call", name, "Greeter.Fail", _FAILURE)
            assert code == 1
            assert '"code":409,"detail":"sold out"' in complaint
        with fact("command line: typed flags from the registry", GO_TO_PYTHON):
            code, text, _ = await micro(version, name, "greeter", "hello", "--name=John")
            assert (code, json.loads(text)) == (0, {"greeting": "Hello John"})


async def test_shoal_on_go(go: Peer, fact: Facts) -> None:
    name = unique("go")
    async with go.serve(name, broker="none") as server:
        with fact("command line: services, describe, call", PYTHON_TO_GO):

            async def listed() -> list[str]:
                return (await command("services"))[1].split()

            assert name in await until(listed, lambda names: name in names)
            code, text, _ = await command("describe", name)
            assert code == 0
            assert all(part in text for part in (server.id, server.address, "Greeter.Hello"))
            code, text, _ = await command("call", name, "Greeter.Hello", '{"name": "John"}')
            assert (code, json.loads(text)) == (0, {"greeting": "Hello John"})
            code, _, complaint = await command("call", name, "Greeter.Fail", _FAILURE)
            assert code != 0
            assert "sold out" in complaint
        with fact("command line: stream", PYTHON_TO_GO):
            code, text, _ = await command("stream", name, "Greeter.Count", '{"n": 3}')
            assert code == 0
            assert [json.loads(line) for line in text.splitlines()] == [{"i": i} for i in range(3)]
