"""A book is asked for while a connection is to hear it, past any cache, and not any longer."""

from collections.abc import AsyncIterator, Iterable
from itertools import count

import pytest

from bridge.feed.wanted import Wanted
from tests.support import frames
from tests.support.eventually import eventually_async
from tests.support.hearing_feed import Subject, hearing_feed, refuses
from tests.support.rest_answers import http
from tests.support.scripted_exchange import Client, ScriptedExchange, scripted_exchange

BOOK, OTHER = "depth.SOL_USDC", "trade.SOL_USDC"
PATH = "/api/v1/depth"
AHEAD = count(9_000_000_000)
AWAY = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"


@pytest.fixture
async def exchange(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ScriptedExchange]:
    monkeypatch.setattr("bridge.feed.snapshots.QUIET_S", 0.05)
    async with scripted_exchange() as scripted:
        yield scripted


def book(update_id: int) -> bytes:
    body = f'{{"asks":[],"bids":[],"lastUpdateId":"{update_id}","timestamp":1788367430246081}}'
    return http("200 OK", body.encode())


def ahead(request: str) -> bytes:
    """A book that is ahead of anything that was heard, and moves."""
    if not request.startswith(f"GET {PATH}"):
        return refuses(request)
    return book(next(AHEAD))


async def is_asked_for(subject: Subject) -> None:
    await eventually_async(lambda: len(subject.asked(PATH)) >= 3, "it is asked for again and again")


async def is_not_asked_for(subject: Subject) -> None:
    await eventually_async(lambda: not subject.asks_for(BOOK), "nothing is asked any more")


async def test_a_book_of_a_stream_that_was_left_is_not_asked_for_any_more(
    exchange: ScriptedExchange,
) -> None:
    async with hearing_feed(exchange, Wanted((BOOK, OTHER)), ahead) as subject:
        await is_asked_for(subject)
        subject.feed.want(Wanted((OTHER,)))
        await is_not_asked_for(subject)

        assert not subject.intake.lines[BOOK].pending


async def test_while_the_connection_is_away_its_books_are_not_asked_for_and_then_they_are(
    exchange: ScriptedExchange,
) -> None:
    answers = [ahead]
    async with hearing_feed(exchange, Wanted((BOOK,)), lambda line: answers[-1](line)) as subject:
        await is_asked_for(subject)
        exchange.handshakes = [AWAY] * 1000
        exchange.clients[0].cut()
        await is_not_asked_for(subject)

        def greet(client: Client, names: Iterable[str]) -> None:
            client.send(frames.DEPTH)

        exchange.greet = greet
        answers.append(lambda line: book(4_330_360_995))
        exchange.handshakes.clear()
        await eventually_async(lambda: subject.intake.listeners(BOOK), "it is heard again")
        await eventually_async(lambda: not subject.intake.misses_book(BOOK), "and its book known")


async def test_a_book_is_asked_for_past_any_cache(exchange: ScriptedExchange) -> None:
    async with hearing_feed(exchange, Wanted((BOOK,)), ahead) as subject:
        await is_asked_for(subject)
        asked = subject.asked(PATH)

        assert len(set(asked)) == len(asked)
