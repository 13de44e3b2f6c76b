"""The I/O of one WebSocket to the exchange, from its handshake to its end.

Reading waits only for the socket: each frame goes to the sink at once, without a request to Redis.
The `Conversation` decides about subscriptions, and what the exchange's answers mean; this module
sends its requests and pings, and makes records of its events.

The library answers pings of the exchange. Ours are sent when nothing was received for a while: a
socket that receives neither a frame nor a pong is dead; one that receives frames is alive, with
pongs or without.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import cast

import structlog
from websockets.exceptions import ConnectionClosed, InvalidStatus

from bridge.contract.causes import GapCause
from bridge.contract.streams import Stream
from bridge.core.counters import EndCause
from bridge.core.outcomes import Applied
from bridge.core.records import (
    Answered,
    Closing,
    Lost,
    Opened,
    Record,
    Subscribed,
    Suspected,
)
from bridge.feed.clock import ExchangeClock
from bridge.feed.handshake import (
    NO_CONNECTION,
    Ended,
    describe_failure,
    describe_proxy,
    handshake,
    refused_handshake,
)
from bridge.feed.limits import RateLimiter
from bridge.feed.sink import Sink, Sinks
from bridge.feed.socket import MessageSocket
from bridge.protocol.conversation import (
    Answer,
    Conversation,
    Granted,
    Ping,
    PongMissing,
    Rejection,
    StateChanged,
    Suspicion,
)
from bridge.protocol.conversation import Event as Event
from bridge.protocol.envelope import Refusal
from bridge.protocol.signing import Signer, subscribe_signature
from bridge.protocol.subscriptions import REFUSALS, Request, State, Subscriptions
from bridge.runtime.config import Exchange

log = structlog.get_logger(__name__)

CHECKS_PER_INTERVAL = 4  # checks for frames in a ping interval
MOST_INVALID = 1000  # a connection with so many invalid frames and no valid one is given up
MOST_AT_ONCE = 128  # frames of one read that are taken together
MOST_UNSENT = 1024 * 1024  # bytes that the exchange does not read: mostly pongs to its pings
MAX_NAMED = 20  # names in one line of the log
PROOF_S = 3.0  # between two answers on a quiet connection without a stream that ticks each second
PROOF_PAUSE_S = 0.2  # between two requested answers, while a replacement waits for them


@dataclass(frozen=True, slots=True)
class Connector:
    """The shared settings, limits and counters of all connections to one exchange.

    `events`: what the exchange granted and rejected on any connection.
    """

    settings: Exchange
    sinks: Sinks
    clock_us: Callable[[], int]
    exchange_clock: ExchangeClock
    signer: Signer | None
    handshakes: RateLimiter
    requests: RateLimiter
    events: "asyncio.Queue[Granted | Rejection]"
    ends: Counter[EndCause] = field(default_factory=Counter)  # ended connections by cause


class Connection:
    """One socket and the streams it is to receive. `run` it once.

    `changed` is set when it is connected, when it has ended, and when the state of a subscription
    changes.
    """

    def __init__(
        self, name: str, streams: Iterable[Stream], connector: Connector, changed: asyncio.Event
    ) -> None:
        self.name = name
        self.subscriptions = Subscriptions(streams)
        self.is_connected = False
        self.was_connected = False
        self.lived_s = 0.0  # from its handshake to its end; 0 before the end
        self.frames = 0
        self.received_us = 0  # when the last frame was received, by our wall clock
        self.signed_offset_us = 0  # the exchange clock's offset when a request was last signed
        self._connector = connector
        self._settings = connector.settings
        self._clock_us = connector.clock_us
        self._exchange = connector.exchange_clock
        self._changed = changed
        is_private = any(each.stream.is_private for each in self.subscriptions.by_name.values())
        self._sink: Sink = connector.sinks.of(is_private=is_private)
        self._conversation = Conversation(self.subscriptions, self._settings.ping_timeout_s)
        self._has_to_send = asyncio.Event()
        self._number = 0  # in the records; set when it is connected
        self._now_s: Callable[[], float] = asyncio.get_running_loop().time
        self._invalid = 0
        self._socket: MessageSocket | None = None  # while it is connected
        self._verdict = ""  # why this side ended it
        self._proof_requested_s = float("-inf")  # when `may_close` last requested an answer

    @property
    def good_frames(self) -> int:
        """Frames that belonged to a stream."""
        return self.frames - self._invalid

    @property
    def answered_s(self) -> float | None:
        """When the first requests were all answered, by the loop's clock; None: not yet."""
        return self._conversation.answered_s

    async def run(self) -> Ended:
        """Connect and receive until the end. Returns how it ended."""
        settings = self._settings
        await self._connector.handshakes.acquire()
        try:
            async with handshake(settings) as socket:
                await self._live(cast("MessageSocket", socket))
            raise AssertionError("a connection ends with a reason")
        except InvalidStatus as error:
            return refused_handshake(error, settings.ws_url)
        except ConnectionClosed as error:
            is_closed = error.rcvd is not None and error.rcvd_then_sent is not False
            return Ended(
                self._verdict or f"closed: {error}", self._cause(is_closed=is_closed), is_closed
            )
        except NO_CONNECTION as error:
            reason = describe_failure(error)
            if self.was_connected:
                return Ended(reason, EndCause.BROKEN)
            return Ended(reason + describe_proxy(settings.ws_url), EndCause.UNREACHABLE)
        finally:
            self._changed.set()

    def _cause(self, *, is_closed: bool) -> EndCause:
        if self._verdict:
            return EndCause.GIVEN_UP
        return EndCause.CLOSED if is_closed else EndCause.BROKEN

    def add(self, streams: Iterable[Stream]) -> None:
        """Receive these streams, too."""
        self.subscriptions.add(streams)
        if self.is_connected:
            self._take(self._subscribed())
            self._conversation.subscribe_all()
            self._report()

    def remove(self, names: Iterable[str]) -> None:
        """Stop receiving these streams."""
        if not self.is_connected:
            self.subscriptions.remove(names)
            return
        self._conversation.unsubscribe(names)
        self._take(self._subscribed())
        self._report()

    def subscribe_again(self, names: Iterable[str]) -> None:
        """Subscribe to these streams again, see `Conversation.subscribe_again`."""
        if self.is_connected:
            self._conversation.subscribe_again(names)
            self._report()

    def suspect(self, name: str) -> None:
        """Suspect this stream, see `Conversation.suspect`."""
        if self.is_connected:
            self._conversation.suspect(name)
            self._report()

    def request_answer(self) -> None:
        """Request an answer, see `Conversation.request_answer`."""
        if self.is_connected:
            self._conversation.request_answer()
            self._report()

    def may_close(self) -> bool:
        """Whether all its streams are received on other connections, so that its end leaves no
        outage. If that is not known yet, an answer is requested, which may prove it.
        """
        if not self.is_connected or self._sink.may_close(self._number):
            return True
        now_s = self._now_s()
        if now_s - self._proof_requested_s >= PROOF_PAUSE_S:  # this is called after each answer
            self._proof_requested_s = now_s
            self.request_answer()
        return False

    async def close(self) -> None:
        """Close it: another connection receives all its streams."""
        if (socket := self._socket) is None:
            return
        self._take(Closing(self._clock_us(), self._number))
        with suppress(ConnectionClosed):
            self._verdict = "replaced"
            await socket.close()

    # ---- input from the socket -----------------------------------------------------------------

    def messages(self, bodies: Sequence[bytes]) -> None:
        """Pass frames to the sink, and update the subscriptions; at most MOST_AT_ONCE together, so
        that publishing is not delayed by a long read.
        """
        if len(bodies) > MOST_AT_ONCE:
            for start in range(0, len(bodies), MOST_AT_ONCE):
                self.messages(bodies[start : start + MOST_AT_ONCE])
            return
        received_us, now_s = self._clock_us(), self._now_s()
        applied = self._sink.take_frames(received_us, self._number, bodies)
        self.frames += len(bodies)
        self.received_us = received_us
        for each in dict.fromkeys(applied):
            if isinstance(each, str):
                before = self.subscriptions.received(each, now_s, received_us)
                if before is not None:
                    self._conversation.state_changed(each, before)
                    self._report()
            else:
                self._count_invalid(each, applied.count(each), now_s)

    def pong(self, payload: bytes) -> None:
        """Take a pong."""
        self._conversation.pong(payload, self._now_s())
        self._report()

    def flush(self) -> None:
        """Flush the sink after one read. An exchange that sends pings and never reads the pongs is
        given up: they would be buffered without a bound.
        """
        self._sink.flush()
        socket = self._socket
        if socket is not None and socket.transport.get_write_buffer_size() > MOST_UNSENT:
            self._end("the exchange does not read what it is sent")

    def _count_invalid(self, applied: Applied, count: int, now_s: float) -> None:
        """Handle `count` equal error frames, or invalid frames."""
        self._invalid += count
        if isinstance(applied, Refusal):
            for _ in range(count):
                self._conversation.refused(applied, now_s)
            self._report()
        elif self._invalid >= MOST_INVALID and self.good_frames == 0:
            self._end("it sends only invalid frames")

    # ---- life cycle ----------------------------------------------------------------------------

    async def _live(self, socket: MessageSocket) -> None:
        names = self.subscriptions.names()
        self._socket = socket
        self._number = self._sink.new_connection()
        self._take(Opened(self._clock_us(), self._number, self.name, names))
        self.is_connected = self.was_connected = True
        began_s = self._now_s()
        log.info("feed_connected", connection=self.name, streams=len(names))
        self._conversation.subscribe_all()
        self._report()
        self._changed.set()
        try:
            await self._work(socket)
        finally:
            self.is_connected = False
            self._socket = None
            self.lived_s = self._now_s() - began_s
            self._take(Lost(self._clock_us(), self._number, GapCause.CONNECTION_LOST))

    async def _work(self, socket: MessageSocket) -> None:
        """Work until the connection ends. Raises ConnectionClosed."""
        async with asyncio.TaskGroup() as tasks:
            companions = [
                tasks.create_task(self._converse(socket), name=f"{self.name}-conversation"),
                tasks.create_task(self._check_liveness(socket), name=f"{self.name}-watch"),
            ]
            with suppress(ConnectionClosed):
                try:
                    await socket.listen(self)
                finally:
                    for companion in companions:
                        companion.cancel()
        raise socket.close_exc

    def _end(self, verdict: str) -> None:
        """Give the connection up; that ends `listen`."""
        self._verdict = self._verdict or verdict
        if self._socket is not None:
            self._socket.abort()

    # ---- output --------------------------------------------------------------------------------

    async def _converse(self, socket: MessageSocket) -> None:
        """Send the requests and pings of the conversation."""
        conversation = self._conversation
        with suppress(ConnectionClosed):
            while True:
                self._has_to_send.clear()  # before `to_send`, so that no later event is lost
                outgoing = conversation.to_send(self._now_s(), self.frames, self._exchange.now_us())
                self._log_events()
                match outgoing:
                    case Request() as request:
                        await self._send(socket, request)
                    case Ping() as ping:
                        with suppress(TimeoutError):  # the conversation has the same timeout
                            async with asyncio.timeout(self._settings.ping_timeout_s):
                                await socket.ping(ping.payload)
                    case None:
                        await self._until(conversation.due_s)

    async def _until(self, due_s: float | None) -> None:
        """Wait until there is something to send, or until `due_s`."""
        with suppress(TimeoutError):
            async with asyncio.timeout_at(due_s):
                await self._has_to_send.wait()

    async def _send(self, socket: MessageSocket, request: Request) -> None:
        await self._connector.requests.acquire()
        request = self._conversation.narrowed(request, self._now_s())
        if request.streams:
            signature = self._signature() if request.private else None
            await socket.send(request.render(signature))
        self._conversation.sent(request)

    def _signature(self) -> tuple[str, str, str, str] | None:
        signer = self._connector.signer
        if signer is None:
            return None
        exchange_us = self._exchange.now_us()
        self.signed_offset_us = exchange_us - self._clock_us()
        window_ms = self._settings.signature_window_ms
        return subscribe_signature(signer.public_key, signer.sign, exchange_us // 1000, window_ms)

    def _report(self) -> None:
        """After input to the conversation: handle its events, and have its output sent."""
        self._log_events()
        self._has_to_send.set()

    def _log_events(self) -> None:
        events = self._conversation.events()
        for event in events:
            self._log_event(event)
        if events:
            self._changed.set()

    def _log_event(self, event: Event) -> None:
        match event:
            case Answer(excluded, pinged_us):
                self._take(self._answered(excluded, pinged_us))
            case Suspicion(stream, last_us):
                ahead_us = self._exchange.now_us() - self._clock_us()
                last_us = None if last_us is None else last_us + ahead_us
                self._take(Suspected(self._clock_us(), self._number, stream, last_us))
            case Granted():
                self._connector.events.put_nowait(event)
            case Rejection():
                self._log_rejection(event)
                self._connector.events.put_nowait(event)
            case Refusal(code, message):
                log.warning("exchange_error", connection=self.name, code=code, message=message)
            case StateChanged(stream, State.REJECTED):
                log.info("stream_received_again", stream=stream, connection=self.name)
            case StateChanged(stream):
                log.debug("stream_confirmed", stream=stream, connection=self.name)
            case PongMissing():
                log.warning("feed_pong_missing", connection=self.name)

    def _log_rejection(self, rejection: Rejection) -> None:
        if rejection.news:
            log.error(
                "subscription_refused",
                connection=self.name,
                code=rejection.code,
                message=rejection.message,
                streams=list(rejection.news[:MAX_NAMED]),
                reason=REFUSALS.get(rejection.code, ""),
            )

    # ---- records -------------------------------------------------------------------------------

    def _take(self, record: Record) -> None:
        """Pass a record other than a frame to the sink, and flush it."""
        self._sink.take(record)
        self._sink.flush()

    def _subscribed(self) -> Subscribed:
        return Subscribed(self._clock_us(), self._number, self.subscriptions.names())

    def _answered(self, excluded: tuple[str, ...], pinged_us: int | None) -> Answered:
        return Answered(
            self._clock_us(),
            self._number,
            self._exchange.now_us(),
            excluded,
            pinged_us,
            is_inferred=pinged_us is None,
        )

    # ---- liveness ------------------------------------------------------------------------------

    async def _check_liveness(self, socket: MessageSocket) -> None:
        """After a ping interval without a frame, send a ping; without an answer, end it."""
        settings = self._settings
        check_s = min(settings.ping_interval_s, self._proof_every_s()) / CHECKS_PER_INTERVAL
        quiet_checks = 0
        with suppress(ConnectionClosed):
            while True:
                frames = self.frames
                await asyncio.sleep(check_s)
                quiet_checks = quiet_checks + 1 if self.frames == frames else 0
                if quiet_checks < CHECKS_PER_INTERVAL:
                    continue
                if not await self._proves_alive(socket):
                    self._end(f"no frame and no pong for {settings.ping_timeout_s:g} s: half-open")
                    return
                quiet_checks = 0

    async def _proves_alive(self, socket: MessageSocket) -> bool:
        """Send a ping at once, ahead of waiting requests. False: there was neither a pong nor a
        frame in time.
        """
        frames, ping = self.frames, self._conversation.confirming_ping(self._exchange.now_us())
        try:
            async with asyncio.timeout(self._settings.ping_timeout_s):
                pong = cast("asyncio.Future[float]", await socket.ping(ping.payload))
                await asyncio.shield(pong)
        except TimeoutError:
            self._conversation.give_up(ping)
            is_alive = self._conversation.lives_without_pong(frames, self.frames)
            self._report()
            return is_alive
        return True

    def _proof_every_s(self) -> float:
        """How often an answer must prove coverage: never with a stream that ticks each second."""
        streams = (each.stream for each in self.subscriptions.by_name.values())
        return float("inf") if any(each.spec.proves_life for each in streams) else PROOF_S
