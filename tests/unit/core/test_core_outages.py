"""Outages in a core: the marked streams, their intervals, and the REST requests."""

from bridge.contract.causes import GapCause
from bridge.core.outcomes import Join
from bridge.core.records import BodyKind, Closing, SegmentState, Started, Suspected, Watermarks
from bridge.core.wants import FillsWanted
from tests.support.core_subject import DEPTHS, NOW_US, ORDERS, TICKERS, TRADES, CoreSubject, trade

NAMES = (TRADES, DEPTHS, TICKERS, ORDERS)
SECOND_US = 1_000_000

FILLS_BODY = (
    b'[{"clientId":null,"fee":"0.01","feeSymbol":"USDC","isMaker":true,"orderId":"7",'
    b'"price":"98.97","quantity":"1","side":"Bid","symbol":"SOL_USDC","systemOrderType":null,'
    b'"timestamp":"2026-10-02T03:12:10.500","tradeId":41}]'
)
ACCOUNT_BODY = (
    b'[{"id":"7","symbol":"SOL_USDC","side":"Bid","orderType":"Limit","price":"1",'
    b'"quantity":"2","executedQuantity":"0","executedQuoteQuantity":"0","status":"New",'
    b'"timeInForce":"GTC","createdAt":1790915531000,"selfTradePrevention":"RejectTaker",'
    b'"postOnly":false,"reduceOnly":false}]'
)


def test_core_outage_is_marked_in_streams_recognised_by_content_only() -> None:
    core = CoreSubject(*NAMES)
    core.receive(trade(1, NOW_US + 25_000))
    core.now_us = NOW_US + 10 * SECOND_US

    core.lose(1)
    core.open(2)
    core.answer(2)
    core.tick(2, core.now_us)

    gaps = [queue.name for queue in core.table if any(s.entry.is_gap for s in queue.slots)]
    assert gaps == [TICKERS, ORDERS]
    gap = core.named(ORDERS)[0]
    assert (gap["from_us"], gap["to_us"], gap["cause"]) == (
        str(NOW_US - 975_000),  # a second before the newest message
        str(NOW_US + 10_100_000),
        "connection lost",
    )


def test_core_outage_is_the_cause_of_the_next_sequenced_message() -> None:
    core = CoreSubject(*NAMES)
    core.answer(1)
    core.lose(1)
    core.open(2)

    core.receive(trade(9), 2)

    assert [slot.cause for slot in core.queue(TRADES).slots] == [GapCause.CONNECTION_LOST]


def test_core_watermark_of_an_earlier_bridge_begins_an_outage() -> None:
    core = CoreSubject(*NAMES)
    core.answer(1)
    core.tick(1, NOW_US)

    core.apply(Watermarks(NOW_US, {ORDERS: NOW_US - 5, TRADES: 1}))

    (gap,) = core.named(ORDERS)
    assert (gap["from_us"], gap["cause"]) == (str(NOW_US - 5), "bridge was not running")
    assert not core.queue(TRADES).slots


def test_core_start_of_a_process_ends_the_connections_of_the_one_before() -> None:
    core = CoreSubject(*NAMES)
    core.answer(1)
    core.tick(1, NOW_US)

    core.apply(Started(NOW_US))
    core.now_us += 5 * SECOND_US
    core.open(2)
    core.answer(2)
    core.tick(2, core.now_us)

    assert core.core.coverage.open_connections() == [2]
    (gap,) = core.named(ORDERS)
    assert gap["cause"] == "bridge was not running"


def test_core_suspected_stream_is_marked_stale_when_it_is_answered_again() -> None:
    core = CoreSubject("liquidation", "bookTicker.SOL_USDC")
    core.answer(1)
    name = "bookTicker.SOL_USDC"

    core.apply(Suspected(NOW_US, 1, name, NOW_US))
    core.now_us += 9 * SECOND_US
    core.answer(1)

    (gap,) = core.named(name)
    assert (gap["from_us"], gap["to_us"], gap["cause"]) == (
        str(NOW_US),
        str(NOW_US + 9 * SECOND_US),
        "stale",
    )
    assert not core.queue("liquidation").slots


def test_core_stream_that_was_left_is_marked_when_it_is_received_again() -> None:
    core = CoreSubject("liquidation", TRADES)
    core.answer(1)
    core.subscribe(1, TRADES)
    core.now_us += SECOND_US

    core.subscribe(1, TRADES, "liquidation")
    core.answer(1)

    (gap,) = core.named("liquidation")
    assert gap["cause"] == "unsubscribed"


def test_core_connection_that_is_closing_does_not_let_another_close() -> None:
    core = CoreSubject("liquidation", connections=2)
    for number in (1, 2):
        core.answer(number)
    for _ in range(2):
        core.answer(1)
        core.answer(2)
    assert core.core.coverage.may_close(2)

    core.apply(Closing(NOW_US, 1))

    assert not core.core.coverage.may_close(2)


def test_core_outage_is_not_marked_in_a_detached_queue() -> None:
    core = CoreSubject("liquidation")
    core.answer(1)
    core.core.detach(["liquidation"])

    core.lose(1)
    core.open(2)
    core.now_us += 9 * SECOND_US
    core.answer(2)

    assert not core.queue("liquidation").slots


# ---- the account ---------------------------------------------------------------------------------


def test_core_outage_of_orders_requests_the_history_of_fills() -> None:
    core = CoreSubject(*NAMES)
    core.answer(1, NOW_US - 60 * SECOND_US)
    core.tick(1, NOW_US - 60 * SECOND_US)
    core.lose(1)
    core.open(2)
    core.answer(2)
    core.tick(2, NOW_US)

    assert ORDERS in core.requests
    wanted = FillsWanted(NOW_US - 59_900_000, NOW_US + 100_000)
    assert core.core.wants(ORDERS, NOW_US) == wanted
    assert core.rest(ORDERS, FILLS_BODY, BodyKind.FILLS) is Join.PLACED
    core.rest(ORDERS, b"[]", BodyKind.END)

    assert core.core.wants(ORDERS, NOW_US) is None
    gap, fill = core.named(ORDERS)
    assert gap["cause"] == "connection lost"
    assert fill | {"type": "orderFill", "trade_id": "41", "order_id": "7", "source": "rest"} == fill
    assert (fill["fill_price"], fill["fill_quantity"], fill["is_maker"]) == ("98.97", "1", "true")
    assert (fill["engine_us"], fill["status"]) == ("1790910730500000", "")


def test_core_outage_of_orders_of_unknown_begin_requests_the_fills_of_a_day() -> None:
    core = CoreSubject(*NAMES, connections=0)
    core.apply(SegmentState(NOW_US, {}, {}, []))

    core.open(1)
    core.answer(1)
    core.tick(1, NOW_US)

    wanted = core.core.wants(ORDERS, NOW_US)
    assert isinstance(wanted, FillsWanted)
    assert wanted.to_us - wanted.from_us == 24 * 3_600 * SECOND_US
    assert wanted.to_us - NOW_US < SECOND_US


def test_core_fills_of_a_detached_queue_are_not_put_in() -> None:
    core = CoreSubject(*NAMES)
    core.core.detach([ORDERS])

    core.rest(ORDERS, FILLS_BODY, BodyKind.FILLS)

    assert not core.queue(ORDERS).slots


def test_core_outages_of_orders_are_requested_again_when_the_journal_is_read() -> None:
    core = CoreSubject(*NAMES)
    core.answer(1, NOW_US - 60 * SECOND_US)
    core.tick(1, NOW_US - 60 * SECOND_US)
    core.lose(1)
    core.open(2)
    core.answer(2)
    core.tick(2, NOW_US)
    core.requests.clear()

    core.catch_up()

    assert ORDERS in core.requests


def test_core_account_body_becomes_a_snapshot_in_its_stream() -> None:
    core = CoreSubject(*NAMES)

    assert core.rest(ORDERS, ACCOUNT_BODY) is Join.PLACED

    assert [named["type"] for named in core.named(ORDERS)] == ["orders_snapshot"]


def test_core_body_of_an_unknown_stream_changes_nothing() -> None:
    core = CoreSubject(TRADES)

    assert core.rest("account.positionUpdate", b"[]") is None

    assert core.slots() == []


def test_core_content_gap_that_was_written_is_logged() -> None:
    core = CoreSubject(*NAMES)
    core.answer(1)
    core.tick(1, NOW_US)
    core.lose(1)
    core.open(2)
    core.now_us += 5 * SECOND_US
    core.answer(2)
    core.tick(2, core.now_us)

    core.publish()

    records = core.redis.entries("bridge:gaps")
    assert sorted(record["stream"] for record in records) == [ORDERS, TICKERS]


def test_core_backfill_detects_outages_like_the_live_core_by_streams_that_it_lacks() -> None:
    """The ticks of a stream that is not backfilled end an outage, and reveal a stall."""
    core = CoreSubject(TICKERS, ORDERS)
    core.core.detach([ORDERS])
    backfill = CoreSubject(connections=0)
    backfill.core = core.core.backfill([core.queue(ORDERS)])
    live = CoreSubject(TICKERS, ORDERS, connections=0)

    for each in (live, backfill):
        each.now_us = NOW_US
        each.open(1, TICKERS, ORDERS)
        each.answer(1)
        for second in (1, 2, 3, 9, 10):
            each.now_us = NOW_US + second * SECOND_US
            each.tick(1, each.now_us)
        each.lose(1)
        each.open(2, TICKERS, ORDERS)
        each.answer(2)
        each.now_us += 4 * SECOND_US
        each.tick(2, each.now_us)

    assert [gap["cause"] for gap in live.named(ORDERS)] == ["stale", "connection lost"]
    assert backfill.named(ORDERS) == live.named(ORDERS)
    assert not backfill.quarantined()


def test_core_ends_connections_with_streams_for_which_it_has_no_queue() -> None:
    core = CoreSubject(TICKERS, ORDERS)
    core.core.detach([ORDERS])
    backfill = core.core.backfill([core.queue(ORDERS)])
    connections = {7: {TICKERS: NOW_US, ORDERS: NOW_US}}

    backfill.apply(SegmentState(NOW_US, connections, {}, []), 0, NOW_US)
    backfill.apply(Started(NOW_US), 1, NOW_US)

    assert backfill.coverage.open_connections() == []


def test_core_makes_a_queue_for_a_stream_that_only_a_segments_state_has() -> None:
    core = CoreSubject(connections=0)

    core.apply(SegmentState(NOW_US, {7: {TICKERS: NOW_US, "no stream": NOW_US}}, {}, []))
    core.tick(7, NOW_US)

    assert [named["type"] for named in core.named(TICKERS)] == ["ticker"]
