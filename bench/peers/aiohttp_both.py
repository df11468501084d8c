"""aiohttp_both: aiohttp's server and client on uvloop, JSON bodies."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
from aiohttp import web

from bench import load


async def hello(request: web.Request) -> web.Response:
    """Says hello."""
    return web.Response(body=load.reply_body(await request.read()), content_type="application/json")


@asynccontextmanager
async def serve() -> AsyncIterator[int]:
    """Serves until left."""
    app = web.Application()
    app.router.add_post("/hello", hello)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield runner.addresses[0][1]


@asynccontextmanager
async def connect(port: int, concurrency: int) -> AsyncIterator[load.Call]:
    """One session, as many connections as calls in flight."""
    url = f"http://127.0.0.1:{port}/hello"
    headers = {"Content-Type": "application/json"}
    connector = aiohttp.TCPConnector(limit=concurrency)
    async with aiohttp.ClientSession(connector=connector, headers=headers) as session:

        async def call(name: str) -> str:
            async with session.post(url, data=load.request_body(name)) as response:
                response.raise_for_status()
                return load.decode_reply(await response.read()).greeting

        yield call


if __name__ == "__main__":
    load.main(serve, connect)
