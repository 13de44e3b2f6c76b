"""What is said on one connection, and what the exchange's answers to it mean.

No request has a reply of its own. A ping that is sent behind it has: when that is answered, the
exchange has what was asked for before. And what it refuses comes before, or somewhat after.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import cast

import structlog
from websockets.exceptions import ConnectionClosed

from bridge.contract.streams import Stream, is_private
from bridge.feed.means import Means
from bridge.feed.socket import MessageSocket
from bridge.protocol.envelope import Refusal
from bridge.protocol.signing import subscribe_signature
from bridge.protocol.subscriptions import (
    BAD_SIGNATURE,
    REFUSALS,
    Request,
    State,
    Subscriptions,
    grouped,
)

log = structlog.get_logger(__name__)

SUBSCRIBE_CHUNK = 100  # names in one request: keeps a request's frame small
STRAY_ERRORS_S = 0.5  # error frames may come somewhat after the pong that was sent behind them
STRAY_ERRORS_US = 5_000_000  # and at a busy time, no later than that: later ones mean nothing of it
SETTLE_S = 1.0  # after an error frame: those that speak by then are not meant


class Talk:
    """The talk on one socket, which the bridge knows by `number`. `run` it while that is open.

    `count_frames()` tells how many frames have come; `on_change` runs when a subscription or the
    exchange's answer to it is another.
    """

    def __init__(
        self,
        name: str,
        number: int,
        socket: MessageSocket,
        subscriptions: Subscriptions,
        means: Means,
        count_frames: Callable[[], int],
        on_change: Callable[[], None],
    ) -> None:
        self.name = name
        self.number = number
        self.answered_us = 0  # our clock, when all that was asked for at first was answered
        self.signed_offset_us = 0  # of the exchange's clock, as it was thought to be
        self._socket = socket
        self._subscriptions = subscriptions
        self._means = means
        self._count_frames = count_frames
        self._on_change = on_change
        self._outbox: deque[Request] = deque()
        self._has_mail = asyncio.Event()
        self._said: list[Stream] = []  # asked for, and not answered yet
        self._pings = 0
        self._pings_before = 0  # sent when the last answer came
        self._asked_behind: dict[str, int] = {}  # the pings sent before each stream was asked for
        self._granted_us: dict[str, int] = {}  # when the first answer behind it came, our clock
        self._doubts: dict[int, set[str]] = {}  # an error's code → streams that it may be about
        self._again: set[str] = set()  # refused, and to be asked for once more
        self._alone = ""  # the stream that is asked for alone just now
        self._told: set[tuple[str, int]] = set()  # refusals that are in the log
        self._answers = True

    async def run(self) -> None:
        """Say what is to be said; when all has been, have it answered."""
        with suppress(ConnectionClosed):
            while True:
                await self._has_mail.wait()
                while self._outbox:
                    await self._say(self._outbox.popleft())
                self._has_mail.clear()
                await self._have_answered()
                if self._doubts or self._again:
                    await self._ask_each_alone()

    def post(self, requests: Iterable[Request]) -> None:
        """Say these."""
        for request in requests:
            self._outbox.extend(request.chunks(SUBSCRIBE_CHUNK))
        self._has_mail.set()

    def ask_again(self, names: Iterable[str]) -> None:
        """Subscribe to these once more; the exchange does not send twice for it. What it has
        refused stays refused until it says otherwise.
        """
        known = [each for name in names if (each := self._subscriptions.by_name.get(name))]
        self._again |= {each.stream.name for each in known if each.state is State.REJECTED}
        self.post(grouped(each.stream for each in known if each.state is not State.REJECTED))

    def have_answer(self) -> None:
        """Have the exchange answer: what it was asked for counts as listened to."""
        self._has_mail.set()

    def unask(self, names: Iterable[str]) -> None:
        """It is not known any more that the exchange has these: no answer is about them before
        they are asked for again.
        """
        for name in names:
            self._asked_behind.pop(name, None)
            self._granted_us.pop(name, None)

    def doubt(self, name: str) -> None:
        """This stream should have spoken since its last message, or is refused. With the next
        answer behind a request for it, it counts as listened to again, from then on.
        """
        self.unask([name])
        subscription = self._subscriptions.by_name.get(name)
        if subscription is not None:
            ahead_us = self._means.exchange_us() - self._means.clock_us()
            since_us = subscription.heard_us + ahead_us if subscription.heard_us else 0
            self._means.hearing.doubted(self.number, name, since_us)

    async def prove_alive(self) -> bool:
        """Have the exchange answer now. False: it says nothing, and brings nothing either."""
        frames = self._count_frames()
        return await self._ask() or self._brings_more_than(frames)

    def spoke(self, name: str, before: State) -> None:
        """A stream's first message came, or its first in that state."""
        if before is State.REJECTED:  # so the refusal was about another
            log.info("stream_heard_again", stream=name, connection=self.name)
            self._asked_behind[name] = self._pings
            self.have_answer()
        else:
            log.debug("stream_confirmed", stream=name, connection=self.name)
        self._on_change()

    def refused(self, refusal: Refusal) -> None:
        """Signatures are clear, and a code of subscriptions where only one can be meant; else each
        candidate is asked for alone. What was granted a while ago is not meant.
        """
        if self._alone in self._subscriptions.by_name:
            if self._subscriptions.may_mean(self._alone, refusal.code):
                self._reject([self._alone], refusal.code, refusal.message)
            else:
                self._tell(refusal)
            return
        late_us = self._means.clock_us() - STRAY_ERRORS_US
        names = [
            name
            for name in self._subscriptions.candidates(refusal.code)
            if self._granted_us.get(name, late_us) >= late_us
        ]
        is_clear = len(names) == 1 and refusal.code in REFUSALS
        if is_clear or (names and refusal.code == BAD_SIGNATURE):
            self._reject(names, refusal.code, refusal.message)
        else:
            if refusal.code not in self._doubts:
                self._tell(refusal)
            self._doubts.setdefault(refusal.code, set()).update(names)
            self._has_mail.set()

    # ---- inside --------------------------------------------------------------------------------

    async def _say(self, request: Request) -> None:
        await self._means.requests.turn()
        if request.method == "SUBSCRIBE":
            by_name = self._subscriptions.by_name
            still = tuple(name for name in request.streams if name in by_name)
            request = Request(still, request.private)
            self._subscriptions.asked(still, self._means.clock_us())
            self._said += [by_name[name].stream for name in still]
        if request.streams:
            signature = self._signature() if request.private else None
            await self._socket.send(request.render(signature))
        if request.method == "SUBSCRIBE":
            self.unask(request.streams)
            self._asked_behind |= dict.fromkeys(request.streams, self._pings)

    def _signature(self) -> Sequence[str] | None:
        signer = self._means.signer
        if signer is None:
            return None
        exchange_us = self._means.exchange_us()
        self.signed_offset_us = exchange_us - self._means.clock_us()
        timestamp_ms = exchange_us // 1000
        window_ms = self._means.settings.signature_window_ms
        return subscribe_signature(signer.public_key, signer.sign, timestamp_ms, window_ms)

    async def _have_answered(self) -> None:
        """What was asked for reaches the exchange before a ping that is sent behind it. Where pings
        stay unanswered and frames come, so much time has passed that it must have; but that all it
        sent has come here, nobody has said.
        """
        said, self._said = self._said, []
        frames, ping = self._count_frames(), self._pings + 1
        if not await self._ask():
            if not self._brings_more_than(frames):
                return  # the watch ends it
            self._was_answered(ping, asked_us=0)
        self.answered_us = self.answered_us or self._means.clock_us()
        self._means.on_answered([stream for stream in said if stream.name in self._asked_behind])
        self._on_change()

    async def _ask(self) -> bool:
        """Ping, and say what the answer means. That of one that was sent before the last answer
        came says nothing of what was heard that the last did not: two of them prove no more.
        """
        self._pings += 1
        ping, asked_us = self._pings, self._means.exchange_us()
        if not await self._ping():
            return False
        is_news, self._pings_before = ping > self._pings_before, self._pings
        self._was_answered(ping, asked_us if is_news else 0)
        return True

    def _was_answered(self, ping: int, asked_us: int) -> None:
        """The answer may have been under way ever since it was asked for, and more behind it. 0: it
        is about subscriptions only.
        """
        unasked = [
            name
            for name in self._subscriptions.by_name
            if self._asked_behind.get(name, ping) >= ping
        ]
        self._means.hearing.answered(self.number, self._means.exchange_us(), unasked, asked_us)
        now_us = self._means.clock_us()
        for name in self._asked_behind.keys() - set(unasked):
            self._granted_us.setdefault(name, now_us)

    async def _ping(self) -> bool:
        """Does the exchange answer a ping?"""
        try:
            async with asyncio.timeout(self._means.settings.ping_timeout_s):
                pong = cast("asyncio.Future[float]", await self._socket.ping())
                await asyncio.shield(pong)
        except TimeoutError:
            return False
        self._answers = True
        return True

    def _brings_more_than(self, frames: int) -> bool:
        """Did frames come, though no pong? Told once."""
        if self._count_frames() == frames:
            return False
        if self._answers:
            self._answers = False
            log.warning("feed_pong_missing", connection=self.name)
        return True

    async def _ask_each_alone(self) -> None:
        """An error frame names no stream: ask for each that it can be about, alone. What is to be
        said meanwhile goes first, and then the rest of them.
        """
        await asyncio.sleep(SETTLE_S)
        names, self._again = self._again, set()
        for code, meant in self._doubts.items():
            names |= meant.intersection(self._subscriptions.candidates(code))
        while names and not self._outbox:
            name = min(names)
            names.discard(name)
            await self._ask_alone(name)
        self._again |= names
        left = {code: meant & names for code, meant in self._doubts.items()}
        self._doubts = left if names else {}
        self.have_answer()

    async def _ask_alone(self, name: str) -> None:
        """Unless it has spoken or was left."""
        subscription = self._subscriptions.by_name.get(name)
        if subscription is None or subscription.state is State.CONFIRMED:
            return
        self._alone = name
        await self._say(Request((name,), is_private(name)))
        await self._ping()
        await asyncio.sleep(STRAY_ERRORS_S)
        if name in self._asked_behind:
            self._subscriptions.accepted(name)
        self._alone = ""

    def _tell(self, refusal: Refusal) -> None:
        log.warning("exchange_error", connection=self.name, code=refusal.code,
                    message=refusal.message)  # fmt: skip

    def _reject(self, names: Sequence[str], code: int, message: str) -> None:
        for name in names:
            self.doubt(name)
        self._subscriptions.reject(names, code)
        new = [name for name in names if (name, code) not in self._told]
        self._told |= {(name, code) for name in names}
        if new:
            log.error(
                "subscription_refused",
                connection=self.name,
                code=code,
                message=message,
                streams=new[:20],
                reason=REFUSALS.get(code, ""),
            )
        for name in names:
            self._means.on_rejected(name, code)
        self._on_change()
