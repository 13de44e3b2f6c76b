"""REST requests of the sink are repeated until they succeed, and a refusal is logged once."""

import asyncio
import json
from collections.abc import Callable, Iterable
from itertools import chain, repeat
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from structlog.testing import capture_logs

from bridge.contract.causes import GapCause
from bridge.contract.streams import parse_stream
from bridge.core.outcomes import Join, Reach
from bridge.core.records import BodyKind, Lost, RestBody, Subscribed
from bridge.core.wants import BookWanted, FillsWanted, TradesWanted
from bridge.feed import fetch as fetch_module
from tests.support.eventually import eventually_async
from tests.support.fetching import Fetching, fetching
from tests.support.receiving_session import now_us
from tests.support.recording_sink import RecordingSink
from tests.support.rest_answers import http

TRADES, BOOK, ORDERS = "trade.BTC_USDC_PERP", "depth.SOL_USDC", "account.orderUpdate"
NAMES = (TRADES, BOOK, ORDERS)
FORBIDDEN = http("403 Forbidden", b"<html>firewall, ray 4711</html>")
BAD = http("400 Bad Request", b'{"code":"INVALID_SYMBOL","message":"no"}')
EMPTY = http("200 OK", b"[]")
BODY = b'{"asks":[],"bids":[],"lastUpdateId":"4330360995","timestamp":1788367430246081}'


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.feed.fetch.BACKOFF_S", (0.01, 0.02))
    monkeypatch.setattr("bridge.feed.fetch.REFUSED_BACKOFF_S", (0.01, 0.02))


def refused_at_first(body: bytes, refusal: bytes = FORBIDDEN) -> Callable[[int], bytes]:
    return lambda number: refusal if number <= 3 else http("200 OK", body)


def delays_logged(logged: Iterable[dict[str, Any]], event: str) -> list[object]:
    return [each["again_s"] for each in logged if each["event"] == event]


def history(*numbers: int) -> bytes:
    row = {"isBuyerMaker": False, "price": "86642.9", "quantity": "0.07206"}
    return json.dumps([row | {"id": n, "timestamp": now_us() // 1000} for n in numbers]).encode()


def kinds(sink: RecordingSink, name: str) -> list[BodyKind]:
    return [body.kind for body in sink.kept(RestBody) if body.stream == name]


async def is_had(subject: Fetching, name: str) -> None:
    await eventually_async(lambda: name not in subject.sink.wanted, "the data is no longer wanted")


def requested(subject: Fetching, part: str) -> list[dict[str, str]]:
    """The parameters of each request whose path contains `part`."""
    lines = [urlsplit(line.split()[1]) for line in subject.server.request_lines]
    found = [parse_qs(line.query) for line in lines if part in line.path]
    return [{name: value for name, [value] in each.items()} for each in found]


async def test_fetch_trades_blocked_by_a_firewall_are_received_later() -> None:
    with capture_logs() as logged:
        async with fetching(
            RecordingSink(), NAMES, refused_at_first(history(4, 3, 2, 1))
        ) as subject:
            subject.sink.want(TRADES, TradesWanted(back=3))
            await is_had(subject, TRADES)

    [body] = subject.sink.kept(RestBody)
    assert (body.stream, body.kind) == (TRADES, BodyKind.MAIN)
    assert [row["id"] for row in json.loads(body.body)] == [4, 3, 2, 1]
    assert len(delays_logged(logged, "history_refused")) == 1


async def test_fetch_trades_refused_by_the_exchange_ends_at_once() -> None:
    async with fetching(RecordingSink(), NAMES, lambda _: BAD) as subject:
        subject.sink.want(TRADES, TradesWanted(back=3))
        await is_had(subject, TRADES)

        assert len(subject.server.request_lines) == 1
    assert kinds(subject.sink, TRADES) == [BodyKind.END]


async def test_fetch_trades_requests_overlapping_pages_until_complete() -> None:
    sink = RecordingSink()
    sink.outcomes[TRADES] = chain([Reach.DEEPER, Reach.DEEPER], repeat(Reach.DONE))
    async with fetching(sink, NAMES, lambda _: EMPTY) as subject:
        sink.want(TRADES, TradesWanted(back=2_500))
        await eventually_async(
            lambda: len(requested(subject, "/history")) >= 3, "three pages are requested"
        )
        sink.wanted.clear()

    pages = [(each["offset"], each["limit"]) for each in requested(subject, "/history")[:3]]
    assert pages == [("0", "1000"), ("980", "1000"), ("1960", "1000")]


async def test_trades_not_far_back_are_requested_with_a_small_page() -> None:
    async with fetching(RecordingSink(), NAMES, lambda _: EMPTY) as subject:
        subject.sink.want(TRADES, TradesWanted(back=50))
        await is_had(subject, TRADES)

    assert [each["limit"] for each in requested(subject, "/history")] == ["100"]


async def test_fetch_trades_older_than_the_history_ends() -> None:
    sink = RecordingSink()
    sink.outcomes[TRADES] = chain(repeat(Reach.DEEPER, 11), repeat(Reach.DONE))
    async with fetching(sink, NAMES, lambda _: EMPTY) as subject:
        sink.want(TRADES, TradesWanted(back=1_000_000))
        await eventually_async(
            lambda: BodyKind.END in kinds(sink, TRADES), "the end of the history is recorded"
        )
        sink.wanted.clear()

    deepest = max(
        int(each["offset"]) + int(each["limit"]) for each in requested(subject, "/history")
    )
    assert deepest == 10_000


async def test_fetch_history_that_lacks_received_trades_is_requested_again() -> None:
    sink = RecordingSink()
    sink.outcomes[TRADES] = repeat(Reach.STALE)
    async with fetching(sink, NAMES, lambda _: EMPTY) as subject:
        sink.want(TRADES, TradesWanted(back=50))
        await eventually_async(
            lambda: len(requested(subject, "/history")) >= 3, "three pages are requested"
        )
        sink.wanted.clear()

    assert {each["offset"] for each in requested(subject, "/history")} == {"0"}


@pytest.mark.parametrize("refusal", [FORBIDDEN, BAD])
async def test_fetch_book_refused_at_first_is_received_later(refusal: bytes) -> None:
    with capture_logs() as logged:
        async with fetching(RecordingSink(), NAMES, refused_at_first(BODY, refusal)) as subject:
            subject.sink.want(BOOK, BookWanted())
            await is_had(subject, BOOK)

    assert [body.body for body in subject.sink.kept(RestBody)] == [BODY]
    assert len(delays_logged(logged, "snapshot_refused")) == 1


async def test_fetch_invalid_book_is_requested_again() -> None:
    def reply(number: int) -> bytes:
        return EMPTY if number == 1 else http("200 OK", BODY)

    with capture_logs() as logged:
        async with fetching(RecordingSink(), NAMES, reply) as subject:
            subject.sink.want(BOOK, BookWanted())
            await is_had(subject, BOOK)

    assert "snapshot_failed" in [each["event"] for each in logged]


async def test_fetch_body_that_is_only_journaled_ends_the_requests() -> None:
    sink = RecordingSink()
    sink.outcomes[BOOK] = repeat(None)
    async with fetching(sink, NAMES, lambda _: http("200 OK", BODY)) as subject:
        sink.want(BOOK, BookWanted())
        await eventually_async(lambda: kinds(sink, BOOK), "the body is recorded")
        await is_idle(BOOK)

        assert len(subject.server.request_lines) == 1
        assert BOOK in sink.wanted


async def test_fetch_book_refused_repeatedly_by_the_exchange_is_given_up() -> None:
    async with fetching(RecordingSink(), NAMES, lambda _: BAD) as subject:
        with capture_logs() as logged:
            subject.sink.want(BOOK, BookWanted())
            await eventually_async(
                lambda: None in delays_logged(logged, "snapshot_refused"),
                "the log reports that no request follows",
            )
        assert len(subject.server.request_lines) == 9
        assert len(delays_logged(logged, "snapshot_refused")) == 2


async def test_fetch_book_that_is_ahead_is_requested_again_when_wanted_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fetch_module, "QUIET_S", 300)  # s: the pause after a book that is ahead
    sink = RecordingSink()
    sink.outcomes[BOOK] = chain([Join.AHEAD], repeat(Join.TOO_OLD))
    async with fetching(sink, NAMES, lambda _: http("200 OK", BODY)) as subject:
        sink.want(BOOK, BookWanted())
        await eventually_async(lambda: kinds(sink, BOOK), "the body is recorded")
        assert len(subject.server.request_lines) == 1
        sink.want(BOOK, BookWanted())

        await eventually_async(
            lambda: len(subject.server.request_lines) > 2, "the book is requested again"
        )
        sink.wanted.clear()


@pytest.mark.parametrize("refusal", [FORBIDDEN, BAD])
async def test_fetch_account_refused_at_first_is_received_later(refusal: bytes) -> None:
    with capture_logs() as logged:
        async with fetching(RecordingSink(), NAMES, refused_at_first(b"[]", refusal)) as subject:
            subject.fetch.fetch_account([parse_stream(ORDERS)])
            await eventually_async(
                lambda: kinds(subject.sink, ORDERS), "the account's body is recorded"
            )

    assert kinds(subject.sink, ORDERS) == [BodyKind.MAIN]
    assert len(delays_logged(logged, "snapshot_refused")) == 1


async def test_public_stream_that_was_subscribed_to_is_not_requested_as_an_account() -> None:
    with capture_logs() as logged:
        async with fetching(RecordingSink(), NAMES, lambda _: EMPTY) as subject:
            subject.fetch.fetch_account(map(parse_stream, NAMES))
            await eventually_async(
                lambda: kinds(subject.sink, ORDERS), "the account's body is recorded"
            )
            await is_idle(BOOK)

            assert [line.split()[1] for line in subject.server.request_lines] == ["/api/v1/orders"]
    assert [body.stream for body in subject.sink.kept(RestBody)] == [ORDERS]
    assert delays_logged(logged, "snapshot_refused") == []


@pytest.mark.parametrize("how", ["left", "lost"])
async def test_account_that_no_connection_is_to_receive_is_not_requested_any_more(how: str) -> None:
    async with fetching(RecordingSink(), NAMES, lambda _: FORBIDDEN) as subject:
        subject.fetch.fetch_account([parse_stream(ORDERS)])
        await eventually_async(
            lambda: len(subject.server.request_lines) >= 3, "three requests are sent"
        )
        if how == "left":
            subject.sink.take(Subscribed(now_us(), subject.connection, [TRADES]))
        else:
            subject.sink.take(Lost(now_us(), subject.connection, GapCause.CONNECTION_LOST))
        await is_idle(ORDERS)


async def is_idle(name: str) -> None:
    await eventually_async(
        lambda: all(each.get_name() != f"fetch-{name}" for each in asyncio.all_tasks()),
        "no request is running",
    )


async def test_account_is_read_again_where_an_update_came_in_between() -> None:
    def reply(number: int) -> bytes:
        if number == 1:
            sink.updates += 1
        return EMPTY

    class Updated(RecordingSink):
        updates = 0

        def received(self, name: str) -> int:
            return self.updates

    sink = Updated()
    async with fetching(sink, NAMES, reply) as subject:
        subject.fetch.fetch_account([parse_stream(ORDERS)])
        await eventually_async(lambda: kinds(sink, ORDERS), "the account's body is recorded")

        assert len(subject.server.request_lines) == 2


async def test_fills_are_requested_beyond_the_time_of_a_clock_that_is_behind() -> None:
    from_us, to_us = now_us(), now_us() + 10_000_000
    async with fetching(RecordingSink(), NAMES, lambda _: EMPTY) as subject:
        subject.sink.want(ORDERS, FillsWanted(from_us, to_us))
        await is_had(subject, ORDERS)

    [page] = requested(subject, "/fills")
    assert int(page["from"]) == from_us // 1000 - 5_000
    assert int(page["to"]) == to_us // 1000 + 5_000
    assert kinds(subject.sink, ORDERS) == [BodyKind.FILLS, BodyKind.END]


async def test_fills_of_an_outage_that_ends_while_others_are_requested_are_requested_too() -> None:
    from_us, to_us, later_us = now_us(), now_us() + 10_000_000, now_us() + 60_000_000

    def reply(number: int) -> bytes:
        if number == 1:
            subject.sink.want(ORDERS, FillsWanted(from_us, later_us))
        return EMPTY

    async with fetching(RecordingSink(), NAMES, reply) as subject:
        subject.sink.want(ORDERS, FillsWanted(from_us, to_us))
        await is_had(subject, ORDERS)

    assert [int(page["to"]) for page in requested(subject, "/fills")] == [
        to_us // 1000 + 5_000,
        later_us // 1000 + 5_000,
    ]
    assert kinds(subject.sink, ORDERS) == [BodyKind.FILLS, BodyKind.FILLS, BodyKind.END]


async def test_fetch_account_does_not_wait_for_ever_for_refused_fills() -> None:
    def reply(number: int) -> bytes:
        return FORBIDDEN if "/fills" in subject.server.request_lines[number - 1] else EMPTY

    async with fetching(RecordingSink(), NAMES, reply) as subject:
        with capture_logs() as logged:
            subject.sink.want(ORDERS, FillsWanted(now_us(), now_us() + 10_000_000))
            subject.fetch.fetch_account([parse_stream(ORDERS)])
            await eventually_async(
                lambda: BodyKind.MAIN in kinds(subject.sink, ORDERS),
                "the account's main body is recorded",
            )
        assert len(requested(subject, "/fills")) == 6
        assert len(delays_logged(logged, "fills_refused")) == 2
    assert kinds(subject.sink, ORDERS) == [BodyKind.END, BodyKind.MAIN]
