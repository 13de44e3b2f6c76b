"""The conversation of one connection about its subscriptions, without I/O (pure).

No request has a reply of its own. A ping that is sent behind it has one: the exchange reads in
order, so that a pong means that it has what was asked for before. What it refuses comes before that
pong, or somewhat after, in error frames that name no stream.

The owner sends what `to_send` gives, tells what comes (`received`, `refused`, `pong`), and takes
what follows from it from `events`. `now_s` is the event loop's clock; `exchange_us` the exchange's,
as far as known. `frames` counts what the connection has brought: one that brings frames lives, and
so does what it was asked for, whether it answers pings or not.
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

SUBSCRIBE_CHUNK = 100  # names in one request: keeps a request's frame small
HELD_S = 0.05  # a pong that would grant something: most error frames behind it come by then
STRAY_ERRORS_S = 0.5  # error frames may come somewhat after the pong that was sent behind them
LATEST_ERROR_S = 5.0  # and at a busy time, no later than that: later ones are not about it
SETTLE_S = 1.0  # after an error frame: streams whose messages come by then are not meant
PAYLOAD_BYTES = 8


class Phase(StrEnum):
    """What the conversation is at.

    IDLE → ASKING once all requests are sent: a ping behind them; → IDLE when it is answered or
    timed out, or → SETTLING where an error frame left open which stream it is about.
    SETTLING → CHOOSING after a while; CHOOSING → ALONE → ALONE_ASKING → ALONE_SETTLING → CHOOSING
    for each such stream, which is asked for alone; CHOOSING → IDLE when none is left, or when
    other requests wait.
    """

    IDLE = "idle"
    ASKING = "asking"
    SETTLING = "settling"
    CHOOSING = "choosing"
    ALONE = "alone"  # the request for one stream is under way
    ALONE_ASKING = "alone asking"
    ALONE_SETTLING = "alone settling"


@dataclass(frozen=True, slots=True)
class Ping:
    """A ping to send; its payload tells which one a pong answers."""

    number: int

    @property
    def payload(self) -> bytes:
        return self.number.to_bytes(PAYLOAD_BYTES, "big")


@dataclass(frozen=True, slots=True)
class Answer:
    """The exchange has all subscriptions but `excluded`. `asked_us`: the exchange's time when it
    was asked; None: no answer came that tells anything of what was sent since, only so much time
    has passed that it must have them.
    """

    excluded: tuple[str, ...]
    asked_us: int | None


@dataclass(frozen=True, slots=True)
class Granted:
    """All requests sent so far are answered, with these streams among them."""

    streams: tuple[Stream, ...]


@dataclass(frozen=True, slots=True)
class Suspicion:
    """A stream is taken as not received since `last_us` (this side's wall clock; None: since it was
    answered), until the next answer behind a request for it.
    """

    stream: str
    last_us: int | None


@dataclass(frozen=True, slots=True)
class Rejection:
    """The exchange refuses these streams; `news`: those of which this was not said before."""

    streams: tuple[str, ...]
    code: int
    message: str
    news: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StateChanged:
    """A stream's first message came in the state `before`."""

    stream: str
    before: State


@dataclass(frozen=True, slots=True)
class PongMissing:
    """Frames come, and a ping was not answered in time. Said once until one is."""


Event = Answer | Granted | Suspicion | Rejection | Refusal | StateChanged | PongMissing
Outgoing = Request | Ping


@dataclass(frozen=True, slots=True)
class _Question:
    """A ping under way. `number` counts those whose pong says what the exchange has; 0: it is only
    waited for.
    """

    number: int
    asked_us: int


class Conversation:
    """What is said on one connection, from its handshake to its end."""

    def __init__(self, subscriptions: Subscriptions, ping_timeout_s: float) -> None:
        self.answered_s: float | None = None  # when all that was asked for at first was answered
        self._subscriptions = subscriptions
        self._ping_timeout_s = ping_timeout_s
        self._events: list[Event] = []
        self._phase = Phase.IDLE
        self._due_s: float | None = None  # when the phase ends by itself
        self._requests: deque[Request] = deque()
        self._wants_answer = False
        self._asked: list[Stream] = []  # in requests that are not answered yet
        self._frames = 0  # that had come when the last ping was sent
        self._awaited: Ping | None = None  # the ping that the phase waits for
        self._pings = 0
        self._under_way: dict[int, _Question] = {}
        self._delayed_pongs: deque[tuple[float, int]] = deque()  # pongs, and when they count
        self._questions = 0
        self._questions_answered = 0  # sent by the time of the last answer
        self._sent_before: dict[str, int] = {}  # the questions sent before each stream's request
        self._granted_s: dict[str, float] = {}  # when the first answer behind its request came
        self._ambiguous: dict[int, set[str]] = {}  # an error's code → streams it may be about
        self._again: set[str] = set()  # refused, and to be asked for once more
        self._candidates: set[str] = set()  # to be asked for alone
        self._alone = ""  # the stream that is asked for alone just now
        self._reported: set[tuple[str, int]] = set()  # rejections that were said before
        self._has_pongs = True

    # ---- what the owner wants ------------------------------------------------------------------

    def subscribe_all(self) -> None:
        """Ask for everything that was not asked for yet."""
        self._post(self._subscriptions.requests())

    def unsubscribe(self, names: Iterable[str]) -> None:
        """Leave these."""
        gone = list(names)
        requests = self._subscriptions.remove(gone)
        self._forget(gone)
        self._post(requests)

    def subscribe_again(self, names: Iterable[str]) -> None:
        """Subscribe to these once more; the exchange does not send twice for it. What it has
        refused stays refused until it says otherwise.
        """
        known = [each for name in names if (each := self._subscriptions.by_name.get(name))]
        self._again |= {each.stream.name for each in known if each.state is State.REJECTED}
        self._post(grouped(each.stream for each in known if each.state is not State.REJECTED))

    def request_answer(self) -> None:
        """Have the exchange answer: what it was asked for counts as received from then on."""
        self._wants_answer = True

    def suspect(self, name: str) -> None:
        """This stream should have brought a message, or is refused. With the next answer behind a
        request for it, it counts as received again, from then on.
        """
        self._forget([name])
        if (subscription := self._subscriptions.by_name.get(name)) is not None:
            self._events.append(Suspicion(name, subscription.last_message_us))

    # ---- what comes ----------------------------------------------------------------------------

    def state_changed(self, name: str, before: State) -> None:
        """A stream's first message came, or its first in that state."""
        if before is State.REJECTED:  # so the refusal was about another
            self._sent_before[name] = self._questions
            self.request_answer()
        self._events.append(StateChanged(name, before))

    def refused(self, refusal: Refusal, now_s: float) -> None:
        """An error frame came. Signatures are clear, and a code of subscriptions where only one can
        be meant; else each candidate is asked for alone. What was granted a while ago is not meant.
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
        self._wants_answer = True

    def pong(self, payload: bytes, now_s: float) -> None:
        """A pong came: it answers the ping of this payload, and those before it (RFC 6455 5.5.3:
        only the latest of several pings need be answered).
        """
        number = int.from_bytes(payload, "big")
        if len(payload) != PAYLOAD_BYTES or number > self._pings:
            return  # unsolicited: it is no answer to anything
        if self._delayed_pongs or self._would_grant(number):
            self._delayed_pongs.append((now_s + HELD_S, number))
        else:
            self._pong_counts(number, now_s)

    def events(self) -> list[Event]:
        """What has followed from all that since the last call, in order."""
        events, self._events = self._events, []
        return events

    # ---- what to send --------------------------------------------------------------------------

    @property
    def due_s(self) -> float | None:
        """When to ask `to_send` again, though nothing came and nothing was wanted."""
        due_s = [self._due_s] if self._due_s is not None else []
        return min([*due_s, *(due_s for due_s, _ in self._delayed_pongs)], default=None)

    def to_send(self, now_s: float, frames: int, exchange_us: int) -> Outgoing | None:
        """What to send next; None: nothing for now. A ping is under way at once. A request goes to
        `narrowed` when its turn has come, and to `sent` behind that.
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
        """The request as it is to be sent now: without the streams that were left meanwhile."""
        if request.method != "SUBSCRIBE":
            return request
        by_name = self._subscriptions.by_name
        still = tuple(name for name in request.streams if name in by_name)
        self._subscriptions.requested(still, now_s)
        self._asked += [by_name[name].stream for name in still]
        return Request(still, request.private)

    def sent(self, request: Request) -> None:
        """The narrowed request was sent: answers to later questions are about its streams."""
        if request.method == "SUBSCRIBE":
            self._forget(request.streams)
            self._sent_before |= dict.fromkeys(request.streams, self._questions)

    def question(self, exchange_us: int) -> Ping:
        """A ping to send now, whose pong says what the exchange has."""
        self._questions += 1
        return self._new_ping(_Question(self._questions, exchange_us))

    def give_up(self, ping: Ping) -> None:
        """A pong to this ping counts no more."""
        self._under_way.pop(ping.number, None)

    def lives_without_pong(self, frames_before: int, frames: int) -> bool:
        """A ping was not answered in time: have frames come instead?"""
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
                # It is not a question: an error frame may come somewhat behind its pong.
                ping = self._new_ping(_Question(0, exchange_us))
                self._await(Phase.ALONE_ASKING, ping, now_s, frames)
                return ping
        if self._due_s is None or now_s < self._due_s or self._is_answer_delayed():
            return None
        match self._phase:
            case Phase.ASKING | Phase.ALONE_ASKING:
                self._timed_out(now_s, frames)
            case Phase.SETTLING:
                self._choose()
            case Phase.ALONE_SETTLING:
                if self._alone in self._sent_before:  # no error came: it is not refused any more
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
        if not self._wants_answer:
            return None
        if self._requests:
            return self._requests.popleft()
        self._wants_answer = False
        ping = self.question(exchange_us)
        self._await(Phase.ASKING, ping, now_s, frames)
        return ping

    def _await(self, phase: Phase, ping: Ping, now_s: float, frames: int) -> None:
        self._frames, self._awaited = frames, ping
        self._enter(phase, now_s + self._ping_timeout_s)

    def _timed_out(self, now_s: float, frames: int) -> None:
        """What was asked for reaches the exchange before a ping that is sent behind it. Where pings
        stay unanswered and frames come, so much time has passed that it must have; but that all it
        sent has come here is not known.
        """
        assert self._awaited is not None
        question = self._under_way.get(self._awaited.number)
        self.give_up(self._awaited)
        self._awaited = None
        is_alive = self._phase is Phase.ASKING and self.lives_without_pong(self._frames, frames)
        if is_alive and question is not None:
            self._report_answer(question.number, None, now_s)
        self._ping_is_over(now_s, is_answered=is_alive)

    def _ping_is_over(self, now_s: float, *, is_answered: bool) -> None:
        if self._phase is Phase.ALONE_ASKING:  # whether it was answered or not
            self._enter(Phase.ALONE_SETTLING, now_s + STRAY_ERRORS_S)
            return
        asked, self._asked = self._asked, []
        if is_answered:
            self.answered_s = self.answered_s or now_s
            known = tuple(stream for stream in asked if stream.name in self._sent_before)
            self._events.append(Granted(known))
        if self._ambiguous or self._again:
            self._enter(Phase.SETTLING, now_s + SETTLE_S)
        else:
            self._enter(Phase.IDLE, None)

    def _choose(self) -> None:
        """An error frame names no stream: ask for each that it can be about, alone."""
        self._candidates, self._again = self._again, set()
        for code, names in self._ambiguous.items():
            self._candidates |= names.intersection(self._subscriptions.candidates(code))
        self._enter(Phase.CHOOSING, None)

    def _next_alone(self) -> Request | None:
        """The next candidate. Other requests go first, and then the rest of the candidates."""
        names = self._candidates
        while names and not self._requests:
            name = min(names)
            names.discard(name)
            subscription = self._subscriptions.by_name.get(name)
            # one that was left, or that brings messages, needs no asking
            if subscription is not None and subscription.state is not State.CONFIRMED:
                self._alone = name
                self._enter(Phase.ALONE, None)
                return Request((name,), is_private(name))
        self._again |= names
        left = {code: meant & names for code, meant in self._ambiguous.items()}
        self._ambiguous = left if names else {}
        self._candidates = set()
        self._wants_answer = True
        self._enter(Phase.IDLE, None)
        return None

    def _enter(self, phase: Phase, due_s: float | None) -> None:
        self._phase, self._due_s = phase, due_s

    # ---- inside --------------------------------------------------------------------------------

    def _post(self, requests: Iterable[Request]) -> None:
        for request in requests:
            self._requests.extend(request.chunks(SUBSCRIBE_CHUNK))
        self._wants_answer = True

    def _new_ping(self, question: _Question) -> Ping:
        self._pings += 1
        self._under_way[self._pings] = question
        return Ping(self._pings)

    def _forget(self, names: Iterable[str]) -> None:
        """It is not known any more that the exchange has these: no answer is about them before
        they are asked for again.
        """
        for name in names:
            self._sent_before.pop(name, None)
            self._granted_s.pop(name, None)

    def _would_grant(self, number: int) -> bool:
        """Would this pong grant what was not granted yet? An error frame may be right behind it."""
        latest = max(
            (each.number for ping, each in self._under_way.items() if ping <= number), default=0
        )
        return any(
            after < latest and name not in self._granted_s
            for name, after in self._sent_before.items()
        )

    def _pong_counts(self, number: int, now_s: float) -> None:
        for each in sorted(each for each in self._under_way if each <= number):
            self._has_pongs = True
            self._answered(self._under_way.pop(each), now_s)
        if self._awaited is not None and self._awaited.number <= number:
            self._awaited = None
            self._ping_is_over(now_s, is_answered=True)

    def _answered(self, question: _Question, now_s: float) -> None:
        """A pong came. That to a question which was sent before the last answer came says nothing
        of what was received that the last did not: two of them prove no more than one.
        """
        if not question.number:
            return
        is_news = question.number > self._questions_answered
        self._questions_answered = self._questions
        self._report_answer(question.number, question.asked_us if is_news else None, now_s)

    def _report_answer(self, question: int, asked_us: int | None, now_s: float) -> None:
        excluded = [
            name
            for name in self._subscriptions.by_name
            if self._sent_before.get(name, question) >= question
        ]
        self._events.append(Answer(tuple(excluded), asked_us))
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
