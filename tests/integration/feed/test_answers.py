"""A stream counts as received once the exchange has replied to a request made after its
subscription, and not while it is refused.
"""

import json
from collections.abc import AsyncIterator

import pytest
from structlog.testing import capture_logs

from bridge.contract.causes import GapCause
from bridge.contract.streams import parse_stream
from bridge.core.records import Answered
from bridge.protocol.subscriptions import State
from tests.support import frames
from tests.support.eventually import eventually_async
from tests.support.receiving_session import Subject, now_us, receiving_sessions
from tests.support.scripted_exchange import PONG, Client, ScriptedExchange, scripted_exchange

TRADES, LIQUIDATIONS = "trade.BTC_USDC_PERP", "liquidation"
NAMES = [TRADES, LIQUIDATIONS]
UNKNOWN = '{"id":null,"error":{"code":4006,"message":"Invalid stream"}}'
PATIENT = {"ping_interval_s": 20, "ping_timeout_s": 20}  # no periodic requests


def trade(number: int) -> str:
    message = json.loads(frames.TRADE)
    message["data"] |= {"t": number, "T": now_us(), "E": now_us()}
    return json.dumps(message)


def liquidation(at_us: int) -> str:
    message = json.loads(frames.LIQUIDATION)
    message["data"] |= {"T": at_us, "E": at_us}
    return json.dumps(message)


@pytest.fixture
async def exchange() -> AsyncIterator[ScriptedExchange]:
    async with scripted_exchange() as scripted:
        yield scripted


def state(subject: Subject, name: str) -> State:
    connection = subject.session.connection
    return connection.subscriptions.by_name[name].state if connection else State.WANTED


def receivers(subject: Subject, name: str) -> int:
    return subject.sink.receivers(name)


async def begun(exchange: ScriptedExchange, subject: Subject) -> Client:
    """The first client, once trades are confirmed and every request has a reply."""
    await eventually_async(lambda: len(subject.granted) == 2, "both subscriptions are granted")
    client = exchange.clients[0]
    client.send(trade(1))
    await eventually_async(lambda: state(subject, TRADES) is State.CONFIRMED, "trades are received")
    return client


async def test_answer_proves_nothing_about_a_stream_requested_after_its_ping(
    exchange: ScriptedExchange,
) -> None:
    async with receiving_sessions(exchange.url, NAMES, **PATIENT) as subject:
        client, session = await begun(exchange, subject), subject.session
        session.remove([LIQUIDATIONS])
        await eventually_async(
            lambda: client.subscribed == [TRADES], "the other stream is unsubscribed"
        )
        exchange.answers_pings = False
        subject.connection.request_answer()
        await eventually_async(lambda: client.unanswered, "a ping is sent")
        session.add([parse_stream(LIQUIDATIONS)])

        exchange.answers_pings = True
        client.send(client.unanswered[0], PONG)
        client.unanswered.clear()
        exchange.answers_pings = False
        await eventually_async(
            lambda: LIQUIDATIONS in client.subscribed, "the stream is subscribed to"
        )
        await eventually_async(lambda: client.unanswered, "a second ping is sent")
        assert receivers(subject, TRADES) == 1
        assert receivers(subject, LIQUIDATIONS) == 0

        client.send(client.unanswered[0], PONG)
        await eventually_async(
            lambda: receivers(subject, LIQUIDATIONS) == 1, "the stream counts as received"
        )


class Clock:
    """A running clock that a test can move forward."""

    def __init__(self) -> None:
        self.ahead_us = 0

    def __call__(self) -> int:
        return now_us() + self.ahead_us


@pytest.fixture
def clock() -> Clock:
    return Clock()


def answers(subject: Subject) -> list[Answered]:
    return subject.sink.kept(Answered)


async def test_late_answer_claims_nothing_after_its_ping(
    exchange: ScriptedExchange, clock: Clock
) -> None:
    async with receiving_sessions(
        exchange.url, [LIQUIDATIONS], clock_us=clock, **PATIENT
    ) as subject:
        await eventually_async(lambda: subject.granted, "the subscription is granted")
        client = exchange.clients[0]
        exchange.answers_pings = False
        subject.connection.request_answer()
        await eventually_async(lambda: client.unanswered, "a ping is sent")
        pinged_us = clock()
        clock.ahead_us = 15_000_000  # the reply takes 15 s
        client.send(client.unanswered[0], PONG)
        await eventually_async(lambda: len(answers(subject)) == 2, "the pong is received")
        exchange.answers_pings = True
        client.cut()
        await eventually_async(lambda: subject.sink.causes(LIQUIDATIONS), "the outage is over")

        assert answers(subject)[1].pinged_us is not None
        assert answers(subject)[1].pinged_us <= pinged_us < answers(subject)[1].at_us - 14_000_000
        [outage] = subject.sink.outages[LIQUIDATIONS]
        assert outage.from_us <= pinged_us


async def test_second_answer_of_two_pings_sent_at_once_proves_nothing_new(
    exchange: ScriptedExchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Periodic requests have the same interval.
    monkeypatch.setattr("bridge.feed.connection.PROOF_S", 0.2)
    async with receiving_sessions(exchange.url, [LIQUIDATIONS], **PATIENT) as subject:
        await eventually_async(lambda: subject.granted, "the subscription is granted")
        client = exchange.clients[0]
        exchange.answers_pings = False
        subject.connection.request_answer()
        await eventually_async(lambda: len(client.unanswered) >= 2, "both pings are sent")
        known = len(answers(subject))
        client.send(client.unanswered[0], PONG)
        client.send(client.unanswered[1], PONG)
        await eventually_async(
            lambda: len(answers(subject)) >= known + 2, "both pongs are received"
        )

        first, second = answers(subject)[known : known + 2]
        assert not first.is_inferred
        assert second.is_inferred


async def test_missing_answer_claims_nothing_after_the_last_message(
    exchange: ScriptedExchange, clock: Clock
) -> None:
    exchange.answers_pings = False
    patient = PATIENT | {"ping_timeout_s": 2}
    async with receiving_sessions(
        exchange.url, [LIQUIDATIONS], clock_us=clock, **patient
    ) as subject:
        await eventually_async(lambda: exchange.clients, "a client has connected")
        client = exchange.clients[0]
        await eventually_async(lambda: client.pings, "a ping is sent")
        client.send(liquidation(clock()))
        await eventually_async(
            lambda: len(subject.granted) == 1, "the stream is inferred to be received"
        )
        subject.connection.subscribe_again([LIQUIDATIONS])
        await eventually_async(lambda: len(client.pings) == 2, "a second ping is sent")
        client.send(liquidation(clock()))
        await eventually_async(
            lambda: len(subject.sink.messages(LIQUIDATIONS)) == 2, "both messages are received"
        )
        received_us = clock()
        clock.ahead_us = 15_000_000
        await eventually_async(
            lambda: len(subject.granted) == 2, "the second subscription is inferred, too"
        )
        assert all(answer.is_inferred for answer in answers(subject))
        exchange.answers_pings = True
        client.cut()
        await eventually_async(lambda: subject.sink.causes(LIQUIDATIONS), "the outage is over")

        assert subject.sink.outages[LIQUIDATIONS][-1].from_us <= received_us


async def test_refused_stream_does_not_count_as_received_until_it_is_granted(
    exchange: ScriptedExchange,
) -> None:
    async with receiving_sessions(exchange.url, NAMES, **PATIENT) as subject:
        (await begun(exchange, subject)).cut()

        def refuse(client: Client, _: object) -> None:
            client.send(trade(2))
            client.send(UNKNOWN)

        exchange.greet = refuse
        await eventually_async(
            lambda: state(subject, LIQUIDATIONS) is State.REJECTED, "the stream is refused"
        )
        await eventually_async(
            lambda: receivers(subject, TRADES) == 1, "the other stream counts as received"
        )
        assert receivers(subject, LIQUIDATIONS) == 0
        assert subject.sink.causes(LIQUIDATIONS) == []

        exchange.greet = lambda client, _: None
        granted_us = now_us()
        connection = subject.connection
        connection.subscribe_again([LIQUIDATIONS])
        await eventually_async(
            lambda: subject.sink.causes(LIQUIDATIONS), "the stream's outage is closed"
        )
        assert state(subject, LIQUIDATIONS) is State.PENDING
        [outage] = subject.sink.outages[LIQUIDATIONS]
        assert outage.cause is GapCause.CONNECTION_LOST
        assert outage.to_us >= granted_us


async def test_replacement_whose_stream_is_refused_does_not_take_over(
    exchange: ScriptedExchange,
) -> None:
    async with receiving_sessions(exchange.url, NAMES, **PATIENT) as subject:
        old = await begun(exchange, subject)

        def refuse(client: Client, _: object) -> None:
            client.send(trade(2))
            if len(exchange.clients) == 2:
                client.send(UNKNOWN)

        exchange.greet = refuse
        subject.session.replace("a test")
        await eventually_async(lambda: len(exchange.clients) >= 2, "a replacement has connected")
        await eventually_async(lambda: exchange.clients[1].is_gone, "the replacement has closed")
        assert not old.said_goodbye
        assert receivers(subject, LIQUIDATIONS) == 1

        await eventually_async(lambda: old.said_goodbye, "the old connection gets a close frame")
        await eventually_async(
            lambda: exchange.open == exchange.clients[2:3], "only the next replacement is open"
        )
        assert subject.sink.causes(LIQUIDATIONS) == []


async def test_refused_stream_that_brings_a_message_counts_as_received(
    exchange: ScriptedExchange,
) -> None:
    async with receiving_sessions(exchange.url, NAMES, **PATIENT) as subject:
        client = await begun(exchange, subject)
        client.send(UNKNOWN)
        await eventually_async(
            lambda: state(subject, LIQUIDATIONS) is State.REJECTED, "the stream is refused"
        )
        assert receivers(subject, LIQUIDATIONS) == 0
        client.send(frames.LIQUIDATION)

        await eventually_async(
            lambda: receivers(subject, LIQUIDATIONS) == 1, "the stream counts as received"
        )
        assert state(subject, LIQUIDATIONS) is State.CONFIRMED


@pytest.mark.parametrize("code", [4001, 4006])
async def test_late_error_does_not_refuse_an_earlier_granted_stream(
    code: int, exchange: ScriptedExchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge.protocol.conversation.LATEST_ERROR_S", 0)
    async with receiving_sessions(exchange.url, NAMES, **PATIENT) as subject:
        client = await begun(exchange, subject)
        client.send(UNKNOWN.replace("4006", str(code)))
        client.send(trade(2))
        await eventually_async(
            lambda: subject.numbers(TRADES) == [1, 2], "the next message is received"
        )

        assert state(subject, LIQUIDATIONS) is State.PENDING
        assert receivers(subject, LIQUIDATIONS) == 1


async def test_error_that_cannot_be_about_the_stream_requested_alone_refuses_nothing(
    exchange: ScriptedExchange,
) -> None:
    async with receiving_sessions(exchange.url, NAMES, **PATIENT) as subject:
        client = await begun(exchange, subject)
        exchange.greet = lambda client, _: client.send(UNKNOWN.replace("4006", "4008"))
        with capture_logs() as logged:
            client.send(UNKNOWN.replace("4006", "4001"))
            await eventually_async(
                lambda: 4008 in [each.get("code") for each in logged], "the log has another error"
            )
        exchange.greet = lambda client, _: None
        await eventually_async(
            lambda: receivers(subject, LIQUIDATIONS) == 1, "the stream counts as received"
        )

        assert subject.rejected == []
        assert state(subject, LIQUIDATIONS) is State.PENDING


async def test_new_stream_is_requested_before_all_candidates_are_tried_alone(
    exchange: ScriptedExchange,
) -> None:
    quiet = [f"stockPrice.{ticker}" for ticker in "ABCD"]
    async with receiving_sessions(exchange.url, quiet, **PATIENT) as subject:
        await eventually_async(
            lambda: len(subject.granted) == len(quiet), "all subscriptions are granted"
        )
        client = exchange.clients[0]
        client.send(UNKNOWN.replace("4006", "4001"))
        await eventually_async(
            lambda: len(client.requests) == 2, "the first candidate is requested alone"
        )
        subject.session.add([parse_stream(LIQUIDATIONS)])
        await eventually_async(lambda: len(client.requests) == 6, "all candidates are requested")

        parameters = [request["params"] for request in client.requests[1:]]
        assert parameters.index([LIQUIDATIONS]) < len(quiet)
        assert sorted(parameters) == [[LIQUIDATIONS], *([name] for name in quiet)]


async def test_error_of_an_unknown_code_refuses_no_stream_that_was_not_requested_alone(
    exchange: ScriptedExchange,
) -> None:
    async with receiving_sessions(exchange.url, NAMES, **PATIENT) as subject:
        client = await begun(exchange, subject)
        client.send('{"id":null,"error":{"code":4001,"message":"Internal error"}}')
        before = len(client.requests)
        await eventually_async(
            lambda: len(client.requests) > before, "a candidate is requested alone"
        )

        assert client.requests[-1]["params"] == [LIQUIDATIONS]
        assert state(subject, LIQUIDATIONS) is State.PENDING
        assert subject.sink.causes(LIQUIDATIONS) == []
