"""Frames are put into the queues of their streams, or quarantined."""

import pytest

from bridge.contract import keys
from bridge.contract.causes import GapCause
from bridge.core.counters import UnknownEvents
from bridge.core.entries import Op
from bridge.core.plan import ResumePoints
from bridge.core.records import Missing, Rebased, SegmentState
from bridge.core.translate import MAX_RAW
from bridge.protocol.envelope import Refusal
from tests.support import frames
from tests.support.core_subject import (
    DEPTHS,
    NOW_US,
    ORDERS,
    TICKERS,
    TRADES,
    CoreSubject,
    changed,
    depth,
    trade,
)
from tests.support.slots import fields

NAMES = (TRADES, DEPTHS, TICKERS, ORDERS)


def subject() -> CoreSubject:
    return CoreSubject(*NAMES)


# ---- frames --------------------------------------------------------------------------------------


def test_core_frame_becomes_an_entry_of_its_stream() -> None:
    core = subject()

    assert core.receive(frames.TRADE) == TRADES

    (slot,) = core.queue(TRADES).slots
    assert (slot.entry.op, slot.entry.number, fields(slot)["price"]) == (
        Op.APPEND,
        99419870,
        "86642.9",
    )
    assert list(core.table.ready) == [core.queue(TRADES)]
    assert core.core.counters.frames == 1


def test_core_error_frame_is_returned() -> None:
    assert subject().receive(frames.ERROR_INVALID_STREAM) == Refusal(4006, "Invalid stream")


def test_core_acknowledgement_changes_nothing() -> None:
    core = subject()

    assert core.receive('{"id":1,"result":null}') is None
    assert core.slots() == []


def test_core_frame_that_is_no_json_is_quarantined_with_reason_and_text() -> None:
    core = subject()

    assert core.receive("rubbish") is None

    (entry,) = core.quarantined()
    assert (entry["type"], entry["raw"], entry["stream"]) == ("quarantined", "rubbish", "")
    assert "not JSON" in entry["reason"]
    assert [queue.name for queue in core.table.ready] == [keys.QUARANTINE]


def test_core_message_that_is_not_of_the_contract_is_quarantined_and_its_stream_returned() -> None:
    core = subject()
    frame = frames.TRADE.replace('"86642.9"', '"cheap"')

    assert core.receive(frame) == TRADES

    (entry,) = core.quarantined()
    assert (entry["stream"], entry["raw"]) == (TRADES, frame)
    assert entry["reason"].startswith("p: ")
    assert not core.queue(TRADES).slots


def test_core_trade_with_id_zero_is_quarantined() -> None:
    core = subject()

    core.receive(trade(0))

    assert "number is 0" in core.quarantined()[0]["reason"]


def test_core_frame_of_invalid_utf8_is_quarantined_with_its_bytes_readable() -> None:
    core = subject()

    core.receive(b'{"stream":"trade.\xff"')

    assert core.quarantined()[0]["raw"] == '{"stream":"trade.\\xff"'


@pytest.mark.parametrize("sign", ["x", "é", "\U0001f600", "\x00"])
def test_core_huge_frame_is_quarantined_within_its_bytes(sign: str) -> None:
    core = subject()

    core.receive('{"stream":"' + sign * 70_000)
    core.receive(b"\xff" * 70_000)

    for entry in core.quarantined():
        assert MAX_RAW - 8 < len(entry["raw"].encode()) <= MAX_RAW
    assert core.table.pending_bytes() >= 2 * MAX_RAW - 16


def test_core_frame_of_a_stream_that_was_not_subscribed_to_is_quarantined() -> None:
    core = subject()

    assert core.receive(frames.LIQUIDATION) is None

    assert core.quarantined()[0]["stream"] == "liquidation"


def test_core_frame_of_an_unknown_connection_is_quarantined() -> None:
    core = subject()

    assert core.receive(frames.TRADE, connection=7) is None

    assert core.quarantined()[0]["stream"] == TRADES


def test_core_frame_of_a_stream_that_its_connection_has_left_is_skipped() -> None:
    core = subject()
    core.subscribe(1, DEPTHS)

    assert core.receive(trade(1)) is None

    assert core.core.counters.unwanted == 1
    assert core.quarantined() == []


def test_core_unknown_fields_are_counted() -> None:
    core = subject()

    core.receive(changed(frames.TRADE, zz=1))

    assert core.core.counters.unknown_fields == 1


def test_core_unknown_events_are_counted_by_name_and_reported_once() -> None:
    core = subject()

    for name in ("orderSplit", "orderMerged", "orderSplit"):
        core.receive(changed(frames.ORDER_ACCEPTED, e=name))

    assert core.core.unknown_events.counts == {"orderSplit": 2, "orderMerged": 1}
    assert core.core.unknown_events.news == ["orderSplit", "orderMerged"]


def test_core_unknown_events_of_many_or_long_names_are_bounded() -> None:
    core = subject()

    for number in range(UnknownEvents.MOST_NAMES + 20):
        core.receive(changed(frames.ORDER_ACCEPTED, e=f"new{number}"))
    core.receive(changed(frames.ORDER_ACCEPTED, e="new" * 40))

    counts = core.core.unknown_events.counts
    assert len(counts) == len(core.core.unknown_events.news) == UnknownEvents.MOST_NAMES + 1
    assert counts[UnknownEvents.OTHERS] == 21
    assert max(map(len, counts)) <= UnknownEvents.MAX_NAME_CHARS


def test_core_remembers_the_exchanges_time_of_each_streams_newest_message() -> None:
    core = subject()

    core.receive(trade(1, NOW_US - 5))

    assert core.core.last_event_us == {TRADES: NOW_US - 5}


# ---- positions in the journal --------------------------------------------------------------------


def test_core_record_that_a_queue_has_settled_is_not_taken_again() -> None:
    core = CoreSubject(*NAMES, resume=ResumePoints(100, 200))

    core.receive(frames.TRADE, position=99)
    assert not core.queue(TRADES).slots

    core.receive(frames.TRADE, position=100)
    assert core.queue(TRADES).oldest_position() == 100


def test_core_suspended_queue_begins_at_its_own_position() -> None:
    core = CoreSubject(*NAMES, resume=ResumePoints(100, 200, apart={TRADES: 40}))

    core.receive(frames.TRADE, position=40)
    core.receive(depth(10), position=99)

    assert core.queue(TRADES).oldest_position() == 40
    assert not core.queue(DEPTHS).slots


def test_core_positions_move_when_the_journal_is_opened_late() -> None:
    core = subject()
    core.receive(frames.TRADE, position=5)
    core.receive("rubbish", position=6)

    core.apply(Rebased(NOW_US, 1_000))

    assert core.queue(TRADES).oldest_position() == 1_005
    assert core.core.quarantine.oldest_position() == 1_006


# ---- queues --------------------------------------------------------------------------------------


def test_core_has_queues_for_all_streams_that_a_connection_is_to_receive() -> None:
    core = CoreSubject(connections=0)

    core.open(1, TRADES, "no stream")
    core.subscribe(1, TRADES, DEPTHS)

    assert list(core.core.queues) == [TRADES, DEPTHS]


def test_core_of_public_streams_passes_private_ones_over() -> None:
    core = CoreSubject(TRADES, takes_private=False)
    core.open(1, TRADES, ORDERS)

    assert core.receive(frames.ORDER_ACCEPTED) is None

    assert list(core.core.queues) == [TRADES]
    assert core.core.counters.unwanted == 1
    assert core.quarantined() == []


def test_core_suspended_stream_is_not_counted_as_pending() -> None:
    core = subject()
    for number in range(1, 1001):
        core.receive(trade(number))
    assert core.table.pending_bytes() > 0

    core.queue(TRADES).fail("WRONGTYPE")

    assert (core.table.pending_bytes(), core.table.pending()) == (0, 0)
    assert core.table.suspended_entries() == 1000


def test_core_detached_queue_takes_nothing_until_its_backfill_is_adopted() -> None:
    core = subject()
    core.core.detach([TRADES])
    core.receive(trade(1))
    assert core.core.is_detached(TRADES)
    assert not core.queue(TRADES).slots

    backfill = core.core.backfill([core.queue(TRADES)])
    core.core.adopt_back(backfill, core.position, NOW_US)
    core.receive(trade(2))

    assert not core.core.is_detached(TRADES)
    assert core.waiting(TRADES) == [("A", 2)]


def test_core_backfill_quarantines_nothing_and_makes_no_queues() -> None:
    core = subject()
    core.core.detach([TRADES])
    backfill = core.core.backfill([core.queue(TRADES)])
    core.core, live = backfill, core.core

    core.open(1, *NAMES)
    core.receive("rubbish")
    core.receive(trade(1))

    assert list(backfill.queues) == [TRADES]
    assert core.waiting(TRADES) == [("A", 1)]
    assert not live.quarantine.slots


def test_core_queue_released_by_a_backfill_takes_nothing_of_it() -> None:
    core = subject()
    core.core.detach([TRADES])
    backfill = core.core.backfill([core.queue(TRADES)])
    backfill.release(TRADES)

    assert backfill.queues == {}
    core.core.adopt_back(backfill, core.position, NOW_US)
    assert core.core.is_detached(TRADES)


# ---- losses that cannot be located ---------------------------------------------------------------


def test_core_missing_records_of_one_stream_are_marked_in_it() -> None:
    core = CoreSubject("liquidation")

    core.apply(Missing(NOW_US, GapCause.OVERFLOW, {"liquidation": (NOW_US - 7, NOW_US)}))

    (gap,) = core.named("liquidation")
    assert (gap["from_us"], gap["to_us"], gap["cause"]) == (
        str(NOW_US - 1_000_007),  # a message may be up to a second old when it is received
        str(NOW_US),
        "overflow",
    )


def test_core_missing_records_of_all_streams_are_marked_by_content_and_by_number() -> None:
    core = CoreSubject("liquidation", TRADES)

    core.apply(Missing(NOW_US, GapCause.NOT_IN_JOURNAL, None, NOW_US - 9_000_000))
    core.receive(trade(5))

    (gap,) = core.named("liquidation")
    assert (gap["from_us"], gap["cause"]) == (str(NOW_US - 10_000_000), "not in the journal")
    assert [slot.cause for slot in core.queue(TRADES).slots] == [GapCause.NOT_IN_JOURNAL]


def test_core_missing_records_of_an_unknown_stream_are_ignored() -> None:
    core = CoreSubject("liquidation")

    core.apply(Missing(NOW_US, GapCause.OVERFLOW, {"no stream": (1, NOW_US)}))

    assert core.slots() == []


def test_core_missing_records_of_all_streams_and_no_connection_are_an_outage_until_one() -> None:
    core = CoreSubject(ORDERS, connections=0)

    core.apply(Missing(NOW_US, GapCause.NOT_IN_JOURNAL, None, NOW_US - 9_000_000))
    core.now_us += 3_000_000
    core.open(1)
    core.answer(1)

    assert [(gap["from_us"], gap["to_us"], gap["cause"]) for gap in core.named(ORDERS)] == [
        (str(NOW_US - 10_000_000), str(NOW_US), "not in the journal"),
        (str(NOW_US), str(NOW_US + 3_000_000), "not in the journal"),
    ]


def test_core_missing_records_before_the_head_of_a_segment_are_over_with_its_connections() -> None:
    core = CoreSubject(ORDERS, connections=0)

    core.apply(Missing(NOW_US, GapCause.NOT_IN_JOURNAL, None, NOW_US - 9_000_000))
    core.apply(SegmentState(NOW_US, {4: {ORDERS: NOW_US - 1}}, {}, []))
    core.now_us += 60_000_000
    core.answer(4)
    core.lose(4)
    core.open(5)
    core.answer(5)

    assert [(gap["from_us"], gap["to_us"]) for gap in core.named(ORDERS)] == [
        (str(NOW_US - 10_000_000), str(NOW_US)),
        (str(NOW_US + 59_000_000), str(NOW_US + 60_000_000)),
    ]


def test_core_restores_the_state_in_the_head_of_a_segment() -> None:
    core = CoreSubject(TRADES, connections=0)

    core.apply(SegmentState(NOW_US, {4: {TRADES: NOW_US}}, {}, [TRADES]))

    assert core.core.sparse() == [TRADES]
    assert core.receive(trade(5), connection=4) == TRADES


@pytest.mark.parametrize("name", [TRADES, DEPTHS, TICKERS])
def test_core_sends_no_rest_request_for_a_stream_without_connections(name: str) -> None:
    core = CoreSubject(name, connections=0)

    assert core.core.wants(name, NOW_US) is None
