"""One socket to the exchange: connect, subscribe, read until it ends.

Reading never waits for anything but the socket: what a frame means is decided by the intake at
once, and Redis is not asked here. Pings from the exchange are answered by the library, our own find
a half-open socket.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, cast

import structlog
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from bridge.contract.streams import Stream
from bridge.errors import Transient
from bridge.feed.socket import MessageSocket
from bridge.protocol.envelope import Refusal
from bridge.protocol.signing import Sign, subscribe_signature
from bridge.protocol.subscriptions import Subscriptions
from bridge.runtime.config import Exchange

log = structlog.get_logger(__name__)

CLOSE_TIMEOUT_S = 1.0
SUBSCRIBE_CHUNK = 100  # names in one request: keeps a request's frame small


class Hears(Protocol):
    """Whoever frames go to. A connection has a number, given when it is opened."""

    def opened(self, name: str, streams: Sequence[str]) -> int: ...

    def answered(self, connection: int, at_us: int) -> None: ...

    def lost(self, connection: int, cause: str) -> None: ...

    def hear(
        self, frame: str | bytes, received_us: int, connection: int
    ) -> str | Refusal | None: ...


class FeedLost(Transient):
    """The connection could not be made or has ended."""


@dataclass(frozen=True, slots=True)
class Signer:
    """What it takes to subscribe to private streams."""

    public_key: str
    sign: Sign


@dataclass(slots=True)
class ConnectionState:
    """What others may know of a connection (status, log)."""

    name: str
    connected: bool = False
    attempts: int = 0
    frames: int = 0
    last_frame_us: int = 0
    trouble: str = "not connected yet"
    subscriptions: Subscriptions = field(default_factory=lambda: Subscriptions(()))


class Connection:
    """One connection and the streams it is to hear.

    `on_subscribed` runs once a (re)subscription has reached the exchange: when it answers the ping
    sent behind it, since there is no acknowledgement. (A first frame proves less: other streams of
    the connection may be subscribed later than its own.)
    """

    def __init__(
        self,
        name: str,
        streams: Sequence[Stream],
        settings: Exchange,
        hearing: Hears,
        clock_us: Callable[[], int],
        *,
        signer: Signer | None,
        on_subscribed: Callable[[], None],
    ) -> None:
        self.streams = streams
        self.state = ConnectionState(name, subscriptions=Subscriptions(streams))
        self._settings = settings
        self._hearing = hearing
        self._clock_us = clock_us
        self._signer = signer
        self._on_subscribed = on_subscribed
        self._number = 0

    async def run_once(self) -> None:
        """Live one connection; always ends in FeedLost (or cancellation)."""
        self.state.attempts += 1
        try:
            async with connect(
                self._settings.ws_url,
                create_connection=MessageSocket,
                compression="deflate" if self._settings.compression else None,
                open_timeout=self._settings.open_timeout_s,
                ping_interval=self._settings.ping_interval_s,
                ping_timeout=self._settings.ping_timeout_s,
                close_timeout=CLOSE_TIMEOUT_S,
                max_size=self._settings.max_frame_bytes,
            ) as socket:
                await self._live(cast("MessageSocket", socket))
        except InvalidStatus as error:
            raise FeedLost(f"refused with HTTP {error.response.status_code}") from None
        except ConnectionClosed as error:
            raise FeedLost(f"closed: {error}") from None
        except (WebSocketException, OSError, TimeoutError, ValueError, OverflowError) as error:
            # the last two: a redirect to an address that is none
            raise FeedLost(f"{type(error).__name__}: {error}".rstrip(": ")) from None
        finally:
            self.state.connected = False

    async def _live(self, socket: MessageSocket) -> None:
        self.state.subscriptions = Subscriptions(self.streams)
        names = [stream.name for stream in self.streams]
        self._number = self._hearing.opened(self.state.name, names)
        self.state.connected = True
        self.state.trouble = ""
        log.info("feed_connected", connection=self.state.name, streams=len(self.streams))
        try:
            await self._listen(socket)
        finally:
            self._hearing.lost(self._number, "connection lost")

    async def _listen(self, socket: MessageSocket) -> None:
        await self._subscribe(socket)
        pong = cast("asyncio.Future[float]", await socket.ping())
        pong.add_done_callback(self._answered)
        await socket.listen(self._take)

    async def _subscribe(self, socket: MessageSocket) -> None:
        for request in self.state.subscriptions.requests():
            for chunk in request.chunks(SUBSCRIBE_CHUNK):
                await socket.send(chunk.render(self._signature() if chunk.private else None))

    def _signature(self) -> Sequence[str] | None:
        if self._signer is None:
            return None
        timestamp_ms = self._clock_us() // 1000
        window_ms = self._settings.signature_window_ms
        return subscribe_signature(
            self._signer.public_key, self._signer.sign, timestamp_ms, window_ms
        )

    def _answered(self, pong: "asyncio.Future[float]") -> None:
        if not pong.cancelled() and pong.exception() is None:
            self._hearing.answered(self._number, self._clock_us())
            self._on_subscribed()

    def _take(self, frame: bytes) -> None:
        now_us = self._clock_us()
        heard = self._hearing.hear(frame, now_us, self._number)
        state = self.state
        state.frames += 1
        state.last_frame_us = now_us
        if isinstance(heard, str):
            if heard not in state.subscriptions.confirmed:
                state.subscriptions.heard(heard)
                log.debug("stream_confirmed", stream=heard)
        elif isinstance(heard, Refusal):
            self._refused(heard)

    def _refused(self, refusal: Refusal) -> None:
        names = self.state.subscriptions.refuse(refusal.code)
        log.error(
            "subscription_refused",
            connection=self.state.name,
            code=refusal.code,
            message=refusal.message,
            streams=list(names)[:20],
            reason=self.state.subscriptions.refused.get(names[0], "") if names else "",
        )
