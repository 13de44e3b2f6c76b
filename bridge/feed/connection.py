"""One socket to the exchange, from its handshake to its end: connect, subscribe, read.

Reading never waits for anything but the socket: what a frame means is decided by the intake at
once, and Redis is not asked here. Pings from the exchange are answered by the library. Ours are
sent when nothing has come for a while: a socket that neither brings a frame nor answers is dead,
one that brings frames lives, whether it answers or not.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol, cast

import structlog
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from bridge.contract.streams import Stream, StreamType, is_private
from bridge.errors import Transient
from bridge.feed.pace import Pace
from bridge.feed.retry_after import retry_after_s
from bridge.feed.socket import MessageSocket
from bridge.protocol.envelope import Refusal
from bridge.protocol.signing import Sign, subscribe_signature
from bridge.protocol.subscriptions import (
    BAD_SIGNATURE,
    REFUSALS,
    Request,
    State,
    Subscriptions,
    grouped,
)
from bridge.runtime.config import Exchange

log = structlog.get_logger(__name__)

CLOSE_TIMEOUT_S = 1.0
SUBSCRIBE_CHUNK = 100  # names in one request: keeps a request's frame small
LOOKS_AN_INTERVAL = 4  # how often it is looked whether frames come
RUBBISH_IN_A_ROW = 1000  # a connection that brings nothing else is given up
STRAY_ERRORS_S = 0.5  # error frames may come somewhat after the pong that was sent behind them
TICKING = {StreamType.TICKER, StreamType.MARK_PRICE}
PROOF_S = 3.0  # between two answers on a quiet connection where no stream ticks
PROOF_PAUSE_US = 200_000  # between two that are asked for, since a replacement waits for them
SETTLE_S = 1.0  # after an error frame: those that speak by then are not meant


# The last three: a redirect to an address that is none, and a SOCKS proxy without its library.
_NO_CONNECTION = (
    WebSocketException, OSError, TimeoutError, ValueError, OverflowError, ImportError,
)  # fmt: skip


class Hears(Protocol):
    """Whoever frames go to. A connection has a number, given when it is opened."""

    def opened(self, name: str, streams: Sequence[str]) -> int: ...

    def changed(self, connection: int, streams: Sequence[str]) -> None: ...

    def answered(self, connection: int, at_us: int) -> None: ...

    def doubted(self, connection: int, stream: str, since_us: int) -> None: ...

    def may_leave(self, connection: int) -> bool: ...

    def leaving(self, connection: int) -> None: ...

    def lost(self, connection: int, cause: str) -> None: ...

    def hear(
        self, frame: str | bytes, received_us: int, connection: int
    ) -> str | Refusal | None: ...


class FeedLost(Transient):
    """The connection could not be made or has ended.

    `is_closed`: the exchange said goodbye. `retry_after_s`: it asked not to be called before then.
    """

    def __init__(
        self, reason: str, *, is_closed: bool = False, retry_after_s: float | None = None
    ) -> None:
        super().__init__(reason)
        self.is_closed = is_closed
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class Signer:
    """What it takes to subscribe to private streams."""

    public_key: str
    sign: Sign


@dataclass(frozen=True, slots=True)
class Means:
    """What all connections of a feed share. `exchange_us`: the exchange's clock, as far as known.

    `on_answered(streams)` runs when the exchange has answered behind these subscriptions,
    `on_rejected(name, code)` when it has refused one.
    """

    settings: Exchange
    hearing: Hears
    clock_us: Callable[[], int]
    exchange_us: Callable[[], int]
    signer: Signer | None
    handshakes: Pace
    requests: Pace
    on_answered: Callable[[Sequence[Stream]], None]
    on_rejected: Callable[[str, int], None]


class Connection:
    """One socket and the streams it is to hear. `run` it once."""

    def __init__(
        self, name: str, streams: Iterable[Stream], means: Means, on_change: Callable[[], None]
    ) -> None:
        self.name = name
        self.subscriptions = Subscriptions(streams)
        self.is_connected = False
        self.was_connected = False
        self.answered_us = 0  # our clock, when all that was asked for at first was answered
        self.frames = 0
        self.last_frame_us = 0
        self.signed_offset_us = 0  # of the exchange's clock, as it was thought to be
        self._means = means
        self._on_change = on_change
        self._rubbish = 0
        self._number = 0
        self._socket: MessageSocket | None = None
        self._outbox: deque[Request] = deque()
        self._has_mail = asyncio.Event()
        self._said: list[Stream] = []  # asked for, and not answered yet
        self._doubts: set[int] = set()  # codes of errors that may be about several streams
        self._alone = ""  # the stream that is asked for alone just now
        self._verdict = ""  # why we ended it ourselves
        self._answers = True
        self._proof_asked_us = 0  # when the exchange was asked last whether all is heard here

    @property
    def good_frames(self) -> int:
        """Frames that belonged to a stream."""
        return self.frames - self._rubbish

    async def run(self) -> None:
        """Live; always ends in FeedLost (or cancellation)."""
        settings = self._means.settings
        await self._means.handshakes.turn()
        try:
            async with connect(
                settings.ws_url,
                create_connection=MessageSocket,
                compression="deflate" if settings.compression else None,
                open_timeout=settings.open_timeout_s,
                ping_interval=None,
                close_timeout=CLOSE_TIMEOUT_S,
                max_size=settings.max_frame_bytes,
            ) as socket:
                await self._live(cast("MessageSocket", socket))
        except InvalidStatus as error:
            raise _refused_handshake(error) from None
        except ConnectionClosed as error:
            is_closed = error.rcvd is not None and error.rcvd_then_sent is not False
            raise FeedLost(self._verdict or f"closed: {error}", is_closed=is_closed) from None
        except _NO_CONNECTION as error:
            raise FeedLost(f"{type(error).__name__}: {error}".rstrip(": ")) from None

    def add(self, streams: Iterable[Stream]) -> None:
        """Hear these, too."""
        self.subscriptions.add(streams)
        if self._number:
            self._means.hearing.changed(self._number, self.subscriptions.names())
            self._post(self.subscriptions.requests())

    def remove(self, names: Iterable[str]) -> None:
        """Hear these no more."""
        requests = self.subscriptions.remove(names)
        if self._number:
            self._post(requests)
            self._means.hearing.changed(self._number, self.subscriptions.names())

    def ask_again(self, names: Iterable[str]) -> None:
        """Subscribe to these once more; the exchange does not send twice for it."""
        known = [each for name in names if (each := self.subscriptions.by_name.get(name))]
        refused = [each.stream.name for each in known if each.state is State.REJECTED]
        self.subscriptions.ask_again(refused)
        self._post(grouped(each.stream for each in known))

    def doubt(self, name: str) -> None:
        """This stream should have spoken since its last message. With the next answer it counts as
        listened to again, from then on.
        """
        subscription = self.subscriptions.by_name.get(name)
        if self._number and subscription is not None:
            ahead_us = self._means.exchange_us() - self._means.clock_us()
            since_us = subscription.heard_us + ahead_us if subscription.heard_us else 0
            self._means.hearing.doubted(self._number, name, since_us)

    def have_answer(self) -> None:
        """Have the exchange answer: what is subscribed to counts as listened to."""
        self._has_mail.set()

    def may_leave(self) -> bool:
        """Is all of this heard elsewhere, so that going leaves no deafness? If not known yet, have
        the exchange answer, which may prove it.
        """
        if self._means.hearing.may_leave(self._number):
            return True
        now_us = self._means.clock_us()
        if now_us - self._proof_asked_us >= PROOF_PAUSE_US:  # each answer has us looked at again
            self._proof_asked_us = now_us
            self.have_answer()
        return False

    async def retire(self) -> None:
        """Another connection hears all of this: go."""
        if (socket := self._socket) is None:
            return
        self._means.hearing.leaving(self._number)
        with suppress(ConnectionClosed):
            self._verdict = "replaced"
            await socket.close()

    # ---- inside --------------------------------------------------------------------------------

    async def _live(self, socket: MessageSocket) -> None:
        names = self.subscriptions.names()
        self._number = self._means.hearing.opened(self.name, names)
        self._socket = socket
        self.is_connected = self.was_connected = True
        log.info("feed_connected", connection=self.name, streams=len(names))
        self._post(self.subscriptions.requests())
        self._on_change()
        try:
            await self._work(socket)
        finally:
            self._socket = None
            self.is_connected = False
            self._means.hearing.lost(self._number, "connection lost")
            self._number = 0

    async def _work(self, socket: MessageSocket) -> None:
        ended: ConnectionClosed | None = None
        async with asyncio.TaskGroup() as tasks:
            companions = [
                tasks.create_task(self._speak(socket), name=f"{self.name}-speak"),
                tasks.create_task(self._watch(socket), name=f"{self.name}-watch"),
            ]
            try:
                await socket.listen(self._take)
            except ConnectionClosed as error:
                ended = error
            finally:
                for companion in companions:
                    companion.cancel()
        assert ended is not None
        raise ended

    def _take(self, frame: bytes) -> None:
        now_us = self._means.clock_us()
        heard = self._means.hearing.hear(frame, now_us, self._number)
        self.frames += 1
        self.last_frame_us = now_us
        if isinstance(heard, str):
            before = self.subscriptions.heard(heard, now_us)
            if before is not None:
                self._confirmed(heard, before)
        elif isinstance(heard, Refusal):
            self._refused(heard)
        else:
            self._took_rubbish()

    def _confirmed(self, name: str, before: State) -> None:
        if before is State.REJECTED:
            log.info("stream_heard_again", stream=name, connection=self.name)
        else:
            log.debug("stream_confirmed", stream=name, connection=self.name)
        self._on_change()

    def _took_rubbish(self) -> None:
        self._rubbish += 1
        if self._rubbish % RUBBISH_IN_A_ROW == 0 and self.good_frames == 0:
            self._end("it brings nothing but rubbish")

    def _end(self, verdict: str) -> None:
        """Give the connection up. The reader finds out."""
        self._verdict = self._verdict or verdict
        if self._socket is not None:
            self._socket.transport.abort()

    # ---- what is said --------------------------------------------------------------------------

    def _post(self, requests: Iterable[Request]) -> None:
        for request in requests:
            self._outbox.extend(request.chunks(SUBSCRIBE_CHUNK))
        self._has_mail.set()

    async def _speak(self, socket: MessageSocket) -> None:
        """Say what is to be said; when all has been, have it answered."""
        with suppress(ConnectionClosed):
            while True:
                await self._has_mail.wait()
                while self._outbox:
                    await self._say(socket, self._outbox.popleft())
                self._has_mail.clear()
                await self._have_answered(socket)
                if self._doubts:
                    await self._clear_doubts(socket)

    async def _say(self, socket: MessageSocket, request: Request) -> None:
        await self._means.requests.turn()
        if request.method == "SUBSCRIBE":
            still = tuple(name for name in request.streams if name in self.subscriptions.by_name)
            request = Request(still, request.private)
            self.subscriptions.asked(still, self._means.clock_us())
            self._said += [self.subscriptions.by_name[name].stream for name in still]
        if request.streams:
            await socket.send(request.render(self._signature() if request.private else None))

    def _signature(self) -> Sequence[str] | None:
        signer = self._means.signer
        if signer is None:
            return None
        exchange_us = self._means.exchange_us()
        self.signed_offset_us = exchange_us - self._means.clock_us()
        timestamp_ms = exchange_us // 1000
        window_ms = self._means.settings.signature_window_ms
        return subscribe_signature(signer.public_key, signer.sign, timestamp_ms, window_ms)

    async def _have_answered(self, socket: MessageSocket) -> None:
        """What was asked for reaches the exchange before a ping that is sent behind it. Where pings
        stay unanswered and frames come, so much time has passed that it must have.
        """
        said, self._said = self._said, []
        frames = self.frames
        if not await self._ask(socket):
            if self.frames == frames:
                return  # the watch ends it
            self._does_not_answer()
        self._means.hearing.answered(self._number, self._means.exchange_us())
        self.answered_us = self.answered_us or self._means.clock_us()
        self._means.on_answered(said)
        self._on_change()

    async def _ask(self, socket: MessageSocket) -> bool:
        """Does the exchange answer a ping?"""
        try:
            async with asyncio.timeout(self._means.settings.ping_timeout_s):
                pong = cast("asyncio.Future[float]", await socket.ping())
                await asyncio.shield(pong)
        except TimeoutError:
            return False
        self._answers = True
        return True

    def _does_not_answer(self) -> None:
        """Frames come and pongs do not: told once."""
        if self._answers:
            self._answers = False
            log.warning("feed_pong_missing", connection=self.name)

    async def _watch(self, socket: MessageSocket) -> None:
        """Nothing came for an interval: ask. Nothing came for the time-out either: it is dead."""
        settings = self._means.settings
        look_s = min(settings.ping_interval_s, self._proof_every_s()) / LOOKS_AN_INTERVAL
        quiet_looks = 0
        with suppress(ConnectionClosed):
            while True:
                frames = self.frames
                await asyncio.sleep(look_s)
                quiet_looks = quiet_looks + 1 if self.frames == frames else 0
                if quiet_looks < LOOKS_AN_INTERVAL:
                    continue
                if await self._ask(socket):
                    self._means.hearing.answered(self._number, self._means.exchange_us())
                elif self.frames != frames:
                    self._does_not_answer()
                else:
                    self._end(f"no frame and no pong for {settings.ping_timeout_s:g} s: half-open")
                    return
                quiet_looks = 0

    def _proof_every_s(self) -> float:
        """Where no stream ticks, answers are the only proof that nothing was missed."""
        types = {each.stream.type for each in self.subscriptions.by_name.values()}
        return float("inf") if types & TICKING else PROOF_S

    # ---- what is refused -----------------------------------------------------------------------

    def _refused(self, refusal: Refusal) -> None:
        """Signatures and single candidates are clear; else each candidate is asked for alone."""
        self._rubbish += 1
        if self._alone:
            self._reject([self._alone], refusal.code, refusal.message)
            return
        names = self.subscriptions.candidates(refusal.code)
        if len(names) == 1 or (names and refusal.code == BAD_SIGNATURE):
            self._reject(names, refusal.code, refusal.message)
        elif refusal.code not in self._doubts:
            log.warning("exchange_error", connection=self.name, code=refusal.code,
                        message=refusal.message)  # fmt: skip
            self._doubts.add(refusal.code)
            self._has_mail.set()

    async def _clear_doubts(self, socket: MessageSocket) -> None:
        """An error frame names no stream: ask for each that it can be about, alone."""
        await asyncio.sleep(SETTLE_S)
        names = {name for code in self._doubts for name in self.subscriptions.candidates(code)}
        for name in sorted(names):
            self._alone = name
            await self._say(socket, Request((name,), is_private(name)))
            await self._ask(socket)
            await asyncio.sleep(STRAY_ERRORS_S)
        self._alone = ""
        self._doubts.clear()

    def _reject(self, names: Sequence[str], code: int, message: str) -> None:
        self.subscriptions.reject(names, code)
        log.error(
            "subscription_refused",
            connection=self.name,
            code=code,
            message=message,
            streams=list(names)[:20],
            reason=REFUSALS.get(code, ""),
        )
        for name in names:
            self._means.on_rejected(name, code)
        self._on_change()


def _refused_handshake(error: InvalidStatus) -> FeedLost:
    response = error.response
    reason = f"refused with HTTP {response.status_code}"
    pause_s = retry_after_s(response.headers.get("Retry-After", ""))
    if pause_s is not None:
        reason += f", not before {pause_s:g} s"
    return FeedLost(reason, retry_after_s=pause_s)
