"""The WebSocket side: one task group for each connection, carrying words between a socket and a
session.

Pings every minute and closes connections that answer nothing for two; closes a client that reads
too slowly. Refuses to know markets: what a new subscriber must be told at once comes from the
`opening` function.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from aiohttp import WSCloseCode, WSMsgType, web

from simulator.events import Event
from simulator.hub import Client, Hub
from simulator.session import Session, Topic

log = logging.getLogger("simulator")
CLOSE_LIMIT_S = 0.5
LARGEST_REQUEST = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Patience:
    """What is borne with from a client, by the exchange's rule and by ours.

    The exchange sends a Ping a minute and a Close after two without a Pong. That a client may lag
    behind by so many frames or bytes, and is closed beyond that, is our own rule: it has none.
    """

    ping_every_s: float = 60.0
    pong_limit_s: float = 120.0
    queue_frames: int = 50_000
    queue_bytes: int = 16 * 1024 * 1024


class SocketServer:
    """Serves every WebSocket connection."""

    def __init__(
        self,
        hub: Hub,
        accepted_keys: Collection[str],
        opening: Callable[[Topic], Iterable[Event]],
        patience: Patience,
    ) -> None:
        self._hub = hub
        self._accepted_keys = accepted_keys
        self._opening = opening
        self._patience = patience
        self._sockets: set[web.WebSocketResponse] = set()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Serve one connection from its upgrade to its close."""
        socket = web.WebSocketResponse(
            autoping=False, max_msg_size=LARGEST_REQUEST, timeout=CLOSE_LIMIT_S
        )
        if not socket.can_prepare(request):
            return web.Response(status=404, text="not found")
        await socket.prepare(request)
        client = Client(self._patience.queue_frames, self._patience.queue_bytes)
        self._hub.enter(client)
        self._sockets.add(socket)
        try:
            await self._converse(socket, client)
        finally:
            self._hub.leave(client)
            self._sockets.discard(socket)
            if client.too_slow.is_set() and request.transport is not None:
                request.transport.abort()
        return socket

    async def close(self) -> None:
        """Say Close to everyone, as the exchange does before a pod stops."""
        async with asyncio.TaskGroup() as group:
            for socket in list(self._sockets):
                group.create_task(_close(socket, WSCloseCode.GOING_AWAY, b"shutting down"))

    async def _converse(self, socket: web.WebSocketResponse, client: Client) -> None:
        heard = _Heard(time.monotonic())
        async with asyncio.TaskGroup() as group:
            companions = [
                group.create_task(_write(socket, client)),
                group.create_task(_keep_alive(socket, heard, self._patience)),
                group.create_task(_drop_when_slow(socket, client)),
            ]
            await self._read(socket, client, heard)
            for companion in companions:
                companion.cancel()

    async def _read(self, socket: web.WebSocketResponse, client: Client, heard: _Heard) -> None:
        session = Session(self._accepted_keys)
        async for message in socket:
            if message.type is WSMsgType.PONG:
                heard.pong_s = time.monotonic()
            elif message.type is WSMsgType.PING:
                await socket.pong(message.data)
            elif message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
                self._answer(session, client, message.data)

    def _answer(self, session: Session, client: Client, text: str | bytes) -> None:
        answer = session.hear(text, time.time_ns() // 1_000_000)
        for topic in answer.stopped:
            self._hub.unsubscribe(client, topic)
        for topic in answer.started:
            self._hub.subscribe(client, topic)
            for event in self._opening(topic):
                self._hub.put_to(client, event, topic.stream)
        for error in answer.errors:
            client.push(error)


@dataclass(slots=True)
class _Heard:
    """When the client last answered a Ping."""

    pong_s: float


async def _write(socket: web.WebSocketResponse, client: Client) -> None:
    """Send what is queued, as fast as the client reads."""
    try:
        while True:
            await client.waiting.wait()
            while (frame := client.pop()) is not None:
                await socket.send_frame(frame, WSMsgType.TEXT)
    except ConnectionError:
        return  # the reader sees the end of the connection too, and ends the conversation


async def _keep_alive(socket: web.WebSocketResponse, heard: _Heard, patience: Patience) -> None:
    try:
        while time.monotonic() - heard.pong_s < patience.pong_limit_s:
            await asyncio.sleep(patience.ping_every_s)
            await socket.ping()
    except ConnectionError:
        return
    log.info("client_silent")
    await _close(socket, WSCloseCode.GOING_AWAY, b"no pong")


async def _drop_when_slow(socket: web.WebSocketResponse, client: Client) -> None:
    await client.too_slow.wait()
    log.warning("client_too_slow sent=%d", client.sent)
    await _close(socket, WSCloseCode.POLICY_VIOLATION, b"too slow")


async def _close(socket: web.WebSocketResponse, code: WSCloseCode, reason: bytes) -> None:
    try:
        async with asyncio.timeout(CLOSE_LIMIT_S):
            await socket.close(code=code, message=reason, drain=False)
    except (TimeoutError, ConnectionError):
        return
