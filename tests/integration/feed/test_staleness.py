"""A stream without expected messages is found, and its connection is replaced."""

import json
from collections.abc import AsyncIterator, Iterable

import pytest
from structlog.testing import capture_logs

from bridge.core.records import Suspected
from bridge.feed.plan import SubscriptionPlan
from tests.support import frames
from tests.support.eventually import eventually_async
from tests.support.receiving_feed import receiving_feed, refuses
from tests.support.receiving_session import now_us
from tests.support.rest_answers import http
from tests.support.scripted_exchange import Client, ScriptedExchange, scripted_exchange

TICKERS, BOOK, LIQUIDATIONS = "ticker.BTC_USDC_PERP", "depth.SOL_USDC", "liquidation"
QUICK = {"silence_s": 1, "ping_interval_s": 20, "ping_timeout_s": 20}


@pytest.fixture
async def exchange() -> AsyncIterator[ScriptedExchange]:
    async with scripted_exchange() as scripted:
        yield scripted


def tick(client: Client, names: Iterable[str]) -> None:
    message = json.loads(frames.TICKER)
    message["data"]["E"] = now_us()
    client.send(json.dumps(message))


async def test_periodic_stream_without_messages_is_suspected_reported_and_replaced(
    exchange: ScriptedExchange,
) -> None:
    with capture_logs() as logged:
        plan = SubscriptionPlan((TICKERS, LIQUIDATIONS))
        async with receiving_feed(exchange, plan, refuses, **QUICK) as subject:
            await eventually_async(lambda: subject.feed.troubles(), "the stream is reported", 30)
            assert subject.feed.status()[0]["stale"].keys() == {TICKERS}
            assert {each.stream for each in subject.sink.kept(Suspected)} == {TICKERS}
            assert "and it is periodic" in subject.feed.troubles()[TICKERS]

            exchange.greet = tick
            await eventually_async(
                lambda: len(exchange.clients) == 2, "the connection is replaced", 30
            )
            await eventually_async(lambda: not subject.feed.troubles(), "no stream is reported", 30)
    events = [each["event"] for each in logged]
    assert events.index("stream_stale") < events.index("stream_received_again")


def moving_book(request: str) -> bytes:
    """REST replies in which the book changes at each request."""
    if not request.startswith("GET /api/v1/depth"):
        return refuses(request)
    body = {"asks": [], "bids": [], "lastUpdateId": str(now_us()), "timestamp": now_us()}
    return http("200 OK", json.dumps(body).encode())


async def test_book_that_changed_over_rest_is_stale_without_messages(
    exchange: ScriptedExchange,
) -> None:
    plan = SubscriptionPlan((BOOK,))
    async with receiving_feed(exchange, plan, moving_book, **QUICK) as subject:
        await eventually_async(lambda: subject.feed.troubles(), "the stream is reported", 30)
        assert "REST has news of it" in subject.feed.troubles()[BOOK]


def resting_book(request: str) -> bytes:
    if not request.startswith("GET /api/v1/depth"):
        return refuses(request)
    body = {"asks": [], "bids": [], "lastUpdateId": "7", "timestamp": now_us()}
    return http("200 OK", json.dumps(body).encode())


async def test_unchanged_book_is_probed_later_and_is_not_stale(
    exchange: ScriptedExchange,
) -> None:
    plan = SubscriptionPlan((BOOK,))
    async with receiving_feed(exchange, plan, resting_book, **QUICK) as subject:
        await eventually_async(
            lambda: len(subject.requests("/api/v1/depth")) >= 4,
            "the book is requested twice for each of two probes",
            30,
        )
        assert subject.feed.troubles() == {}
        assert subject.sink.kept(Suspected) == []
        assert len(exchange.clients) == 1


async def test_refused_stream_is_requested_again_until_it_is_granted(
    exchange: ScriptedExchange,
) -> None:
    def refuse(client: Client, names: Iterable[str]) -> None:
        client.send(frames.ERROR_INVALID_STREAM)

    exchange.greet = refuse
    plan = SubscriptionPlan(("stockPrice.NVDA",))
    async with receiving_feed(exchange, plan, refuses, **QUICK) as subject:
        await eventually_async(lambda: subject.feed.troubles(), "the refusal is reported")
        exchange.greet = lambda client, names: None
        await eventually_async(lambda: not subject.feed.troubles(), "no stream is reported", 30)
