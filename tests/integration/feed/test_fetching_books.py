"""A book is requested past every cache, and only while a connection should receive its stream."""

from collections.abc import AsyncIterator
from itertools import count, repeat

import pytest

from bridge.core.outcomes import Join
from bridge.core.wants import BookWanted
from bridge.feed.plan import SubscriptionPlan
from tests.support.eventually import eventually_async
from tests.support.receiving_feed import Subject, receiving_feed, refuses
from tests.support.rest_answers import http
from tests.support.scripted_exchange import ScriptedExchange, scripted_exchange

BOOK, OTHER = "depth.SOL_USDC", "trade.SOL_USDC"
PATH = "/api/v1/depth"
UPDATES = count(9_000_000_000)
UNAVAILABLE = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"


@pytest.fixture
async def exchange(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ScriptedExchange]:
    monkeypatch.setattr("bridge.feed.fetch.QUIET_S", 0.05)
    async with scripted_exchange() as scripted:
        yield scripted


def book(update_id: int) -> bytes:
    body = f'{{"asks":[],"bids":[],"lastUpdateId":"{update_id}","timestamp":1788367430246081}}'
    return http("200 OK", body.encode())


def books(request: str) -> bytes:
    """A book whose update ID rises with each request."""
    if not request.startswith(f"GET {PATH}"):
        return refuses(request)
    return book(next(UPDATES))


async def wants_book(subject: Subject) -> None:
    """Want the book once its stream is received; each reply is ahead of what was received."""
    await eventually_async(lambda: subject.sink.receivers(BOOK), "the stream counts as received")
    subject.sink.outcomes[BOOK] = repeat(Join.AHEAD)
    subject.sink.want(BOOK, BookWanted())
    await eventually_async(lambda: len(subject.requests(PATH)) >= 3, "three requests are sent")


async def is_not_asked_for(subject: Subject) -> None:
    await eventually_async(lambda: not subject.asks_for(BOOK), "no request is running")


async def test_book_of_an_unsubscribed_stream_is_no_longer_requested(
    exchange: ScriptedExchange,
) -> None:
    async with receiving_feed(exchange, SubscriptionPlan((BOOK, OTHER)), books) as subject:
        await wants_book(subject)
        subject.feed.want(SubscriptionPlan((OTHER,)))
        await is_not_asked_for(subject)

        assert BOOK in subject.sink.wanted


async def test_book_is_requested_only_after_its_connection_is_available_again(
    exchange: ScriptedExchange,
) -> None:
    async with receiving_feed(exchange, SubscriptionPlan((BOOK,)), books) as subject:
        await wants_book(subject)
        exchange.handshakes = [UNAVAILABLE] * 1000
        exchange.clients[0].cut()
        await is_not_asked_for(subject)

        exchange.handshakes.clear()
        await eventually_async(
            lambda: subject.sink.receivers(BOOK), "the stream's outage is closed"
        )
        subject.sink.outcomes.clear()
        subject.sink.want(BOOK, BookWanted())
        await eventually_async(
            lambda: BOOK not in subject.sink.wanted, "the book is no longer wanted"
        )


async def test_book_of_a_stream_that_is_not_planned_is_not_requested(
    exchange: ScriptedExchange,
) -> None:
    async with receiving_feed(exchange, SubscriptionPlan((OTHER,)), books) as subject:
        await eventually_async(
            lambda: subject.sink.receivers(OTHER), "the stream counts as received"
        )
        subject.sink.want(BOOK, BookWanted())
        await eventually_async(
            lambda: not subject.sink.requested.is_set(), "the feed has read the request"
        )

        assert not subject.asks_for(BOOK)
        assert subject.requests(PATH) == []


async def test_book_is_requested_past_any_cache(exchange: ScriptedExchange) -> None:
    async with receiving_feed(exchange, SubscriptionPlan((BOOK,)), books) as subject:
        await wants_book(subject)
        requests = subject.requests(PATH)

        assert len(set(requests)) == len(requests)
