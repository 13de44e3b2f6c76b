"""A stream counts as listened to once the exchange has answered behind a request for it, and not
while it is refused.
"""

import json
from collections.abc import AsyncIterator

import pytest
from structlog.testing import capture_logs

from bridge.contract.streams import parse_stream
from bridge.protocol.subscriptions import State
from tests.support import frames
from tests.support.eventually import eventually_async
from tests.support.hearing_lane import Ears, hearing_lanes, now_us
from tests.support.scripted_exchange import PONG, Client, ScriptedExchange, scripted_exchange

TRADES, LIQUIDATIONS = "trade.BTC_USDC_PERP", "liquidation"
NAMES = [TRADES, LIQUIDATIONS]
UNKNOWN = '{"id":null,"error":{"code":4006,"message":"Invalid stream"}}'
PATIENT = {"ping_interval_s": 20, "ping_timeout_s": 20}  # nothing asks by itself


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


def state(ears: Ears, name: str) -> State:
    connection = ears.lanes[0].connection
    return connection.subscriptions.by_name[name].state if connection else State.WANTED


def listeners(ears: Ears, name: str) -> int:
    return ears.intake.deafness.listeners(name)


async def begun(exchange: ScriptedExchange, ears: Ears) -> Client:
    """A first connection, on which trades are confirmed and all is answered."""
    await eventually_async(lambda: len(ears.answered) == 2, "it is answered")
    client = exchange.clients[0]
    client.send(trade(1))
    await eventually_async(lambda: state(ears, TRADES) is State.CONFIRMED, "trades are heard")
    return client


async def test_an_answer_says_nothing_of_what_was_asked_for_behind_the_question(
    exchange: ScriptedExchange,
) -> None:
    async with hearing_lanes(exchange.url, NAMES, **PATIENT) as ears:
        client, lane = await begun(exchange, ears), ears.lanes[0]
        lane.remove([LIQUIDATIONS])
        await eventually_async(lambda: client.subscribed == [TRADES], "it is left")
        exchange.answers_pings = False
        assert lane.connection is not None
        lane.connection.have_answer()
        await eventually_async(lambda: client.unanswered, "it is asked")
        lane.add([parse_stream(LIQUIDATIONS)])

        exchange.answers_pings = True
        client.send(client.unanswered[0], PONG)
        client.unanswered.clear()
        exchange.answers_pings = False
        await eventually_async(lambda: LIQUIDATIONS in client.subscribed, "it is subscribed to")
        await eventually_async(lambda: client.unanswered, "it is asked again")
        assert listeners(ears, TRADES) == 1
        assert listeners(ears, LIQUIDATIONS) == 0

        client.send(client.unanswered[0], PONG)
        await eventually_async(lambda: listeners(ears, LIQUIDATIONS) == 1, "it is listened to")


class Clock:
    """Goes on by itself, and further where a test says so."""

    def __init__(self) -> None:
        self.ahead_us = 0

    def __call__(self) -> int:
        return now_us() + self.ahead_us


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("tests.support.hearing_lane.now_us", clock)
    return clock


async def test_an_answer_that_took_long_does_not_claim_what_may_be_behind_it(
    exchange: ScriptedExchange, clock: Clock
) -> None:
    async with hearing_lanes(exchange.url, [LIQUIDATIONS], **PATIENT) as ears:
        await eventually_async(lambda: ears.answered, "it is answered")
        client, connection = exchange.clients[0], ears.lanes[0].connection
        assert connection is not None
        exchange.answers_pings = False
        connection.have_answer()
        await eventually_async(lambda: client.unanswered, "it is asked")
        asked_us = clock()
        clock.ahead_us = 15_000_000  # so long the answer is under way
        client.send(client.unanswered[0], PONG)
        ear = ears.intake.deafness.ears[1]
        await eventually_async(lambda: ear.answers == 2, "the answer is there")
        exchange.answers_pings = True
        client.cut()
        await eventually_async(lambda: ears.gaps(LIQUIDATIONS), "what was missed is marked")

        [gap] = ears.waiting(LIQUIDATIONS)
        assert int(gap["from_us"]) <= asked_us


async def test_two_answers_that_were_asked_for_at_once_prove_no_more_than_one(
    exchange: ScriptedExchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge.feed.connection.PROOF_S", 0.2)  # by itself it asks so soon, too
    async with hearing_lanes(exchange.url, [LIQUIDATIONS], **PATIENT) as ears:
        await eventually_async(lambda: ears.answered, "it is answered")
        client, connection = exchange.clients[0], ears.lanes[0].connection
        assert connection is not None
        exchange.answers_pings = False
        connection.have_answer()
        await eventually_async(lambda: len(client.unanswered) >= 2, "both are asked for")
        ear = ears.intake.deafness.ears[1]
        proven = ear.answers
        client.send(client.unanswered[0], PONG)
        await eventually_async(lambda: ear.answers > proven, "the first is there")
        client.send(client.unanswered[1], PONG)
        client.send(liquidation(now_us()))  # the answer before it is read by then
        await eventually_async(lambda: ears.waiting(LIQUIDATIONS), "what follows is heard")

        assert ear.answers == proven + 1


async def test_where_no_answer_comes_nothing_is_claimed_behind_the_last_message(
    exchange: ScriptedExchange, clock: Clock
) -> None:
    exchange.answers_pings = False
    patient = PATIENT | {"ping_timeout_s": 2}
    async with hearing_lanes(exchange.url, [LIQUIDATIONS], **patient) as ears:
        await eventually_async(lambda: exchange.clients, "it is connected")
        client = exchange.clients[0]
        await eventually_async(lambda: client.pings, "it is asked")
        client.send(liquidation(clock()))
        await eventually_async(lambda: len(ears.answered) == 1, "it is taken to listen")
        connection = ears.lanes[0].connection
        assert connection is not None
        connection.ask_again([LIQUIDATIONS])
        await eventually_async(lambda: len(client.pings) == 2, "it is asked again")
        client.send(liquidation(clock()))
        await eventually_async(lambda: len(ears.waiting(LIQUIDATIONS)) == 2, "both are heard")
        heard_us = clock()
        clock.ahead_us = 15_000_000
        await eventually_async(lambda: len(ears.answered) == 2, "it is taken to listen still")
        exchange.answers_pings = True
        client.cut()
        await eventually_async(lambda: ears.gaps(LIQUIDATIONS), "what was missed is marked")

        gap = ears.waiting(LIQUIDATIONS)[-1]
        assert int(gap["from_us"]) <= heard_us


async def test_what_is_refused_is_not_listened_to_until_it_is_granted(
    exchange: ScriptedExchange,
) -> None:
    async with hearing_lanes(exchange.url, NAMES, **PATIENT) as ears:
        (await begun(exchange, ears)).cut()

        def refuse(client: Client, _: object) -> None:
            client.send(trade(2))
            client.send(UNKNOWN)

        exchange.greet = refuse
        await eventually_async(lambda: state(ears, LIQUIDATIONS) is State.REJECTED, "it is refused")
        await eventually_async(lambda: listeners(ears, TRADES) == 1, "the other goes on")
        assert listeners(ears, LIQUIDATIONS) == 0
        assert ears.gaps(LIQUIDATIONS) == []

        exchange.greet = lambda client, _: None
        granted_us = now_us()
        connection = ears.lanes[0].connection
        assert connection is not None
        connection.ask_again([LIQUIDATIONS])
        await eventually_async(lambda: ears.gaps(LIQUIDATIONS), "it is listened to again")
        assert state(ears, LIQUIDATIONS) is State.PENDING
        [gap] = ears.waiting(LIQUIDATIONS)
        assert gap["cause"] == "connection lost"
        assert int(gap["to_us"]) >= granted_us


async def test_a_replacement_that_is_refused_what_the_old_one_hears_does_not_take_over(
    exchange: ScriptedExchange,
) -> None:
    async with hearing_lanes(exchange.url, NAMES, **PATIENT) as ears:
        old = await begun(exchange, ears)

        def refuse(client: Client, _: object) -> None:
            client.send(trade(2))
            if len(exchange.clients) == 2:
                client.send(UNKNOWN)

        exchange.greet = refuse
        ears.lanes[0].renew("a test")
        await eventually_async(lambda: len(exchange.clients) == 2, "there is a replacement")
        await eventually_async(lambda: exchange.clients[1].is_gone, "it goes")
        assert not old.said_goodbye
        assert listeners(ears, LIQUIDATIONS) == 1

        await eventually_async(lambda: old.said_goodbye, "the next one takes over")
        await eventually_async(lambda: exchange.open == exchange.clients[2:3], "and is alone")
        assert ears.gaps(LIQUIDATIONS) == []


async def test_what_was_called_refused_and_speaks_is_listened_to(
    exchange: ScriptedExchange,
) -> None:
    async with hearing_lanes(exchange.url, NAMES, **PATIENT) as ears:
        client = await begun(exchange, ears)
        client.send(UNKNOWN)
        await eventually_async(lambda: state(ears, LIQUIDATIONS) is State.REJECTED, "it is refused")
        assert listeners(ears, LIQUIDATIONS) == 0
        client.send(frames.LIQUIDATION)

        await eventually_async(lambda: listeners(ears, LIQUIDATIONS) == 1, "it is listened to")
        assert state(ears, LIQUIDATIONS) is State.CONFIRMED


@pytest.mark.parametrize("code", [4001, 4006])
async def test_an_error_of_later_is_not_about_what_was_granted_before(
    code: int, exchange: ScriptedExchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge.feed.talk.STRAY_ERRORS_US", 0)
    async with hearing_lanes(exchange.url, NAMES, **PATIENT) as ears:
        client = await begun(exchange, ears)
        client.send(UNKNOWN.replace("4006", str(code)))
        client.send(trade(2))
        await eventually_async(lambda: ears.numbers(TRADES) == [1, 2], "what follows is heard")

        assert state(ears, LIQUIDATIONS) is State.PENDING
        assert listeners(ears, LIQUIDATIONS) == 1


async def test_an_error_that_cannot_be_about_what_is_asked_for_alone_refuses_nothing(
    exchange: ScriptedExchange,
) -> None:
    async with hearing_lanes(exchange.url, NAMES, **PATIENT) as ears:
        client = await begun(exchange, ears)
        exchange.greet = lambda client, _: client.send(UNKNOWN.replace("4006", "4008"))
        with capture_logs() as said:
            client.send(UNKNOWN.replace("4006", "4001"))
            await eventually_async(
                lambda: 4008 in [each.get("code") for each in said], "there is another error"
            )
        exchange.greet = lambda client, _: None
        await eventually_async(lambda: listeners(ears, LIQUIDATIONS) == 1, "it is listened to")

        assert ears.rejected == []
        assert state(ears, LIQUIDATIONS) is State.PENDING


async def test_what_is_to_be_heard_meanwhile_does_not_wait_until_each_was_asked_for_alone(
    exchange: ScriptedExchange,
) -> None:
    quiet = [f"stockPrice.{ticker}" for ticker in "ABCD"]
    async with hearing_lanes(exchange.url, quiet, **PATIENT) as ears:
        await eventually_async(lambda: len(ears.answered) == len(quiet), "it is answered")
        client = exchange.clients[0]
        client.send(UNKNOWN.replace("4006", "4001"))
        await eventually_async(lambda: len(client.requests) == 2, "the first is asked for alone")
        ears.lanes[0].add([parse_stream(LIQUIDATIONS)])
        await eventually_async(lambda: len(client.requests) == 6, "all are asked for")

        asked = [request["params"] for request in client.requests[1:]]
        assert asked.index([LIQUIDATIONS]) < len(quiet)
        assert sorted(asked) == [[LIQUIDATIONS], *([name] for name in quiet)]


async def test_an_error_that_speaks_of_no_subscription_refuses_none_unasked(
    exchange: ScriptedExchange,
) -> None:
    async with hearing_lanes(exchange.url, NAMES, **PATIENT) as ears:
        client = await begun(exchange, ears)
        client.send('{"id":null,"error":{"code":4001,"message":"Internal error"}}')
        asked = len(client.requests)
        await eventually_async(lambda: len(client.requests) > asked, "it is asked for alone")

        assert client.requests[-1]["params"] == [LIQUIDATIONS]
        assert state(ears, LIQUIDATIONS) is State.PENDING
        assert ears.gaps(LIQUIDATIONS) == []
