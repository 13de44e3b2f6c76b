"""The WebSocket side: one task group for each connection, which passes messages between a socket
and a session.

Pings every minute and closes connections without a Pong for two; closes a client that reads too
slowly. The director decides whether a handshake or a subscription fails; the client's state ends or
silences a connection. Knows no markets: the `opening` function gives the events for a new
subscriber.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from aiohttp import WSCloseCode, WSMsgType, web

from simulator.client import Binary, Client, Ending, How
from simulator.events import Event
from simulator.faults.commands import Refusal, Refuse
from simulator.faults.director import Director
from simulator.faults.running import Running
from simulator.hub import Hub
from simulator.session import Session, Topic, stream_error
from simulator.transport import POLL_EVERY_S, abort, until_disconnected

log = logging.getLogger("simulator")
CLOSE_LIMIT_S = 0.5
LARGEST_REQUEST = 1024 * 1024
ENDS = (WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED, WSMsgType.ERROR)


@dataclass(frozen=True, slots=True)
class ClientLimits:
    """The limits of a client, by the exchange's rule and by our own.

    The exchange sends a Ping a minute and a Close after two without a Pong. The limit of queued
    frames and bytes, beyond which a client is closed, is our own: the exchange has none.
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
        director: Director,
        accepted_keys: Collection[str],
        opening: Callable[[Topic], Iterable[Event]],
        client_limits: ClientLimits,
    ) -> None:
        self._hub = hub
        self._director = director
        self._accepted_keys = accepted_keys
        self._opening = opening
        self._client_limits = client_limits
        self._sockets: set[web.WebSocketResponse] = set()
        self._stopping = False

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Serve one connection from its upgrade to its close."""
        socket = web.WebSocketResponse(
            autoping=False, autoclose=False, max_msg_size=LARGEST_REQUEST, timeout=CLOSE_LIMIT_S
        )
        if not socket.can_prepare(request):
            return web.Response(status=404, text="not found")
        if (refusal := self._director.refusal()) is not None:
            return await self._refuse(request, refusal)
        await socket.prepare(request)
        client = Client(self._client_limits.queue_frames, self._client_limits.queue_bytes)
        self._hub.enter(client)
        self._director.welcome(client)
        self._sockets.add(socket)
        try:
            await self._converse(request, socket, client)
        finally:
            self._hub.leave(client)
            self._sockets.discard(socket)
            if client.too_slow.is_set() and request.transport is not None:
                request.transport.abort()
        return socket

    async def close(self) -> None:
        """Send Close to every client, as the exchange does before a pod stops."""
        self._stopping = True
        async with asyncio.TaskGroup() as group:
            for socket in list(self._sockets):
                group.create_task(_close(socket, WSCloseCode.GOING_AWAY, b"shutting down"))

    async def _refuse(self, request: web.Request, fault: Running) -> web.Response:
        """Fail a handshake as the fault commands."""
        command = fault.command
        assert isinstance(command, Refuse)
        if command.how is Refusal.STATUS:
            headers = {}
            if command.retry_after_s is not None:
                headers["Retry-After"] = str(command.retry_after_s)
            return web.Response(status=command.status, text="refused", headers=headers)
        if command.how is Refusal.HANG:
            await until_disconnected(request, lambda: self._stopping or fault.is_called_off)
        abort(request, reset=True)
        return web.Response(status=503)

    async def _converse(
        self, request: web.Request, socket: web.WebSocketResponse, client: Client
    ) -> None:
        last = _LastPong(time.monotonic())
        async with asyncio.TaskGroup() as group:
            companions = [
                group.create_task(_write(socket, client)),
                group.create_task(_keep_alive(socket, client, last, self._client_limits)),
                group.create_task(_drop_when_slow(socket, client)),
                group.create_task(self._end_on_command(request, socket, client)),
            ]
            await self._read(request, socket, client, last)
            for companion in companions:
                companion.cancel()

    async def _end_on_command(
        self, request: web.Request, socket: web.WebSocketResponse, client: Client
    ) -> None:
        await client.must_end.wait()
        ending = client.ending
        assert ending is not None
        self._hub.leave(client, ending.how.value)
        if ending.how is How.CLOSE:
            await _close(socket, ending.code, ending.reason.encode())
        elif ending.how is not How.SILENT:
            abort(request, reset=ending.how is How.RESET)

    async def _read(
        self,
        request: web.Request,
        socket: web.WebSocketResponse,
        client: Client,
        last: _LastPong,
    ) -> None:
        session = Session(self._accepted_keys, self._refusal)
        while (message := await socket.receive()).type not in ENDS:
            if _is_silent(client):
                continue
            if message.type is WSMsgType.PONG:
                last.pong_s = time.monotonic()
            elif message.type is WSMsgType.PING and client.line.pongs:
                await socket.pong(message.data)
            elif message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
                self._answer(session, client, message.data)
        if message.type is WSMsgType.CLOSE and not _is_silent(client):
            await socket.close(drain=False)
        await until_disconnected(request, lambda: self._stopping or not _is_silent(client))

    def _refusal(self, stream: str) -> bytes | None:
        return self._director.rejection(stream) or stream_error(stream)

    def _answer(self, session: Session, client: Client, text: str | bytes) -> None:
        session.forget(client.forgotten)
        client.forgotten.clear()
        answer = session.receive(text, self._director.clock_ms())
        for topic in answer.stopped:
            self._hub.unsubscribe(client, topic)
        for topic in answer.started:
            if self._director.ignores(topic.stream):
                session.forget({topic.stream})
                continue
            self._hub.subscribe(client, topic)
            for event in self._opening(topic):
                self._hub.put_to(client, event, topic.stream)
        for error in answer.errors:
            client.push(error)


@dataclass(slots=True)
class _LastPong:
    """The time of the client's last Pong."""

    pong_s: float


async def _write(socket: web.WebSocketResponse, client: Client) -> None:
    """Send queued frames, as fast as the client reads and its line allows."""
    try:
        while True:
            await client.waiting.wait()
            while (frame := client.pop()) is not None:
                if client.ending is not None:
                    return
                kind = WSMsgType.BINARY if isinstance(frame, Binary) else WSMsgType.TEXT
                await socket.send_frame(frame, kind)
                await _carry(client, len(frame))
    except ConnectionError:
        return  # the reader notices the end of the connection too, and ends the session


async def _carry(client: Client, size: int) -> None:
    """Wait for the time a slow line needs for these bytes, or until it is slow no more."""
    begun_s = time.monotonic()
    while (speed := client.line.bytes_per_s) is not None:
        left_s = size / speed - (time.monotonic() - begun_s)
        if left_s <= 0:
            return
        await asyncio.sleep(min(left_s, POLL_EVERY_S))


async def _keep_alive(
    socket: web.WebSocketResponse, client: Client, last: _LastPong, client_limits: ClientLimits
) -> None:
    try:
        while time.monotonic() - last.pong_s < client_limits.pong_limit_s:
            await asyncio.sleep(client_limits.ping_every_s)
            if not _is_silent(client):
                await socket.ping()
    except ConnectionError:
        return
    if not _is_silent(client):
        log.info("client_silent")
        await _close(socket, WSCloseCode.GOING_AWAY, b"no pong")


async def _drop_when_slow(socket: web.WebSocketResponse, client: Client) -> None:
    await client.too_slow.wait()
    log.warning("client_too_slow sent=%d", client.sent)
    await _close(socket, WSCloseCode.POLICY_VIOLATION, b"too slow")


def _is_silent(client: Client) -> bool:
    """Whether this connection carries nothing in either direction."""
    ending: Ending | None = client.ending
    return client.line.silent or (ending is not None and ending.how is How.SILENT)


async def _close(socket: web.WebSocketResponse, code: int, reason: bytes) -> None:
    try:
        async with asyncio.timeout(CLOSE_LIMIT_S):
            await socket.close(code=code, message=reason, drain=False)
    except (TimeoutError, ConnectionError):
        return
