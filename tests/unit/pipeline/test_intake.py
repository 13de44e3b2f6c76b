"""Frames in, lines filled: what belongs where, and what happens to the rest."""

import json

from bridge.contract import keys
from bridge.contract.streams import parse_stream
from bridge.pipeline.book import QUIET_US, Join
from bridge.pipeline.intake import Intake
from bridge.pipeline.items import Op
from bridge.protocol.envelope import Refusal
from tests.support import frames
from tests.support.items import NOW_US, answer, fields

NAMES = (
    "trade.BTC_USDC_PERP",
    "depth.SOL_USDC",
    "ticker.BTC_USDC_PERP",
    "account.orderUpdate",
)


CONNECTION, OFFSET = 1, 0


class Wants(list[str]):
    """The streams a snapshot was asked for."""


def intake(wants: Wants | None = None, every: int = 0) -> Intake:
    subject = Intake(
        [parse_stream(name) for name in NAMES],
        hold_us=0,
        snapshot_every=every,
        ask=(wants if wants is not None else Wants()).append,
    )
    subject.opened(CONNECTION, NAMES)
    return subject


def depth_frame(first: int, last: int) -> str:
    message = json.loads(frames.DEPTH)
    message["data"] |= {"U": first, "u": last}
    return json.dumps(message)


def body(update_id: int, bids: list[list[str]] | None = None) -> bytes:
    return json.dumps({"asks": [], "bids": bids or [], "lastUpdateId": str(update_id)}).encode()


def tick(subject: Intake, connection: int, at_us: int) -> None:
    message = json.loads(frames.TICKER)
    message["data"]["E"] = at_us
    subject.hear(json.dumps(message), at_us, connection, OFFSET)


def quarantined(subject: Intake) -> list[dict[str, str]]:
    return [fields(item) for item in subject.quarantine.pending]


def test_a_frame_becomes_an_item_of_its_stream() -> None:
    subject = intake()

    heard = subject.hear(frames.TRADE, 1790915531026999, CONNECTION, OFFSET)

    assert heard == "trade.BTC_USDC_PERP"
    (item,) = subject.lines["trade.BTC_USDC_PERP"].pending
    assert (item.op, item.position, fields(item)["price"]) == (Op.APPEND, 99419870, "86642.9")
    assert list(subject.dirty) == ["trade.BTC_USDC_PERP"]


def test_an_error_frame_is_handed_back() -> None:
    heard = intake().hear(frames.ERROR_INVALID_STREAM, NOW_US, CONNECTION, OFFSET)

    assert heard == Refusal(4006, "Invalid stream")


def test_rubbish_goes_to_the_quarantine_with_its_reason_and_its_text() -> None:
    subject = intake()

    assert subject.hear("rubbish", NOW_US, CONNECTION, OFFSET) is None

    (entry,) = quarantined(subject)
    assert (entry["type"], entry["raw"], entry["stream"]) == ("quarantined", "rubbish", "")
    assert "not JSON" in entry["reason"]
    assert keys.QUARANTINE in subject.dirty


def test_a_refused_message_goes_to_the_quarantine_and_its_stream_counts_as_heard() -> None:
    subject = intake()
    frame = frames.TRADE.replace('"86642.9"', '"cheap"')

    assert subject.hear(frame, NOW_US, CONNECTION, OFFSET) == "trade.BTC_USDC_PERP"

    (entry,) = quarantined(subject)
    assert (entry["stream"], entry["raw"]) == ("trade.BTC_USDC_PERP", frame)
    assert entry["reason"].startswith("p: ")
    assert not subject.lines["trade.BTC_USDC_PERP"].pending


def test_an_old_trade_with_id_zero_goes_to_the_quarantine() -> None:
    subject = intake()

    subject.hear(frames.TRADE.replace("99419870", "0"), NOW_US, CONNECTION, OFFSET)

    assert "number is 0" in quarantined(subject)[0]["reason"]


def test_invalid_utf8_keeps_its_bytes_readably() -> None:
    subject = intake()

    subject.hear(b'{"stream":"trade.\xff"', NOW_US, CONNECTION, OFFSET)

    assert quarantined(subject)[0]["raw"] == '{"stream":"trade.\\xff"'


def test_a_stream_that_nobody_subscribed_to_is_not_published() -> None:
    subject = intake()

    assert subject.hear(frames.LIQUIDATION, NOW_US, CONNECTION, OFFSET) is None
    assert quarantined(subject)[0]["stream"] == "liquidation"


def test_unknown_fields_are_counted() -> None:
    subject = intake()

    subject.hear(
        frames.TRADE.replace('"e":"trade"', '"e":"trade","zz":1'), NOW_US, CONNECTION, OFFSET
    )

    assert subject.counts.unknown_fields == 1


def test_the_first_delta_asks_for_a_snapshot_once() -> None:
    wants = Wants()
    subject = intake(wants)

    subject.hear(depth_frame(10, 10), NOW_US, CONNECTION, OFFSET)
    subject.hear(depth_frame(11, 11), NOW_US, CONNECTION, OFFSET)

    assert wants == ["depth.SOL_USDC"]


def test_a_snapshot_stands_directly_behind_the_delta_it_is_at() -> None:
    subject = intake()
    for number in (10, 11):
        subject.hear(depth_frame(number, number), NOW_US, CONNECTION, OFFSET)

    assert (
        subject.rest_body("depth.SOL_USDC", body(10, [["98", "1"]]), NOW_US, OFFSET) is Join.PLACED
    )
    subject.hear(depth_frame(12, 12), NOW_US, CONNECTION, OFFSET)

    items = list(subject.lines["depth.SOL_USDC"].pending)
    assert [(item.op.value, item.position) for item in items] == [
        ("A", 10),
        ("A", 11),
        ("S", 11),
        ("A", 12),
    ]
    snapshot = fields(items[2])
    assert (snapshot["update_id"], snapshot["rest_update_id"]) == ("11", "10")
    assert snapshot["bids"] == '[["98","1"]]'
    assert snapshot["asks"] == '[["98.97","22.39"]]'


def test_a_hole_in_the_deltas_asks_for_a_snapshot_again() -> None:
    wants = Wants()
    subject = intake(wants)
    subject.hear(depth_frame(10, 10), NOW_US, CONNECTION, OFFSET)
    subject.rest_body("depth.SOL_USDC", body(10), NOW_US, OFFSET)

    subject.hear(depth_frame(15, 15), NOW_US, CONNECTION, OFFSET)

    assert wants == ["depth.SOL_USDC", "depth.SOL_USDC"]


def test_a_new_subscription_asks_for_a_snapshot_with_its_first_delta() -> None:
    wants = Wants()
    subject = intake(wants)
    subject.hear(depth_frame(10, 10), NOW_US, CONNECTION, OFFSET)

    subject.opened(CONNECTION, NAMES)
    subject.hear(depth_frame(11, 11), NOW_US, CONNECTION, OFFSET)

    assert wants == ["depth.SOL_USDC", "depth.SOL_USDC"]


def test_periodic_snapshots_come_from_the_bridges_own_book() -> None:
    subject = intake(every=100)
    subject.hear(depth_frame(98, 98), NOW_US, CONNECTION, OFFSET)
    subject.rest_body("depth.SOL_USDC", body(98), NOW_US, OFFSET)

    subject.hear(depth_frame(99, 101), NOW_US, CONNECTION, OFFSET)

    last = subject.lines["depth.SOL_USDC"].pending[-1]
    assert (last.op, last.position, fields(last)["rest_update_id"]) == (Op.SNAPSHOT, 101, "")


def test_a_connection_knows_the_exchanges_newest_time() -> None:
    subject = intake()

    subject.hear(frames.TRADE, 1790915531026999, CONNECTION, OFFSET)

    assert subject.deafness.ears[CONNECTION].newest_us == 1790915531025000


def test_memory_is_bounded_public_data_first_and_what_went_is_marked() -> None:
    subject = intake()
    for number in range(1, 1001):
        subject.hear(
            frames.TRADE.replace("99419870", str(number)), 1790915531026999, CONNECTION, OFFSET
        )
    order = frames.ORDER_ACCEPTED.replace("59887375336", "1")
    subject.hear(order, 1790915531026999, CONNECTION, OFFSET)
    for number in range(1001, 3001):
        subject.hear(
            frames.TRADE.replace("99419870", str(number)), 1790915531026999, CONNECTION, OFFSET
        )

    subject.bound(300_000)

    assert subject.pending_bytes() <= 300_000
    assert len(subject.lines["account.orderUpdate"].pending) == 1
    trades = subject.lines["trade.BTC_USDC_PERP"]
    assert trades.counters.overflowed > 2000
    assert trades.pending[-1].position == 3000


def test_only_unnumbered_streams_are_marked_deaf() -> None:
    subject = intake()
    subject.hear(frames.TRADE, 1790915531026999, CONNECTION, OFFSET)

    subject.lost(CONNECTION, "connection lost", 1790915541000000, OFFSET)
    subject.opened(2, NAMES)
    subject.answered(2, 1790915541000000, 1790915541000000, OFFSET)
    tick(subject, 2, 1790915541000000)

    assert list(subject.dirty) == [
        "trade.BTC_USDC_PERP",
        "ticker.BTC_USDC_PERP",
        "account.orderUpdate",
    ]
    gap = fields(subject.lines["account.orderUpdate"].pending[0])
    assert (gap["from_us"], gap["to_us"]) == ("1790915530025000", "1790915541100000")
    assert gap["cause"] == "connection lost"


def test_what_an_earlier_bridge_had_heard_is_not_deafness() -> None:
    subject = intake()
    subject.answered(CONNECTION, NOW_US, NOW_US, OFFSET)
    tick(subject, CONNECTION, NOW_US)

    subject.resume({"account.orderUpdate": NOW_US - 5, "trade.BTC_USDC_PERP": 1}, NOW_US, OFFSET)

    (gap,) = subject.lines["account.orderUpdate"].pending
    assert (fields(gap)["from_us"], fields(gap)["cause"]) == (
        str(NOW_US - 5),
        "bridge was not running",
    )
    assert not subject.lines["trade.BTC_USDC_PERP"].pending


def test_what_a_line_has_settled_is_not_taken_a_second_time() -> None:
    subject = intake()
    subject.lines["trade.BTC_USDC_PERP"].resume_from = 100

    subject.hear(frames.TRADE, NOW_US, CONNECTION, 99)
    assert not subject.lines["trade.BTC_USDC_PERP"].pending

    subject.hear(frames.TRADE, NOW_US, CONNECTION, 100)
    assert subject.lines["trade.BTC_USDC_PERP"].oldest_offset() == 100


def test_a_stream_that_fails_alone_takes_no_room_of_the_others() -> None:
    subject = intake()
    for number in range(1, 1001):
        frame = frames.TRADE.replace("99419870", str(number))
        subject.hear(frame, 1790915531026999, CONNECTION, OFFSET)
    subject.lines["trade.BTC_USDC_PERP"].fail("WRONGTYPE")

    assert subject.pending_bytes() == 0
    subject.bound_parked(50_000)
    assert 0 < subject.lines["trade.BTC_USDC_PERP"].pending_bytes <= 50_000


def settled(subject: Intake, name: str, last: str, signs: str) -> None:
    """What Redis said of all that waited."""
    line = subject.lines[name]
    line.take(NOW_US, 100)
    line.settle(answer("ok", last, signs), NOW_US)
    subject.redis_answered(line, NOW_US)


def waiting(subject: Intake, name: str = "depth.SOL_USDC") -> list[tuple[str, int]]:
    return [(item.op.value, item.position) for item in subject.lines[name].pending]


def with_book(wants: Wants | None = None) -> Intake:
    subject = intake(wants)
    subject.hear(depth_frame(10, 10), NOW_US, CONNECTION, OFFSET)
    subject.rest_body("depth.SOL_USDC", body(10), NOW_US, OFFSET)
    return subject


def test_a_snapshot_that_found_no_place_is_tried_at_the_next_delta_from_the_bridges_book() -> None:
    wants = Wants()
    subject = with_book(wants)
    settled(subject, "depth.SOL_USDC", "9-120", "=~")

    subject.hear(depth_frame(11, 11), NOW_US, CONNECTION, OFFSET)
    subject.hear(depth_frame(12, 12), NOW_US, CONNECTION, OFFSET)

    assert waiting(subject) == [("A", 11), ("S", 11), ("A", 12)]
    assert wants == ["depth.SOL_USDC"]


def test_a_snapshot_whose_place_has_another_bridges_is_not_tried_again() -> None:
    subject = with_book()
    settled(subject, "depth.SOL_USDC", "9-102", "==")

    subject.hear(depth_frame(11, 11), NOW_US, CONNECTION, OFFSET)

    assert waiting(subject) == [("A", 11)]


def test_after_a_gap_that_the_book_knows_nothing_of_its_snapshot_follows_at_once() -> None:
    subject = with_book()
    settled(subject, "depth.SOL_USDC", "9-102", "++")
    line = subject.lines["depth.SOL_USDC"]
    subject.hear(depth_frame(11, 11), NOW_US, CONNECTION, OFFSET)
    line.drop_oldest(1)
    subject.hear(depth_frame(12, 12), NOW_US, CONNECTION, OFFSET)
    line.take(NOW_US, 10)
    line.settle(answer("hole", "9-102"), NOW_US)

    settled(subject, "depth.SOL_USDC", "9-120", "++")

    assert waiting(subject) == [("S", 12)]
    (record,) = [fields(item) for item in subject.ledger.pending]
    assert (record["from"], record["to"], record["cause"]) == ("11", "11", "buffer full")
    assert (record["stream"], record["repaired"], record["how"]) == (
        "depth.SOL_USDC", "false", "snapshot",
    )  # fmt: skip


def test_a_subscription_that_is_answered_asks_for_its_books_though_nothing_moves() -> None:
    wants = Wants()
    subject = intake(wants)

    subject.answered(CONNECTION, NOW_US, NOW_US, OFFSET)

    assert wants == ["depth.SOL_USDC"]


def test_a_book_that_never_moves_is_placed_with_a_start_of_its_own() -> None:
    subject = intake()
    subject.rest_body("depth.SOL_USDC", body(7), NOW_US, OFFSET)

    assert subject.rest_body("depth.SOL_USDC", body(7), NOW_US + QUIET_US, OFFSET) is Join.STANDS
    settled(subject, "depth.SOL_USDC", "0-0", "~")

    start, snapshot = subject.lines["depth.SOL_USDC"].pending
    assert (start.op, start.expected, start.position) == (Op.GAP, "0-0", 7)
    assert (fields(start)["cause"], fields(start)["to"]) == ("start", "")
    assert (snapshot.op, snapshot.position) == (Op.SNAPSHOT, 7)
    assert snapshot.ms == (NOW_US + QUIET_US) // 1000


def test_what_leads_up_to_a_book_that_rests_was_missed() -> None:
    subject = intake()
    subject.answered(CONNECTION, NOW_US, NOW_US, OFFSET)
    subject.lost(CONNECTION, "connection lost", NOW_US, OFFSET)
    subject.opened(2, NAMES)
    for heard_us in (NOW_US, NOW_US + QUIET_US):
        subject.rest_body("depth.SOL_USDC", body(7), heard_us, OFFSET)
    settled(subject, "depth.SOL_USDC", "9-40", "~")

    gap, snapshot = subject.lines["depth.SOL_USDC"].pending
    assert (gap.expected, fields(gap)["from"], fields(gap)["to"]) == ("9-40", "5", "7")
    assert fields(gap)["cause"] == "connection lost"
    assert snapshot.position == 7


def test_a_book_that_rests_where_the_stream_is_needs_nothing_more() -> None:
    subject = intake()
    for heard_us in (NOW_US, NOW_US + QUIET_US):
        subject.rest_body("depth.SOL_USDC", body(7), heard_us, OFFSET)

    settled(subject, "depth.SOL_USDC", "9-72", "+")

    assert waiting(subject) == []
    assert subject.lines["depth.SOL_USDC"].counters.snapshots == 1


FILLS_BODY = (
    b'[{"clientId":null,"fee":"0.01","feeSymbol":"USDC","isMaker":true,"orderId":"7",'
    b'"price":"98.97","quantity":"1","side":"Bid","symbol":"SOL_USDC","systemOrderType":null,'
    b'"timestamp":"2026-10-02T03:12:10.500","tradeId":41}]'
)


def test_what_nobody_listened_to_is_looked_up_in_the_history_of_fills() -> None:
    wants = Wants()
    subject = intake(wants)
    orders = "account.orderUpdate"
    subject.answered(CONNECTION, NOW_US - 60_000_000, NOW_US, OFFSET)
    tick(subject, CONNECTION, NOW_US - 60_000_000)
    subject.lost(CONNECTION, "connection lost", NOW_US, OFFSET)
    subject.opened(2, NAMES)
    subject.answered(2, NOW_US, NOW_US, OFFSET)
    tick(subject, 2, NOW_US)

    assert orders in wants
    assert subject.missing.fills_wanted(orders) == (NOW_US - 59_900_000, NOW_US + 100_000)
    subject.rest_body(orders, FILLS_BODY, NOW_US, OFFSET, "fills")
    subject.rest_body(orders, b"[]", NOW_US, OFFSET, "end")

    assert subject.missing.fills_wanted(orders) is None
    gap, fill = (fields(item) for item in subject.lines[orders].pending)
    assert gap["cause"] == "connection lost"
    assert fill | {"type": "orderFill", "trade_id": "41", "order_id": "7", "source": "rest"} == fill
    assert (fill["fill_price"], fill["fill_quantity"], fill["is_maker"]) == ("98.97", "1", "true")
    assert (fill["engine_us"], fill["status"]) == ("1790910730500000", "")


def trade_frame(number: int, at_us: int) -> str:
    message = json.loads(frames.TRADE)
    message["data"] |= {"t": number, "E": at_us, "T": at_us}
    return json.dumps(message)


def trades_of(*numbers: int) -> bytes:
    return json.dumps(
        [
            {"id": n, "isBuyerMaker": False, "price": "1", "quantity": "1", "timestamp": 1}
            for n in numbers
        ]
    ).encode()


def test_three_honest_skips_do_not_hide_the_hole_after_them() -> None:
    subject, name = intake(), "trade.BTC_USDC_PERP"
    subject.hear(trade_frame(10, NOW_US), NOW_US, CONNECTION, OFFSET)
    for number in (20, 30, 40):
        subject.hear(trade_frame(number, NOW_US), NOW_US, CONNECTION, OFFSET)
        subject.rest_body(name, trades_of(number, number - 10), NOW_US, OFFSET)
    assert subject.missing.sparse() == [name]

    subject.hear(trade_frame(44, NOW_US), NOW_US, CONNECTION, OFFSET)
    subject.hear(trade_frame(50, NOW_US), NOW_US, CONNECTION, OFFSET)  # let pass
    subject.rest_body(name, trades_of(50, 48, 44, 43, 42, 41, 40), NOW_US, OFFSET)

    mended, unseen = [fields(item) for item in subject.ledger.pending][-2:]
    assert (mended["from"], mended["to"], mended["how"]) == ("41", "43", "history")
    assert (unseen["from"], unseen["to"], unseen["repaired"]) == ("45", "49", "false")
    assert subject.lines[name].counters.gaps == 1
    assert subject.missing.sparse() == []


def test_a_book_whose_reply_was_heard_late_is_asked_for_anew() -> None:
    wants = Wants()
    subject = intake(wants)
    subject.answered(CONNECTION, NOW_US, NOW_US, OFFSET)
    tick(subject, CONNECTION, NOW_US)
    subject.hear(depth_frame(10, 10), NOW_US, CONNECTION, OFFSET)
    assert subject.rest_body("depth.SOL_USDC", body(7), NOW_US, OFFSET) is Join.TOO_OLD

    subject.ask_for_missing(NOW_US)

    assert wants.count("depth.SOL_USDC") == 2
