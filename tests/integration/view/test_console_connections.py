"""Connections of a console over real sockets: an idle one is closed soon."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext, suppress

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from bridge.console import connections
from bridge.console.connections import EVENTS, Connection
from tests.support.eventually import eventually_async

ASK = b"GET / HTTP/1.1\r\nHost: here\r\n\r\n"


async def _short(_: Request) -> Response:
    return PlainTextResponse("well")


async def _long(_: Request) -> Response:
    return PlainTextResponse("x" * 30_000_000)


async def _events(_: Request) -> Response:
    async def each() -> AsyncIterator[str]:
        while True:
            yield "data: 1\n\n"
            await asyncio.sleep(0.02)

    return StreamingResponse(each())


@pytest.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[uvicorn.Server]:
    monkeypatch.setattr(connections, "POLL_S", 0.05)
    monkeypatch.setattr(connections, "MOST_CONNECTIONS", 4)
    app = Starlette(
        routes=[Route("/", _short), Route("/long", _long), Route(EVENTS, _events)],
    )
    config = uvicorn.Config(
        app, port=0, http=Connection, ws="none", lifespan="off", log_config=None,
        log_level="critical", timeout_graceful_shutdown=0,
    )  # fmt: skip
    server = uvicorn.Server(config)
    server.capture_signals = _no_signals  # type: ignore[method-assign, assignment]
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(server.serve())
        await eventually_async(lambda: server.started, "the server listens")
        yield server
        server.should_exit = True


@pytest.fixture
def port(server: uvicorn.Server) -> int:
    found: int = server.servers[0].sockets[0].getsockname()[1]
    return found


@asynccontextmanager
async def _client(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


def _no_signals() -> "nullcontext[None]":
    return nullcontext()


async def _end(reader: asyncio.StreamReader) -> None:
    async with asyncio.timeout(10):
        with suppress(ConnectionError):
            while await reader.read(1024):
                pass


@pytest.mark.parametrize("sent", [b"", ASK[:20], ASK, ASK + ASK[:20]])
async def test_console_client_that_stops_sending_is_disconnected(port: int, sent: bytes) -> None:
    async with _client(port) as (reader, writer):
        writer.write(sent)
        await _end(reader)


async def test_console_client_that_reads_no_reply_is_disconnected(
    port: int, server: uvicorn.Server
) -> None:
    async with _client(port) as (_, writer):
        writer.write(ASK.replace(b"/", b"/long", 1))
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        await eventually_async(
            lambda: server.server_state.total_requests, "the request is answered"
        )
        await eventually_async(
            lambda: not server.server_state.connections, "the connection is closed"
        )


async def test_console_client_of_events_stays_connected(port: int) -> None:
    async with _client(port) as (reader, writer):
        writer.write(ASK.replace(b"/", EVENTS.encode(), 1))
        for _ in range(3 * connections.MOST_POLLS):
            await reader.readuntil(b"data: 1")


async def test_clients_beyond_the_limit_are_refused_and_served_later(
    port: int,
) -> None:
    waiting = [await asyncio.open_connection("127.0.0.1", port) for _ in range(4)]
    try:
        async with _client(port) as (reader, _):
            await _end(reader)
        for reader, _ in waiting:
            await _end(reader)
        async with _client(port) as (reader, writer):
            writer.write(ASK)
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    finally:
        for _, writer in waiting:
            writer.transport.abort()
