"""The subscription protocol without sockets: requests sent, and the meaning of replies."""

from collections.abc import Iterable

import pytest

from bridge.contract.streams import parse_stream
from bridge.protocol.conversation import (
    HELD_S,
    LATEST_ERROR_S,
    SETTLE_S,
    STRAY_ERRORS_S,
    Answer,
    Conversation,
    Event,
    Granted,
    Ping,
    PongMissing,
    Rejection,
    StateChanged,
    Suspicion,
)
from bridge.protocol.envelope import Refusal
from bridge.protocol.subscriptions import Request, State, Subscriptions

TRADES, LIQUIDATIONS, ORDERS = "trade.SOL_USDC", "liquidation", "account.orderUpdate"
EXCHANGE_US = 1_790_915_531_000_000
TIMEOUT_S = 10.0
UNKNOWN, STRANGE = Refusal(4006, "Invalid stream"), Refusal(4001, "?")


class Subject:
    """A conversation with a manual clock."""

    def __init__(self, names: Iterable[str] = (TRADES, LIQUIDATIONS)) -> None:
        self.subscriptions = Subscriptions([parse_stream(name) for name in names])
        self.conversation = Conversation(self.subscriptions, TIMEOUT_S)
        self.now_s = 100.0
        self.frames = 0
        self.pings: list[Ping] = []
        self._requests: list[tuple[str, ...]] = []  # sent by pong(), not returned yet

    def send(self) -> list[tuple[str, ...]]:
        """Send everything that is due; return the streams of each request."""
        requests, self._requests = self._requests, []
        while outgoing := self.conversation.to_send(self.now_s, self.frames, EXCHANGE_US):
            if isinstance(outgoing, Ping):
                self.pings.append(outgoing)
                continue
            request = self.conversation.narrowed(outgoing, self.now_s)
            self.conversation.sent(request)
            requests.append(request.streams)
        return requests

    def later(self, seconds: float) -> list[tuple[str, ...]]:
        self.now_s += seconds
        return self.send()

    def pong(self, ping: Ping | None = None) -> list[Event]:
        """Receive a pong, let the time pass until it counts, and return the events."""
        self.conversation.pong((ping or self.pings[-1]).payload, self.now_s)
        self._requests = self.later(HELD_S)
        return self.conversation.events()

    def receive(self, name: str) -> None:
        self.frames += 1
        before = self.subscriptions.received(name, self.now_s, EXCHANGE_US)
        if before is not None:
            self.conversation.state_changed(name, before)

    def refuse(self, refusal: Refusal) -> list[Event]:
        self.frames += 1
        self.conversation.refused(refusal, self.now_s)
        return self.conversation.events()

    def begin(self) -> "Subject":
        """Send all requests and receive the answer; returns the subject."""
        self.conversation.subscribe_all()
        self.send()
        self.pong()
        return self

    def state(self, name: str) -> State:
        return self.subscriptions.by_name[name].state


def granted(*names: str) -> Granted:
    return Granted(tuple(parse_stream(name) for name in names))


def test_conversation_requests_everything_and_then_pings() -> None:
    subject = Subject()
    subject.conversation.subscribe_all()

    assert subject.send() == [(TRADES,), (LIQUIDATIONS,)]
    assert len(subject.pings) == 1
    assert subject.conversation.due_s == subject.now_s + TIMEOUT_S
    assert subject.conversation.events() == []
    assert subject.conversation.answered_s is None


def test_pong_grants_what_was_requested_before_its_ping() -> None:
    subject = Subject()
    subject.conversation.subscribe_all()
    subject.send()
    subject.now_s += 1

    assert subject.pong() == [Answer((), EXCHANGE_US), granted(TRADES, LIQUIDATIONS)]
    assert subject.conversation.answered_s == subject.now_s
    assert subject.conversation.due_s is None
    assert subject.send() == []


def test_pong_proves_nothing_of_what_was_requested_behind_its_ping() -> None:
    subject = Subject([TRADES]).begin()
    ping = subject.conversation.confirming_ping(EXCHANGE_US)
    subject.subscriptions.add([parse_stream(LIQUIDATIONS)])
    subject.conversation.subscribe_all()
    subject.send()

    assert subject.pong(ping) == [Answer((LIQUIDATIONS,), EXCHANGE_US)]
    # the ping is older than the answer: its pong grants the stream, but proves no later reception
    assert subject.pong() == [Answer((), None), granted(LIQUIDATIONS)]


def test_pong_answers_the_pings_before_it_and_only_the_first_answer_is_news() -> None:
    subject = Subject().begin()
    subject.conversation.confirming_ping(EXCHANGE_US)
    latest = subject.conversation.confirming_ping(EXCHANGE_US + 5)

    assert subject.pong(latest) == [Answer((), EXCHANGE_US), Answer((), None)]
    assert subject.pong(latest) == []


@pytest.mark.parametrize("payload", [b"", b"\x00\x00\x00\x01", b"\xff" * 8, b"x" * 9])
def test_unsolicited_pong_means_nothing(payload: bytes) -> None:
    subject = Subject()
    subject.conversation.subscribe_all()
    subject.send()
    subject.conversation.pong(payload, subject.now_s)

    assert subject.conversation.events() == []


def test_ping_that_is_not_answered_while_frames_come_is_an_inferred_answer() -> None:
    subject = Subject()
    subject.conversation.subscribe_all()
    subject.send()
    subject.frames += 1
    subject.later(TIMEOUT_S)

    assert subject.conversation.events() == [
        PongMissing(),
        Answer((), None),
        granted(TRADES, LIQUIDATIONS),
    ]


def test_error_right_behind_a_pong_counts_before_it() -> None:
    subject = Subject([TRADES, ORDERS])
    subject.conversation.subscribe_all()
    subject.send()
    subject.conversation.pong(subject.pings[-1].payload, subject.now_s)
    assert subject.conversation.events() == []
    assert subject.conversation.due_s == subject.now_s + HELD_S
    subject.refuse(Refusal(4003, "Invalid signature"))

    subject.later(HELD_S)
    assert subject.conversation.events() == [Answer((ORDERS,), EXCHANGE_US), granted(TRADES)]


def test_pong_that_grants_nothing_new_counts_at_once() -> None:
    subject = Subject().begin()
    ping = subject.conversation.confirming_ping(EXCHANGE_US)
    subject.conversation.pong(ping.payload, subject.now_s)

    assert subject.conversation.events() == [Answer((), EXCHANGE_US)]


def test_ping_whose_pong_is_held_does_not_time_out() -> None:
    subject = Subject()
    subject.conversation.subscribe_all()
    subject.send()
    subject.now_s += TIMEOUT_S - HELD_S / 2
    subject.conversation.pong(subject.pings[-1].payload, subject.now_s)
    subject.frames += 1

    subject.later(HELD_S / 2)
    assert subject.conversation.events() == []
    subject.later(HELD_S / 2)
    assert subject.conversation.events() == [
        Answer((), EXCHANGE_US),
        granted(TRADES, LIQUIDATIONS),
    ]


def test_missing_pong_is_reported_once_until_one_comes() -> None:
    subject = Subject().begin()
    assert subject.conversation.lives_without_pong(0, 1)
    assert subject.conversation.lives_without_pong(1, 2)
    assert subject.conversation.events() == [PongMissing()]

    subject.pong(subject.conversation.confirming_ping(EXCHANGE_US))
    assert subject.conversation.lives_without_pong(2, 3)
    assert subject.conversation.events() == [PongMissing()]
    assert not subject.conversation.lives_without_pong(3, 3)


def test_ping_that_is_not_answered_while_nothing_comes_grants_nothing() -> None:
    subject = Subject()
    subject.conversation.subscribe_all()
    subject.send()
    subject.later(TIMEOUT_S)

    assert subject.conversation.events() == []
    assert subject.pong(subject.pings[0]) == []  # too late


def test_requests_of_a_ping_that_nothing_answered_are_granted_by_the_next_one() -> None:
    subject = Subject()
    subject.conversation.subscribe_all()
    subject.send()
    subject.later(TIMEOUT_S)
    subject.later(TIMEOUT_S)
    assert len(subject.pings) == 3  # each follows directly

    subject.frames += 1  # the exchange goes on
    assert subject.pong() == [Answer((), EXCHANGE_US), granted(TRADES, LIQUIDATIONS)]
    assert subject.conversation.answered_s == subject.now_s
    assert subject.conversation.due_s is None


def test_ping_that_was_given_up_is_not_answered_by_its_pong() -> None:
    subject = Subject().begin()
    ping = subject.conversation.confirming_ping(EXCHANGE_US)
    subject.conversation.give_up(ping)

    assert subject.pong(ping) == []


def test_stream_that_was_left_before_its_request_was_sent_is_not_requested() -> None:
    subject = Subject()
    subject.conversation.subscribe_all()
    request = subject.conversation.to_send(subject.now_s, 0, EXCHANGE_US)
    assert isinstance(request, Request)
    subject.subscriptions.remove([TRADES])

    assert subject.conversation.narrowed(request, subject.now_s).streams == ()


def test_stream_that_is_left_is_unsubscribed_from_and_no_answer_is_about_it() -> None:
    subject = Subject().begin()
    subject.conversation.unsubscribe([LIQUIDATIONS])

    assert subject.send() == [(LIQUIDATIONS,)]
    assert subject.subscriptions.names() == [TRADES]
    assert subject.pong() == [Answer((), EXCHANGE_US), granted()]


def test_suspected_stream_counts_from_the_next_answer_behind_a_request_for_it() -> None:
    subject = Subject().begin()
    subject.receive(TRADES)
    subject.conversation.events()

    subject.conversation.suspect(TRADES)
    subject.conversation.suspect("gone")
    assert subject.conversation.events() == [Suspicion(TRADES, EXCHANGE_US)]
    assert subject.pong(subject.conversation.confirming_ping(EXCHANGE_US)) == [
        Answer((TRADES,), EXCHANGE_US)
    ]
    subject.conversation.subscribe_again([TRADES, "gone"])
    assert subject.send() == [(TRADES,)]
    assert subject.pong() == [Answer((), EXCHANGE_US), granted(TRADES)]


def test_first_message_of_a_stream_is_reported() -> None:
    subject = Subject().begin()
    subject.receive(TRADES)
    subject.receive(TRADES)

    assert subject.conversation.events() == [StateChanged(TRADES, State.PENDING)]


def test_error_that_can_mean_only_one_stream_rejects_it() -> None:
    subject = Subject().begin()
    subject.receive(TRADES)
    subject.conversation.events()

    assert subject.refuse(UNKNOWN) == [
        Suspicion(LIQUIDATIONS, None),
        Rejection((LIQUIDATIONS,), 4006, "Invalid stream", (LIQUIDATIONS,)),
    ]
    assert subject.state(LIQUIDATIONS) is State.REJECTED
    assert subject.pong(subject.conversation.confirming_ping(EXCHANGE_US)) == [
        Answer((LIQUIDATIONS,), EXCHANGE_US)
    ]


def test_bad_signature_rejects_all_private_streams_at_once() -> None:
    names = [ORDERS, "account.positionUpdate"]
    subject = Subject([TRADES, *names]).begin()

    [*_, rejection] = subject.refuse(Refusal(4003, "Invalid signature"))
    assert rejection == Rejection(tuple(names), 4003, "Invalid signature", tuple(names))


def test_error_long_after_the_grant_is_not_about_it() -> None:
    subject = Subject().begin()
    subject.receive(TRADES)
    subject.conversation.events()
    subject.now_s += LATEST_ERROR_S + 1

    assert subject.refuse(UNKNOWN) == [UNKNOWN]
    assert subject.state(LIQUIDATIONS) is State.PENDING


def test_rejected_stream_that_brings_a_message_counts_from_the_next_answer() -> None:
    subject = Subject().begin()
    subject.receive(TRADES)
    subject.refuse(UNKNOWN)
    subject.conversation.events()

    subject.receive(LIQUIDATIONS)
    assert subject.conversation.events() == [StateChanged(LIQUIDATIONS, State.REJECTED)]
    subject.send()
    assert subject.pong() == [Answer((), EXCHANGE_US), granted()]


def test_error_that_can_mean_several_has_each_requested_alone() -> None:
    subject = Subject().begin()
    assert subject.refuse(STRANGE) == [STRANGE]
    assert subject.refuse(STRANGE) == []  # an error is reported once
    assert subject.send() == []
    subject.pong()

    assert subject.later(SETTLE_S) == [(LIQUIDATIONS,)]
    assert subject.refuse(UNKNOWN)[-1] == Rejection(
        (LIQUIDATIONS,), 4006, "Invalid stream", (LIQUIDATIONS,)
    )
    subject.pong()
    assert subject.later(STRAY_ERRORS_S) == [(TRADES,)]
    assert subject.pong() == []  # an error may follow the pong
    assert subject.later(STRAY_ERRORS_S) == []
    assert subject.pong() == [Answer((LIQUIDATIONS,), EXCHANGE_US), granted(TRADES)]
    assert subject.state(TRADES) is State.PENDING


def test_stream_requested_alone_is_settled_though_no_pong_comes() -> None:
    subject = Subject([LIQUIDATIONS]).begin()
    subject.refuse(STRANGE)
    subject.send()
    subject.pong()
    subject.later(SETTLE_S)
    pings = len(subject.pings)

    subject.later(TIMEOUT_S)
    subject.later(STRAY_ERRORS_S)
    assert len(subject.pings) == pings + 1  # the ping for the next candidate


def test_error_that_cannot_be_about_the_stream_requested_alone_rejects_nothing() -> None:
    subject = Subject([LIQUIDATIONS]).begin()
    subject.refuse(STRANGE)
    subject.send()
    subject.pong()
    subject.later(SETTLE_S)

    window = Refusal(4008, "Invalid depth window")
    assert subject.refuse(window) == [window]
    assert subject.state(LIQUIDATIONS) is State.PENDING


def test_stream_whose_messages_come_meanwhile_is_not_requested_alone() -> None:
    subject = Subject().begin()
    subject.refuse(STRANGE)
    subject.send()
    subject.pong()
    subject.receive(TRADES)
    subject.conversation.unsubscribe([LIQUIDATIONS])
    subject.send()

    # it is unsubscribed, and no stream is requested alone
    assert subject.later(SETTLE_S) == [(LIQUIDATIONS,)]


def test_other_requests_go_before_the_candidates_that_are_left() -> None:
    names = [f"stockPrice.{ticker}" for ticker in "AB"]
    subject = Subject(names).begin()
    subject.refuse(STRANGE)
    subject.send()
    subject.pong()
    assert subject.later(SETTLE_S) == [("stockPrice.A",)]
    subject.subscriptions.add([parse_stream(LIQUIDATIONS)])
    subject.conversation.subscribe_all()
    subject.pong()

    assert subject.later(STRAY_ERRORS_S) == [(LIQUIDATIONS,)]
    subject.pong()
    assert subject.later(SETTLE_S) == [("stockPrice.B",)]


def test_rejected_stream_that_is_requested_again_without_an_error_is_pending() -> None:
    subject = Subject().begin()
    subject.receive(TRADES)
    subject.refuse(UNKNOWN)
    subject.conversation.subscribe_again([LIQUIDATIONS])
    assert subject.send() == []
    subject.pong()
    assert subject.later(SETTLE_S) == [(LIQUIDATIONS,)]
    subject.pong()
    subject.later(STRAY_ERRORS_S)

    assert subject.state(LIQUIDATIONS) is State.PENDING
    assert subject.pong() == [Answer((), EXCHANGE_US), granted(LIQUIDATIONS)]


def test_rejection_of_the_same_kind_is_no_news_a_second_time() -> None:
    subject = Subject().begin()
    subject.receive(TRADES)
    subject.refuse(UNKNOWN)
    subject.conversation.subscribe_again([LIQUIDATIONS])
    subject.send()
    subject.pong()
    subject.later(SETTLE_S)

    [*_, rejection] = subject.refuse(UNKNOWN)
    assert rejection == Rejection((LIQUIDATIONS,), 4006, "Invalid stream", ())


def test_request_of_many_names_is_sent_in_chunks() -> None:
    subject = Subject([f"trade.M{number}_USDC" for number in range(250)])
    subject.conversation.subscribe_all()

    assert [len(streams) for streams in subject.send()] == [100, 100, 50]
