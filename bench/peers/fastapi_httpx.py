"""fastapi_httpx: FastAPI on uvicorn (uvloop, httptools), called with httpx."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

from bench import load


class HelloRequest(BaseModel):
    """What is asked, as FastAPI wants it."""

    name: str


class HelloReply(BaseModel):
    """What is answered, as FastAPI wants it."""

    greeting: str


async def hello(request: HelloRequest) -> HelloReply:
    """Says hello."""
    return HelloReply(greeting=f"Hello {request.name}")


@asynccontextmanager
async def serve() -> AsyncIterator[int]:
    """Serves until left."""
    app = FastAPI()
    app.add_api_route("/hello", hello, methods=["POST"])
    config = uvicorn.Config(app, log_level="error", access_log=False, http="httptools")
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    server = asyncio.create_task(uvicorn.Server(config).serve([listener]))
    yield listener.getsockname()[1]
    server.cancel()


@asynccontextmanager
async def connect(port: int, concurrency: int) -> AsyncIterator[load.Call]:
    """One client, as many connections as calls in flight."""
    url = f"http://127.0.0.1:{port}/hello"
    headers = {"Content-Type": "application/json"}
    limits = httpx.Limits(max_connections=concurrency, max_keepalive_connections=concurrency)
    async with httpx.AsyncClient(headers=headers, limits=limits) as client:

        async def call(name: str) -> str:
            response = await client.post(url, content=load.request_body(name))
            response.raise_for_status()
            return load.decode_reply(response.content).greeting

        yield call


if __name__ == "__main__":
    load.main(serve, connect)
