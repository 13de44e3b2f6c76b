"""A no over REST is said once and asked again, until the bridge has what it asked for."""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from urllib.parse import parse_qs, urlsplit

import pytest
from structlog.testing import capture_logs

from bridge.contract.streams import parse_stream
from bridge.feed.asking import Asking
from bridge.feed.rest import Rest
from bridge.journal.hearing import Hearing
from bridge.pipeline.intake import Intake
from bridge.runtime.backoff import Backoff
from tests.support import frames
from tests.support.eventually import eventually_async
from tests.support.hearing_lane import now_us
from tests.support.items import fields
from tests.support.rest_answers import Server, answering, http

TRADES, BOOK, ORDERS = "trade.BTC_USDC_PERP", "depth.SOL_USDC", "account.orderUpdate"
FORBIDDEN = http("403 Forbidden", b"<html>firewall, ray 4711</html>")
BAD = http("400 Bad Request", b'{"code":"INVALID_SYMBOL","message":"no"}')


class Asker:
    """Asks for what an intake misses, over a REST server of the test's own."""

    def __init__(self, rest: Rest) -> None:
        streams = [parse_stream(name) for name in (TRADES, BOOK, ORDERS)]
        self.intake = Intake(
            streams,
            hold_us=0,
            snapshot_every=0,
            repair_us=30_000_000,
            ask=lambda name: self.asking.want(parse_stream(name)),
        )
        self.hearing = Hearing(
            self.intake,
            buffer_bytes=1 << 30,
            keep_private=True,
            clock_us=now_us,
            on_items=lambda: None,
        )

        def soon() -> Backoff:
            return Backoff(0.01, 0.02, random.Random(1))

        self.asking = Asking(
            self.hearing, rest, depth_levels=100, new_backoff=soon, new_late_backoff=soon
        )
        self.connection = self.hearing.opened("a test", [each.name for each in streams])

    def hear(self, frame: str) -> None:
        self.hearing.hear(frame, now_us(), self.connection)

    def waiting(self, name: str) -> list[dict[str, str]]:
        return [fields(item) for item in self.intake.lines[name].pending]


@asynccontextmanager
async def asker(reply: Callable[[int], bytes]) -> AsyncIterator[tuple[Asker, Server]]:
    async with answering(reply) as (rest, server):
        asker = Asker(rest)
        running = asyncio.create_task(asker.asking.run())
        try:
            yield asker, server
        finally:
            running.cancel()
            await asyncio.wait([running])


def refused_at_first(body: bytes, refusal: bytes = FORBIDDEN) -> Callable[[int], bytes]:
    return lambda number: refusal if number <= 3 else http("200 OK", body)


def told(said: list[dict[str, object]], event: str) -> list[object]:
    return [each["again_s"] for each in said if each["event"] == event]


def trade(number: int) -> str:
    message = json.loads(frames.TRADE)
    message["data"] |= {"t": number, "T": now_us(), "E": now_us()}
    return json.dumps(message)


def history(*numbers: int) -> bytes:
    row = {"isBuyerMaker": False, "price": "86642.9", "quantity": "0.07206"}
    return json.dumps([row | {"id": n, "timestamp": now_us() // 1000} for n in numbers]).encode()


async def test_history_behind_a_firewall_mends_trades_once_it_lets_us_through() -> None:
    async with asker(refused_at_first(history(4, 3, 2, 1))) as (ears, _):
        with capture_logs() as said:
            ears.hear(trade(1))
            ears.hear(trade(4))
            await eventually_async(
                lambda: ears.hearing.missing_trades(TRADES) is None, "nothing is missing"
            )

    assert [each["trade_id"] for each in ears.waiting(TRADES)] == ["1", "2", "3", "4"]
    assert len(told(said, "history_refused")) == 1


async def test_the_exchanges_own_no_to_history_is_a_gap_at_once() -> None:
    async with asker(lambda _: BAD) as (ears, server):
        ears.hear(trade(1))
        ears.hear(trade(4))
        await eventually_async(
            lambda: ears.hearing.missing_trades(TRADES) is None, "it is waited for no longer"
        )
        assert len(server.asked) == 1


@pytest.mark.parametrize("refusal", [FORBIDDEN, BAD])
async def test_a_book_that_was_refused_is_known_once_it_is_not(refusal: bytes) -> None:
    body = b'{"asks":[],"bids":[],"lastUpdateId":"4330360995","timestamp":1788367430246081}'
    async with asker(refused_at_first(body, refusal)) as (ears, _):
        with capture_logs() as said:
            ears.hear(frames.DEPTH)
            await eventually_async(lambda: not ears.hearing.misses_book(BOOK), "it is known")

    assert len(told(said, "snapshot_refused")) == 1


@pytest.mark.parametrize("refusal", [FORBIDDEN, BAD])
async def test_an_account_that_was_refused_is_told_once_it_is_not(refusal: bytes) -> None:
    async with asker(refused_at_first(b"[]", refusal)) as (ears, _):
        with capture_logs() as said:
            ears.asking.want_account([parse_stream(ORDERS)])
            await eventually_async(lambda: ears.waiting(ORDERS), "it is told")

    assert [each["type"] for each in ears.waiting(ORDERS)] == ["orders_snapshot"]
    assert len(told(said, "snapshot_refused")) == 1


@pytest.mark.parametrize("how", ["left", "lost"])
async def test_an_account_that_nobody_is_to_hear_any_more_is_not_asked_for(how: str) -> None:
    async with asker(lambda _: FORBIDDEN) as (ears, server):
        ears.asking.want_account([parse_stream(ORDERS)])
        await eventually_async(lambda: len(server.asked) >= 3, "it is asked for again and again")
        if how == "left":
            ears.hearing.changed(ears.connection, [TRADES])
        else:
            ears.hearing.lost(ears.connection, "connection lost")
        await eventually_async(
            lambda: all(each.get_name() != f"asking-{ORDERS}" for each in asyncio.all_tasks()),
            "nothing is asked any more",
        )


async def test_the_exchanges_own_no_to_a_book_is_believed_in_the_end() -> None:
    async with asker(lambda _: BAD) as (ears, server):
        with capture_logs() as said:
            ears.hear(frames.DEPTH)
            await eventually_async(lambda: None in told(said, "snapshot_refused"), "it is given up")
        assert len(server.asked) == 9
        assert len(told(said, "snapshot_refused")) == 2


async def test_fills_are_asked_for_beyond_what_a_clock_that_is_behind_says() -> None:
    async with asker(lambda _: http("200 OK", b"[]")) as (ears, server):
        lost_us, again_us = now_us(), now_us() + 10_000_000
        ears.hearing.answered(ears.connection, lost_us)
        ears.hearing.lost(ears.connection, "connection lost")
        again = ears.hearing.opened("a test", [ORDERS])
        ears.hearing.answered(again, again_us)
        await eventually_async(lambda: ears.hearing.missing_fills(ORDERS) is None, "they are had")

    line = next(line for line in server.asked if "/fills" in line)
    asked = parse_qs(urlsplit(line.split()[1]).query)
    assert int(asked["from"][0]) <= lost_us // 1000 - 5_000
    assert int(asked["to"][0]) == again_us // 1000 + 5_000


async def test_a_fill_that_was_heard_and_is_in_history_too_is_there_once() -> None:
    heard = json.loads(frames.ORDER_FILL)["data"]
    row = {
        "symbol": heard["s"], "tradeId": heard["t"], "orderId": heard["i"], "side": "Bid",
        "price": heard["L"], "quantity": heard["l"], "fee": "0", "feeSymbol": "ETH",
        "isMaker": False, "timestamp": "2025-08-11T19:05:10.174",
    }  # fmt: skip
    async with asker(lambda _: http("200 OK", json.dumps([row]).encode())) as (ears, server):
        ears.hearing.answered(ears.connection, now_us())
        ears.hear(frames.ORDER_FILL.replace("account.orderUpdate.ETH_USDC", ORDERS))
        ears.hearing.lost(ears.connection, "connection lost")
        again = ears.hearing.opened("a test", [ORDERS])
        ears.hearing.answered(again, now_us() + 10_000_000)
        await eventually_async(lambda: ears.hearing.missing_fills(ORDERS) is None, "they are had")
        assert [line for line in server.asked if "/fills" in line]

    told = [each for each in ears.waiting(ORDERS) if each["type"] == "orderFill"]
    assert [each["source"] for each in told] == [""]


async def test_where_the_account_stands_does_not_wait_for_ever_for_fills_that_are_refused() -> None:
    def reply(number: int) -> bytes:
        return FORBIDDEN if "/fills" in server.asked[number - 1] else http("200 OK", b"[]")

    async with asker(reply) as (ears, server):
        ears.hearing.answered(ears.connection, now_us())
        ears.hear(frames.ORDER_ACCEPTED)
        ears.hearing.lost(ears.connection, "connection lost")
        again = ears.hearing.opened("a test", [ORDERS])
        ears.hearing.answered(again, now_us() + 10_000_000)
        assert ears.hearing.missing_fills(ORDERS) is not None

        with capture_logs() as said:
            ears.asking.want_account([parse_stream(ORDERS)])
            await eventually_async(
                lambda: "orders_snapshot" in [each["type"] for each in ears.waiting(ORDERS)],
                "where it stands is told",
            )
        assert len([line for line in server.asked if "/fills" in line]) == 6
        assert len(told(said, "fills_refused")) == 2
