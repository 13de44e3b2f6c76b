"""The protocol of subscriptions on one connection, without I/O (pure).

The exchange does not reply to requests. But it reads in order, so the pong to a ping that is sent
after a request means that it has processed the request. It sends refusals before that pong, or a
little later, in error frames that name no stream.

The owner sends what `to_send` returns, reports what it receives (`state_changed`, `refused`,
`pong`), and handles the resulting `events`. `now_s` is the event loop's clock; `exchange_us` the
exchange's, as far as known. `frames` counts the frames received on the connection: while it
receives frames it is alive, and its requests reach the exchange, even if no pong is received.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from bridge.contract.streams import Stream, is_private
from bridge.protocol.envelope import Refusal
from bridge.protocol.subscriptions import (
    BAD_SIGNATURE,
    REFUSALS,
    Request,
    State,
    Subscriptions,
    grouped,
)

SUBSCRIBE_CHUNK = 100  # names in one request, to keep its frame small
HELD_S = 0.05  # delay of a pong that would grant streams: most late error frames arrive by then
STRAY_ERRORS_S = 0.5  # usual delay of an error frame after the pong
LATEST_ERROR_S = 5.0  # its greatest delay: a later error frame is about another request
SETTLE_S = 1.0  # after an error frame: streams with a message by then are not concerned
PAYLOAD_BYTES = 8


class Phase(StrEnum):
    """The phase of the conversation.

    IDLE → PINGING once all requests are sent: a ping follows them; → IDLE when it is answered or
    timed out, or → SETTLING if an error frame left open which stream it is about. IDLE → PINGING
    again if it timed out and nothing else was received either.
    SETTLING → CHOOSING after SETTLE_S; CHOOSING → ALONE → ALONE_PINGING → ALONE_SETTLING → CHOOSING
    for each candidate, which is requested alone; CHOOSING → IDLE when none is left, or when other
    requests wait.
    """

    IDLE = "idle"
    PINGING = "pinging"
    SETTLING = "settling"
    CHOOSING = "choosing"
    ALONE = "alone"  # the request for one stream is being sent
    ALONE_PINGING = "alone pinging"
    ALONE_SETTLING = "alone settling"


@dataclass(frozen=True, slots=True)
class Ping:
    """A ping to send; its payload identifies the pong."""

    number: int

    @property
    def payload(self) -> bytes:
        return self.number.to_bytes(PAYLOAD_BYTES, "big")


@dataclass(frozen=True, slots=True)
class Answer:
    """The exchange has all subscriptions except `excluded`. `pinged_us`: the exchange's time of the
    ping; None: nothing is proved about messages sent since (there was no pong, only enough time has
    passed for the subscriptions to be in effect; or the pong is older than the last answer).
    """

    excluded: tuple[str, ...]
    pinged_us: int | None


@dataclass(frozen=True, slots=True)
class Granted:
    """All requests sent so far are answered; `streams`: the newly requested ones."""

    streams: tuple[Stream, ...]


@dataclass(frozen=True, slots=True)
class Suspicion:
    """A stream counts as not received since `last_us` (our wall clock; None: since its answer),
    until the next answer after a request for it.
    """

    stream: str
    last_us: int | None


@dataclass(frozen=True, slots=True)
class Rejection:
    """The exchange refuses these streams; `news`: those not reported with this code before."""

    streams: tuple[str, ...]
    code: int
    message: str
    news: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StateChanged:
    """A stream received its first message in the state `before`."""

    stream: str
    before: State


@dataclass(frozen=True, slots=True)
class PongMissing:
    """Frames are received, but a ping was not answered in time. Reported once until one is."""


Event = Answer | Granted | Suspicion | Rejection | Refusal | StateChanged | PongMissing
Outgoing = Request | Ping


@dataclass(frozen=True, slots=True)
class _OpenPing:
    """A ping without a pong yet. `number` counts confirming pings: their pong confirms the requests
    sent before; 0: it does not.
    """

    number: int
    sent_us: int


class Conversation:
    """The subscription protocol of one connection, from its handshake to its end."""

    def __init__(self, subscriptions: Subscriptions, ping_timeout_s: float) -> None:
        self.answered_s: float | None = None  # when the first requests were all answered
        self._subscriptions = subscriptions
        self._ping_timeout_s = ping_timeout_s
        self._events: list[Event] = []
        self._phase = Phase.IDLE
        self._due_s: float | None = None  # when the phase ends without an event
        self._requests: deque[Request] = deque()
        self._needs_answer = False
        self._requested: list[Stream] = []  # in requests that are not answered yet
        self._frames = 0  # received when the last ping was sent
        self._awaited: Ping | None = None  # the ping that the phase waits for
        self._pings = 0
        self._open_pings: dict[int, _OpenPing] = {}
        self._delayed_pongs: deque[tuple[float, int]] = deque()  # when they count, and their pings
        self._confirming = 0  # confirming pings sent
        self._confirming_answered = 0  # sent by the time of the last answer
        self._sent_before: dict[str, int] = {}  # stream → confirming pings before its request
        self._granted_s: dict[str, float] = {}  # stream → the first answer after its request
        self._ambiguous: dict[int, set[str]] = {}  # error code → streams it may be about
        self._again: set[str] = set()  # refused, and to be requested again
        self._candidates: set[str] = set()  # to be requested alone
        self._alone = ""  # the stream that is requested alone now
        self._reported: set[tuple[str, int]] = set()  # rejections that were reported before
        self._has_pongs = True

    # ---- orders of the owner -------------------------------------------------------------------

    def subscribe_all(self) -> None:
        """Request all streams that were not requested yet."""
        self._post(self._subscriptions.requests())

    def unsubscribe(self, names: Iterable[str]) -> None:
        """Unsubscribe from these streams."""
        dropped = list(names)
        requests = self._subscriptions.remove(dropped)
        self._forget(dropped)
        self._post(requests)

    def subscribe_again(self, names: Iterable[str]) -> None:
        """Subscribe to these streams again; the exchange does not send duplicates for it. Rejected
        ones stay so until they are requested alone without an error.
        """
        known = [each for name in names if (each := self._subscriptions.by_name.get(name))]
        self._again |= {each.stream.name for each in known if each.state is State.REJECTED}
        self._post(grouped(each.stream for each in known if each.state is not State.REJECTED))

    def request_answer(self) -> None:
        """Send a confirming ping: with its pong, the requested streams count as received."""
        self._needs_answer = True

    def suspect(self, name: str) -> None:
        """Suspect a stream: it should have sent a message, or is refused. It counts as received
        again from the next answer after a request for it.
        """
        self._forget([name])
        if (subscription := self._subscriptions.by_name.get(name)) is not None:
            self._events.append(Suspicion(name, subscription.last_message_us))

    # ---- input ---------------------------------------------------------------------------------

    def state_changed(self, name: str, before: State) -> None:
        """Take a stream's first message in the state `before`."""
        if before is State.REJECTED:  # so the refusal was about another stream
            self._sent_before[name] = self._confirming
            self.request_answer()
        self._events.append(StateChanged(name, before))

    def refused(self, refusal: Refusal, now_s: float) -> None:
        """Take an error frame. It is clear for a bad signature, and for a subscription code with a
        single candidate; else each candidate is requested alone. Streams granted more than
        LATEST_ERROR_S ago are no candidates.
        """
        if self._alone in self._subscriptions.by_name:
            if self._subscriptions.may_mean(self._alone, refusal.code):
                self._reject([self._alone], refusal)
            else:
                self._events.append(refusal)
            return
        earliest_s = now_s - LATEST_ERROR_S
        names = [
            name
            for name in self._subscriptions.candidates(refusal.code)
            if self._granted_s.get(name, earliest_s) >= earliest_s
        ]
        is_clear = len(names) == 1 and refusal.code in REFUSALS
        if is_clear or (names and refusal.code == BAD_SIGNATURE):
            self._reject(names, refusal)
            return
        if refusal.code not in self._ambiguous:
            self._events.append(refusal)
        self._ambiguous.setdefault(refusal.code, set()).update(names)
        self._needs_answer = True

    def pong(self, payload: bytes, now_s: float) -> None:
        """Take a pong: it answers the ping of this payload, and those before it (RFC 6455 5.5.3:
        only the latest of several pings need be answered).
        """
        number = int.from_bytes(payload, "big")
        if len(payload) != PAYLOAD_BYTES or number > self._pings:
            return  # an unsolicited pong
        if self._delayed_pongs or self._would_grant(number):
            self._delayed_pongs.append((now_s + HELD_S, number))
        else:
            self._pong_counts(number, now_s)

    def events(self) -> list[Event]:
        """The events since the last call, in order."""
        events, self._events = self._events, []
        return events

    # ---- output --------------------------------------------------------------------------------

    @property
    def due_s(self) -> float | None:
        """When to call `to_send` again if there is no input and no order before."""
        due_s = [self._due_s] if self._due_s is not None else []
        return min([*due_s, *(due_s for due_s, _ in self._delayed_pongs)], default=None)

    def to_send(self, now_s: float, frames: int, exchange_us: int) -> Outgoing | None:
        """What to send next; None: nothing now. A ping is open from now on. The owner passes a
        request to `narrowed` directly before sending, and to `sent` after it.
        """
        while self._delayed_pongs and self._delayed_pongs[0][0] <= now_s:
            _, number = self._delayed_pongs.popleft()
            self._pong_counts(number, now_s)
        while True:
            phase = self._phase
            outgoing = self._advance(now_s, frames, exchange_us)
            if outgoing is not None or self._phase is phase:
                return outgoing

    def narrowed(self, request: Request, now_s: float) -> Request:
        """The request to send now: without the streams that were unsubscribed since."""
        if request.method != "SUBSCRIBE":
            return request
        by_name = self._subscriptions.by_name
        names = tuple(name for name in request.streams if name in by_name)
        self._subscriptions.requested(names, now_s)
        self._requested += [by_name[name].stream for name in names]
        return Request(names, request.private)

    def sent(self, request: Request) -> None:
        """Note that the narrowed request was sent: pongs to later pings confirm its streams."""
        if request.method == "SUBSCRIBE":
            self._forget(request.streams)
            self._sent_before |= dict.fromkeys(request.streams, self._confirming)

    def confirming_ping(self, exchange_us: int) -> Ping:
        """A ping to send now, whose pong confirms the requests sent before."""
        self._confirming += 1
        return self._new_ping(_OpenPing(self._confirming, exchange_us))

    def give_up(self, ping: Ping) -> None:
        """Ignore a later pong to this ping."""
        self._open_pings.pop(ping.number, None)

    def lives_without_pong(self, frames_before: int, frames: int) -> bool:
        """Whether frames were received although a ping was not answered in time."""
        if frames == frames_before:
            return False
        if self._has_pongs:
            self._has_pongs = False
            self._events.append(PongMissing())
        return True

    # ---- phases --------------------------------------------------------------------------------

    def _advance(self, now_s: float, frames: int, exchange_us: int) -> Outgoing | None:
        match self._phase:
            case Phase.IDLE:
                return self._next_request(now_s, frames, exchange_us)
            case Phase.CHOOSING:
                return self._next_alone()
            case Phase.ALONE:
                # It confirms nothing: an error frame may be received a little after its pong.
                ping = self._new_ping(_OpenPing(0, exchange_us))
                self._await(Phase.ALONE_PINGING, ping, now_s, frames)
                return ping
        if self._due_s is None or now_s < self._due_s or self._is_answer_delayed():
            return None
        match self._phase:
            case Phase.PINGING | Phase.ALONE_PINGING:
                self._timed_out(now_s, frames)
            case Phase.SETTLING:
                self._choose()
            case Phase.ALONE_SETTLING:
                if self._alone in self._sent_before:  # no error frame: it is not refused any more
                    self._subscriptions.accepted(self._alone)
                self._alone = ""
                self._enter(Phase.CHOOSING, None)
        return None

    def _is_answer_delayed(self) -> bool:
        awaited = self._awaited
        return awaited is not None and any(
            number >= awaited.number for _, number in self._delayed_pongs
        )

    def _next_request(self, now_s: float, frames: int, exchange_us: int) -> Outgoing | None:
        if not self._needs_answer:
            return None
        if self._requests:
            return self._requests.popleft()
        self._needs_answer = False
        ping = self.confirming_ping(exchange_us)
        self._await(Phase.PINGING, ping, now_s, frames)
        return ping

    def _await(self, phase: Phase, ping: Ping, now_s: float, frames: int) -> None:
        self._frames, self._awaited = frames, ping
        self._enter(phase, now_s + self._ping_timeout_s)

    def _timed_out(self, now_s: float, frames: int) -> None:
        """Handle a ping without a pong. If frames are received, enough time has passed for the
        requests to have reached the exchange; but it is unknown whether all it sent was received.
        """
        assert self._awaited is not None
        ping = self._open_pings.get(self._awaited.number)
        self.give_up(self._awaited)
        self._awaited = None
        is_alive = self._phase is Phase.PINGING and self.lives_without_pong(self._frames, frames)
        if is_alive and ping is not None:
            self._report_answer(ping.number, None, now_s)
        self._ping_is_over(now_s, is_answered=is_alive)

    def _ping_is_over(self, now_s: float, *, is_answered: bool) -> None:
        if self._phase is Phase.ALONE_PINGING:  # whether it was answered or not
            self._enter(Phase.ALONE_SETTLING, now_s + STRAY_ERRORS_S)
            return
        if is_answered:
            requested, self._requested = self._requested, []
            self.answered_s = self.answered_s or now_s
            known = tuple(stream for stream in requested if stream.name in self._sent_before)
            self._events.append(Granted(known))
        else:
            self._needs_answer = True  # the requests are not answered yet: another ping follows
        if self._ambiguous or self._again:
            self._enter(Phase.SETTLING, now_s + SETTLE_S)
        else:
            self._enter(Phase.IDLE, None)

    def _choose(self) -> None:
        """Make all streams that the error frames may be about candidates, to be requested alone."""
        self._candidates, self._again = self._again, set()
        for code, names in self._ambiguous.items():
            self._candidates |= names.intersection(self._subscriptions.candidates(code))
        self._enter(Phase.CHOOSING, None)

    def _next_alone(self) -> Request | None:
        """The request for the next candidate. Waiting requests go first: then the rest of the
        candidates is kept for later.
        """
        names = self._candidates
        while names and not self._requests:
            name = min(names)
            names.discard(name)
            subscription = self._subscriptions.by_name.get(name)
            # a stream that was unsubscribed, or has messages, needs no request
            if subscription is not None and subscription.state is not State.CONFIRMED:
                self._alone = name
                self._enter(Phase.ALONE, None)
                return Request((name,), is_private(name))
        self._again |= names
        left = {code: streams & names for code, streams in self._ambiguous.items()}
        self._ambiguous = left if names else {}
        self._candidates = set()
        self._needs_answer = True
        self._enter(Phase.IDLE, None)
        return None

    def _enter(self, phase: Phase, due_s: float | None) -> None:
        self._phase, self._due_s = phase, due_s

    # ---- inside --------------------------------------------------------------------------------

    def _post(self, requests: Iterable[Request]) -> None:
        for request in requests:
            self._requests.extend(request.chunks(SUBSCRIBE_CHUNK))
        self._needs_answer = True

    def _new_ping(self, ping: _OpenPing) -> Ping:
        self._pings += 1
        self._open_pings[self._pings] = ping
        return Ping(self._pings)

    def _forget(self, names: Iterable[str]) -> None:
        """Forget that the exchange has these streams: no answer confirms them before they are
        requested again.
        """
        for name in names:
            self._sent_before.pop(name, None)
            self._granted_s.pop(name, None)

    def _would_grant(self, number: int) -> bool:
        """Whether this pong would grant a stream for the first time: then it is delayed, since an
        error frame may directly follow it.
        """
        latest = max(
            (each.number for ping, each in self._open_pings.items() if ping <= number), default=0
        )
        return any(
            after < latest and name not in self._granted_s
            for name, after in self._sent_before.items()
        )

    def _pong_counts(self, number: int, now_s: float) -> None:
        for each in sorted(each for each in self._open_pings if each <= number):
            self._has_pongs = True
            self._answered(self._open_pings.pop(each), now_s)
        if self._awaited is not None and self._awaited.number <= number:
            self._awaited = None
            self._ping_is_over(now_s, is_answered=True)

    def _answered(self, ping: _OpenPing, now_s: float) -> None:
        """Handle the pong to a ping. If the ping was sent before the last answer was received, the
        pong proves nothing more about received messages: it has no time.
        """
        if not ping.number:
            return
        is_news = ping.number > self._confirming_answered
        self._confirming_answered = self._confirming
        self._report_answer(ping.number, ping.sent_us if is_news else None, now_s)

    def _report_answer(self, number: int, pinged_us: int | None, now_s: float) -> None:
        excluded = [
            name
            for name in self._subscriptions.by_name
            if self._sent_before.get(name, number) >= number
        ]
        self._events.append(Answer(tuple(excluded), pinged_us))
        for name in self._sent_before.keys() - set(excluded):
            self._granted_s.setdefault(name, now_s)

    def _reject(self, names: Iterable[str], refusal: Refusal) -> None:
        rejected = tuple(names)
        for name in rejected:
            self.suspect(name)
        self._subscriptions.reject(rejected, refusal.code)
        news = tuple(name for name in rejected if (name, refusal.code) not in self._reported)
        self._reported |= {(name, refusal.code) for name in rejected}
        self._events.append(Rejection(rejected, refusal.code, refusal.message, news))
