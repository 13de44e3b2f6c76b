"""One socket to the exchange, from its handshake to its end: connect, talk, read.

Reading never waits for anything but the socket: what a frame means is decided by the intake at
once, and Redis is not asked here. Pings from the exchange are answered by the library. Ours are
sent when nothing has come for a while: a socket that neither brings a frame nor answers is dead,
one that brings frames lives, whether it answers or not.
"""

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import cast

import structlog
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from bridge.contract.streams import Stream, StreamType
from bridge.errors import Transient
from bridge.feed.means import Means
from bridge.feed.retry_after import retry_after_s
from bridge.feed.socket import MessageSocket
from bridge.feed.talk import Talk
from bridge.protocol.envelope import Refusal
from bridge.protocol.subscriptions import Subscriptions

log = structlog.get_logger(__name__)

CLOSE_TIMEOUT_S = 1.0
LOOKS_AN_INTERVAL = 4  # how often it is looked whether frames come
RUBBISH_IN_A_ROW = 1000  # a connection that brings nothing else is given up
TICKING = {StreamType.TICKER, StreamType.MARK_PRICE}
PROOF_S = 3.0  # between two answers on a quiet connection where no stream ticks
PROOF_PAUSE_US = 200_000  # between two that are asked for, since a replacement waits for them

# The last three: a redirect to an address that is none, and a SOCKS proxy without its library.
_NO_CONNECTION = (
    WebSocketException, OSError, TimeoutError, ValueError, OverflowError, ImportError,
)  # fmt: skip


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


class Connection:
    """One socket and the streams it is to hear. `run` it once."""

    def __init__(
        self, name: str, streams: Iterable[Stream], means: Means, on_change: Callable[[], None]
    ) -> None:
        self.name = name
        self.subscriptions = Subscriptions(streams)
        self.is_connected = False
        self.was_connected = False
        self.lived_s = 0.0  # from its handshake to its end, once that has come
        self.frames = 0
        self.last_frame_us = 0
        self._means = means
        self._on_change = on_change
        self._rubbish = 0
        self._socket: MessageSocket | None = None
        self._talk: Talk | None = None  # since it is connected
        self._verdict = ""  # why we ended it ourselves
        self._proof_asked_us = 0  # when the exchange was asked last whether all is heard here

    @property
    def good_frames(self) -> int:
        """Frames that belonged to a stream."""
        return self.frames - self._rubbish

    @property
    def answered_us(self) -> int:
        """When all that was asked for at first was answered, by our clock; 0: not yet."""
        return self._talk.answered_us if self._talk else 0

    @property
    def signed_offset_us(self) -> int:
        """How far the exchange's clock was thought to be ahead when a request was last signed."""
        return self._talk.signed_offset_us if self._talk else 0

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
        if talk := self._live_talk():
            self._means.hearing.changed(talk.number, self.subscriptions.names())
            talk.post(self.subscriptions.requests())

    def remove(self, names: Iterable[str]) -> None:
        """Hear these no more."""
        gone = list(names)
        requests = self.subscriptions.remove(gone)
        if talk := self._live_talk():
            talk.unask(gone)
            talk.post(requests)
            self._means.hearing.changed(talk.number, self.subscriptions.names())

    def ask_again(self, names: Iterable[str]) -> None:
        """Subscribe to these once more, as `Talk.ask_again` says."""
        if talk := self._live_talk():
            talk.ask_again(names)

    def doubt(self, name: str) -> None:
        """This stream should have spoken, as `Talk.doubt` says."""
        if talk := self._live_talk():
            talk.doubt(name)

    def have_answer(self) -> None:
        """Have the exchange answer: what it was asked for counts as listened to."""
        if talk := self._live_talk():
            talk.have_answer()

    def may_leave(self) -> bool:
        """Is all of this heard elsewhere, so that going leaves no deafness? If not known yet, have
        the exchange answer, which may prove it.
        """
        talk = self._live_talk()
        if talk is None or self._means.hearing.may_leave(talk.number):
            return True
        now_us = self._means.clock_us()
        if now_us - self._proof_asked_us >= PROOF_PAUSE_US:  # each answer has us looked at again
            self._proof_asked_us = now_us
            talk.have_answer()
        return False

    async def retire(self) -> None:
        """Another connection hears all of this: go."""
        if (talk := self._live_talk()) is None:
            return
        assert self._socket is not None
        self._means.hearing.leaving(talk.number)
        with suppress(ConnectionClosed):
            self._verdict = "replaced"
            await self._socket.close()

    # ---- inside --------------------------------------------------------------------------------

    def _live_talk(self) -> Talk | None:
        return self._talk if self.is_connected else None

    async def _live(self, socket: MessageSocket) -> None:
        names = self.subscriptions.names()
        number = self._means.hearing.opened(self.name, names)
        self._socket = socket
        self._talk = talk = Talk(
            self.name,
            number,
            socket,
            self.subscriptions,
            self._means,
            lambda: self.frames,
            self._on_change,
        )
        self.is_connected = self.was_connected = True
        began_s = asyncio.get_running_loop().time()
        log.info("feed_connected", connection=self.name, streams=len(names))
        talk.post(self.subscriptions.requests())
        self._on_change()
        try:
            await self._work(socket, talk)
        finally:
            self.is_connected = False
            self.lived_s = asyncio.get_running_loop().time() - began_s
            self._means.hearing.lost(number, "connection lost")

    async def _work(self, socket: MessageSocket, talk: Talk) -> None:
        ended: ConnectionClosed | None = None
        async with asyncio.TaskGroup() as tasks:
            companions = [
                tasks.create_task(talk.run(), name=f"{self.name}-talk"),
                tasks.create_task(self._watch(talk), name=f"{self.name}-watch"),
            ]
            try:
                await socket.listen(partial(self._take, talk))
            except ConnectionClosed as error:
                ended = error
            finally:
                for companion in companions:
                    companion.cancel()
        assert ended is not None
        raise ended

    def _take(self, talk: Talk, frame: bytes) -> None:
        now_us = self._means.clock_us()
        heard = self._means.hearing.hear(frame, now_us, talk.number)
        self.frames += 1
        self.last_frame_us = now_us
        if isinstance(heard, str):
            before = self.subscriptions.heard(heard, now_us)
            if before is not None:
                talk.spoke(heard, before)
        elif isinstance(heard, Refusal):
            self._rubbish += 1
            talk.refused(heard)
        else:
            self._took_rubbish()

    def _took_rubbish(self) -> None:
        self._rubbish += 1
        if self._rubbish % RUBBISH_IN_A_ROW == 0 and self.good_frames == 0:
            self._end("it brings nothing but rubbish")

    def _end(self, verdict: str) -> None:
        """Give the connection up. The reader finds out."""
        self._verdict = self._verdict or verdict
        if self._socket is not None:
            self._socket.transport.abort()

    async def _watch(self, talk: Talk) -> None:
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
                if not await talk.prove_alive():
                    self._end(f"no frame and no pong for {settings.ping_timeout_s:g} s: half-open")
                    return
                quiet_looks = 0

    def _proof_every_s(self) -> float:
        """Where no stream ticks, answers are the only proof that nothing was missed."""
        types = {each.stream.type for each in self.subscriptions.by_name.values()}
        return float("inf") if types & TICKING else PROOF_S


def _refused_handshake(error: InvalidStatus) -> FeedLost:
    response = error.response
    reason = f"refused with HTTP {response.status_code}"
    pause_s = retry_after_s(response.headers.get("Retry-After", ""))
    if pause_s is not None:
        reason += f", not before {pause_s:g} s"
    return FeedLost(reason, retry_after_s=pause_s)
