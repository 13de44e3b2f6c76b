"""The batches of a sequenced stream's queue after literal answers of Redis."""

import pytest

from bridge.contract.causes import GapCause
from bridge.core.entries import Op, Slot
from bridge.core.peers import Peers
from bridge.core.queue import OLDEST_SCANNED, QueueState, Resume, is_before
from bridge.core.sequenced import Sequenced
from tests.support.queues import HOLD_US, poll, sequenced, status
from tests.support.slots import (
    DEPTH,
    NOW_US,
    SECOND_US,
    TRADES,
    answer,
    delta,
    fields,
    places,
    snapshot,
    trade,
)


def refused(*numbers: int, last: str = "9-50") -> Sequenced:
    """A queue whose head Redis refused because its predecessor is missing."""
    queue = sequenced(*numbers, confirmed=last)
    queue.take(NOW_US, 100)
    queue.settle(answer("gap", last), NOW_US)
    return queue


# ---- batches -----------------------------------------------------------------------------------


def test_sequenced_messages_are_sent_in_order_with_their_predecessors() -> None:
    batch = sequenced(5, 6).take(NOW_US, 100)

    assert batch is not None
    assert [(s.entry.op, s.after, s.entry.number, s.entry.ms) for s in batch.slots] == [
        (Op.APPEND, 4, 5, NOW_US // 1000),
        (Op.APPEND, 5, 6, NOW_US // 1000),
    ]


def test_sequenced_queue_in_flight_sends_nothing_before_the_answer() -> None:
    queue = sequenced(5)
    queue.take(NOW_US, 100)
    queue.put(trade(6))

    assert queue.state is QueueState.IN_FLIGHT
    assert queue.take(NOW_US, 100) is None


def test_sequenced_batch_without_reply_is_sent_again() -> None:
    queue = sequenced(5, 6)
    queue.take(NOW_US, 100)

    queue.no_reply()

    assert places(queue.take(NOW_US, 100)) == [("A", 5), ("A", 6)]


def test_sequenced_batch_has_no_more_slots_than_the_limit() -> None:
    assert len(places(sequenced(*range(1, 50)).take(NOW_US, 20))) == 20


def test_sequenced_settled_messages_are_counted_and_dropped() -> None:
    queue = sequenced(5, 6, 7)
    queue.take(NOW_US, 100)

    queue.settle(answer("ok", "9-70", "=++"), NOW_US)

    assert (queue.counters.published, queue.counters.duplicates) == (2, 1)
    assert (queue.confirmed, len(queue.slots), queue.bytes) == ("9-70", 0, 0)
    assert queue.state is QueueState.OPEN


def test_sequenced_late_message_is_sent_in_its_place() -> None:
    queue = sequenced(5, 7, 9)

    queue.put(trade(6))
    queue.put(trade(8))

    assert places(queue.take(NOW_US, 100)) == [("A", n) for n in (5, 6, 7, 8, 9)]


def test_sequenced_late_message_is_not_put_before_entries_in_flight() -> None:
    queue = sequenced(7, 9)
    queue.take(NOW_US, 1)

    queue.put(trade(6))

    assert [slot.entry.number for slot in queue.slots] == [7, 6, 9]


# ---- beginnings and gaps -----------------------------------------------------------------------


def test_sequenced_empty_stream_begins_with_a_start_before_the_first_message() -> None:
    queue = sequenced(5)
    queue.take(NOW_US, 100)

    queue.settle(answer("empty", "0-0"), NOW_US)

    batch = queue.take(NOW_US, 100)
    assert places(batch) == [("G", 4), ("A", 5)]
    start = fields(batch.slots[0])  # type: ignore[union-attr]
    assert batch.slots[0].entry.expected == "0-0"  # type: ignore[union-attr]
    assert (start["cause"], start["from"], start["to"]) == ("start", "", "")


def test_sequenced_head_refused_waits_until_hold() -> None:
    queue = refused(8)

    assert queue.state is QueueState.WAITING
    assert queue.take(NOW_US + HOLD_US - 1, 100) is None
    assert queue.due_us() == NOW_US + HOLD_US


def test_sequenced_head_refused_waits_until_hold_then_writes_gap() -> None:
    queue = refused(8, 9)

    batch = queue.take(NOW_US + HOLD_US, 100)

    assert places(batch) == [("G", 7), ("A", 8), ("A", 9)]
    gap = batch.slots[0]  # type: ignore[union-attr]
    named = fields(gap)
    assert gap.entry.expected == "9-50"
    assert (named["from"], named["to"], named["cause"]) == ("6", "7", "skipped")
    assert (named["symbol"], named["recovered"]) == ("SOL_USDC", "false")
    assert named["received_us"] == str(NOW_US)


def test_sequenced_predecessor_in_time_is_sent_before_the_waiting_head() -> None:
    queue = refused(8)

    queue.put(trade(7))
    queue.put(trade(6))

    assert places(queue.take(NOW_US + HOLD_US, 100)) == [("A", 6), ("A", 7), ("A", 8)]


def test_sequenced_backlog_with_many_gaps_waits_once() -> None:
    queue = sequenced(8, 10, 12, confirmed="9-50")
    now_us = NOW_US + HOLD_US
    for last in ("9-50", "9-80", "9-100"):
        queue.take(now_us, 100)
        queue.settle(answer("gap", last), now_us)
        [_, (_, number)] = places(queue.take(now_us, 2))
        queue.settle(answer("ok", f"9-{number}0", "++"), now_us)

    assert queue.counters.gaps == 3
    assert queue.gap_causes == {"skipped": 3}


def test_sequenced_gap_without_place_is_made_anew_from_the_streams_end() -> None:
    queue = refused(8)
    queue.take(NOW_US + HOLD_US, 100)

    queue.settle(answer("gap", "9-60", "~"), NOW_US + HOLD_US)

    batch = queue.take(NOW_US + HOLD_US, 100)
    gap = batch.slots[0]  # type: ignore[union-attr]
    assert (gap.entry.expected, fields(gap)["from"], fields(gap)["to"]) == ("9-60", "7", "7")
    assert queue.counters.gaps == 0


def test_sequenced_gap_after_a_noted_cause_has_that_cause() -> None:
    queue = sequenced(5, confirmed="9-40")
    queue.set_gap_cause(GapCause.CONNECTION_LOST)
    queue.put(trade(8))
    queue.take(NOW_US, 1)
    queue.settle(answer("ok", "9-50", "+"), NOW_US)
    queue.take(NOW_US, 100)
    queue.settle(answer("gap", "9-50"), NOW_US)

    batch = queue.take(NOW_US + HOLD_US, 100)

    assert fields(batch.slots[0])["cause"] == "connection lost"  # type: ignore[union-attr]


def test_sequenced_queue_that_drains_writes_the_gap_at_once() -> None:
    queue = refused(8)

    queue.drain()

    assert places(queue.take(NOW_US, 100)) == [("G", 7), ("A", 8)]


def test_sequenced_head_refused_while_draining_writes_the_gap_at_once() -> None:
    queue = sequenced(8, confirmed="9-50")
    queue.drain()
    queue.take(NOW_US, 100)

    queue.settle(answer("gap", "9-50"), NOW_US)

    assert places(queue.take(NOW_US, 100)) == [("G", 7), ("A", 8)]


def test_sequenced_head_that_follows_while_it_waits_is_sent_without_a_gap() -> None:
    queue = refused(8)
    queue.slots[0].follow(5)  # the exchange skipped 6 and 7

    assert places(queue.take(NOW_US + HOLD_US, 100)) == [("A", 8)]


def test_sequenced_gap_that_was_written_makes_the_book_void_once() -> None:
    queue = refused(8)
    queue.take(NOW_US + HOLD_US, 100)
    queue.settle(answer("ok", "9-80", "++"), NOW_US + HOLD_US)

    assert [queue.snapshot_due(), queue.snapshot_due()] == [True, False]


def test_sequenced_start_makes_no_book_void() -> None:
    queue = sequenced(5)
    queue.take(NOW_US, 100)
    queue.settle(answer("empty", "0-0"), NOW_US)
    queue.take(NOW_US, 100)
    queue.settle(answer("ok", "9-50", "++"), NOW_US)

    assert not queue.snapshot_due()
    assert queue.counters.gaps == 0


def test_sequenced_recovered_trades_are_sent_before_the_one_that_waits_for_them() -> None:
    queue = refused(8)
    head = queue.slots[0]

    queue.put_recovered([trade(6), trade(7)], head)

    assert places(queue.take(NOW_US, 100)) == [("A", 6), ("A", 7), ("A", 8)]


def test_sequenced_recovered_trades_of_a_settled_message_are_sent_after_entries_in_flight() -> None:
    queue = sequenced(8, 9)
    queue.take(NOW_US, 1)

    queue.put_recovered([trade(7)], trade(5))

    assert [slot.entry.number for slot in queue.slots] == [8, 7, 9]


# ---- losses ------------------------------------------------------------------------------------


def test_sequenced_stream_whose_first_messages_were_dropped_begins_with_that_gap() -> None:
    """`start` would state that nothing is known to be missing."""
    queue = sequenced(1, 2, 3, 4)
    assert queue.drop_oldest(2)
    queue.take(NOW_US, 100)
    queue.settle(answer("empty", "0-0"), NOW_US)

    batch = queue.take(NOW_US + SECOND_US, 100)

    assert places(batch) == [("G", 2), ("A", 3), ("A", 4)]
    assert fields(batch.slots[0])["cause"] == "overflow"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("sent", "sign"),
    [(snapshot(5), "~"), (trade(4), "="), (trade(4), "!"), (trade(4), "+")],
    ids=["S", "=", "!", "+"],
)
def test_sequenced_stream_found_shorter_by_a_batch_that_is_settled_as_a_whole_is_lost(
    sent: Slot, sign: str
) -> None:
    """No status shows that the stream was emptied or fell back, and it may append a late message
    again, directly behind what it has left.
    """
    queue = sequenced(confirmed="9-50")
    queue.put(sent)
    queue.take(NOW_US, 100)

    queue.settle(answer("ok", "9-40", sign), NOW_US)

    assert (queue.is_lost, queue.lost_last, queue.confirmed) == (True, "9-40", "9-50")


@pytest.mark.parametrize(
    ("lower", "higher"),
    [("0-0", "9-10"), ("9-90", "9-91"), ("9-90", "9-100"), ("9-90", "10-9"), ("9-1000", "10-500")],
)
def test_entry_ids_are_compared_as_numbers(lower: str, higher: str) -> None:
    assert is_before(lower, higher)
    assert not is_before(higher, lower)
    assert not is_before(lower, lower)


def test_sequenced_stream_shorter_than_acknowledged_is_lost_and_sends_nothing() -> None:
    queue = sequenced(8, confirmed="9-70")
    queue.take(NOW_US, 100)

    queue.settle(answer("gap", "9-50"), NOW_US)

    assert (queue.state, queue.lost_last) == (QueueState.LOST, "9-50")
    assert queue.take(NOW_US + HOLD_US, 100) is None


def test_sequenced_whole_stream_lost_for_good_begins_anew_with_its_cause() -> None:
    queue = sequenced(8, confirmed="9-70")
    queue.take(NOW_US, 100)
    queue.settle(answer("empty", "0-0"), NOW_US)

    queue.accept_loss()

    batch = queue.take(NOW_US, 100)
    start = batch.slots[0]  # type: ignore[union-attr]
    assert (start.entry.expected, fields(start)["cause"]) == ("0-0", "redis lost entries")


def test_sequenced_emptied_stream_begins_with_the_loss_after_probes_for_another_bridge() -> None:
    peers = poll(Peers(), status("a", received={TRADES.name: NOW_US}))
    queue = sequenced(8, confirmed="9-70", peers=peers)
    queue.take(NOW_US, 100)
    queue.settle(answer("empty", "0-0"), NOW_US)
    queue.accept_loss()
    queue.take(NOW_US, 100)

    queue.settle(answer("empty", "0-0"), NOW_US)

    poll(peers)
    batch = queue.take(NOW_US + SECOND_US, 100)
    assert places(batch) == [("G", 7), ("A", 8)]
    assert fields(batch.slots[0])["cause"] == "redis lost entries"  # type: ignore[union-attr]


def test_sequenced_newest_entries_lost_for_good_become_a_gap_with_its_cause() -> None:
    queue = sequenced(8, confirmed="9-70")
    queue.take(NOW_US, 100)
    queue.settle(answer("gap", "9-50"), NOW_US)

    queue.accept_loss()

    batch = queue.take(NOW_US + HOLD_US, 100)
    named = fields(batch.slots[0])  # type: ignore[union-attr]
    assert (named["from"], named["to"], named["cause"]) == ("6", "7", "redis lost entries")


def test_sequenced_loss_accepted_while_nothing_waits_is_the_cause_of_the_next_gap() -> None:
    queue = sequenced(confirmed="9-70")
    queue.check_end("9-50", None)
    queue.accept_loss()
    queue.put(trade(8))
    queue.take(NOW_US, 100)
    queue.settle(answer("gap", "9-50"), NOW_US)

    batch = queue.take(NOW_US + HOLD_US, 100)

    assert fields(batch.slots[0])["cause"] == "redis lost entries"  # type: ignore[union-attr]


def test_sequenced_rewound_stream_continues_where_redis_is() -> None:
    queue = sequenced(8, confirmed="9-70")
    queue.take(NOW_US, 100)
    queue.settle(answer("gap", "9-50"), NOW_US)

    queue.rewind(0, 0, 0)
    for number in (5, 6, 7, 8):
        queue.put(trade(number))

    assert places(queue.take(NOW_US, 100)) == [("A", 5), ("A", 6), ("A", 7), ("A", 8)]
    queue.settle(answer("ok", "9-80", "=+++"), NOW_US)
    assert queue.counters.gaps == 0


def test_sequenced_loss_is_found_while_nothing_waits() -> None:
    queue = sequenced(confirmed="9-70")

    queue.check_end("9-70", None)
    assert not queue.is_lost
    queue.check_end("0-0", None)

    assert (queue.is_lost, queue.lost_last) == (True, "0-0")


def test_sequenced_rows_of_history_in_front_do_not_raise_the_oldest_position() -> None:
    """The entries queued after the rows are not settled: the checkpoint must not pass them."""
    queue = Sequenced(TRADES, Peers(), Resume(), 0)
    waiting = trade(10_000, position=7)
    queue.put(waiting)
    rows = [trade(number, position=99) for number in range(1, 2 * OLDEST_SCANNED)]

    queue.put_recovered(rows, waiting)

    assert queue.slots[-1] is waiting
    assert queue.oldest_position() == 7


# ---- numbers out of range, numbers that restart ------------------------------------------------


def test_sequenced_id_beyond_two_to_the_fifty_three_suspends_and_states_the_remedy() -> None:
    queue = sequenced(8)
    queue.take(NOW_US, 100)

    queue.settle(answer("foreign", "18446744073709551615-1"), NOW_US)

    assert queue.is_suspended
    assert "rename" in queue.reason
    assert queue.take(NOW_US, 100) is None
    queue.resume()
    assert places(queue.take(NOW_US, 100)) == [("A", 8)]


def test_sequenced_numbers_that_restart_are_accepted_after_five_seconds() -> None:
    queue = sequenced(confirmed="9-1000000")
    for number, second in ((1, 0), (2, 3), (3, 6)):
        queue.put(trade(number, NOW_US + second * SECOND_US))
        queue.take(NOW_US + second * SECOND_US, 100)
        queue.settle(answer("ok", "9-1000000", "!"), NOW_US + second * SECOND_US)

    batch = queue.take(NOW_US + 6 * SECOND_US, 100)

    assert places(batch) == [("G", 0), ("A", 1), ("A", 2), ("A", 3)]
    start = batch.slots[0]  # type: ignore[union-attr]
    assert (start.entry.expected, fields(start)["cause"]) == ("9-1000000", "renumbered")


def test_sequenced_single_message_appended_in_between_proves_that_numbers_continue() -> None:
    queue = sequenced(confirmed="9-1000000")
    for number, second, sign in ((1, 0, "!"), (100_001, 3, "+"), (2, 4, "!"), (3, 6, "!")):
        queue.put(trade(number, NOW_US + second * SECOND_US))
        queue.take(NOW_US + second * SECOND_US, 100)
        queue.settle(answer("ok", "9-1000010", sign), NOW_US + second * SECOND_US)

    assert queue.take(NOW_US + 7 * SECOND_US, 100) is None


# ---- memory ------------------------------------------------------------------------------------


def test_sequenced_full_buffer_drops_the_oldest_and_a_gap_covers_them() -> None:
    queue = sequenced(*range(6, 26), confirmed="9-50")
    before = queue.bytes

    freed = queue.drop_oldest(10)

    assert (len(queue.slots), queue.bytes) == (18, before - freed)
    queue.take(NOW_US, 100)
    queue.settle(answer("gap", "9-50"), NOW_US)
    batch = queue.take(NOW_US + HOLD_US, 100)
    named = fields(batch.slots[0])  # type: ignore[union-attr]
    assert (named["from"], named["to"], named["cause"]) == ("6", "7", "overflow")


def test_sequenced_full_buffer_does_not_drop_entries_in_flight() -> None:
    queue = sequenced(6, 7, 8)
    queue.take(NOW_US, 2)

    queue.drop_oldest(1)

    assert [slot.entry.number for slot in queue.slots] == [6, 7]
    assert queue.drop_oldest(1) == 0


def test_sequenced_discarded_queue_is_empty_and_stays_suspended() -> None:
    queue = refused(8, 9)
    queue.fail("WRONGTYPE")

    queue.discard()

    assert (len(queue.slots), queue.bytes, queue.state) == (0, 0, QueueState.SUSPENDED)


def test_sequenced_window_of_updates_needs_the_one_before_its_first() -> None:
    queue = sequenced(stream=DEPTH)
    queue.put(delta(5, 8))

    batch = queue.take(NOW_US, 100)

    assert [(s.after, s.entry.number) for s in batch.slots] == [(4, 8)]  # type: ignore[union-attr]


def test_sequenced_message_that_comes_while_its_successor_is_in_flight_goes_before_it() -> None:
    queue = sequenced(6, 8, confirmed="9-50")
    queue.take(NOW_US, 100)
    queue.put(trade(7))

    queue.settle(answer("gap", "9-60", "+"), NOW_US)

    assert places(queue.take(NOW_US, 100)) == [("A", 7), ("A", 8)]


def test_sequenced_message_that_comes_while_its_successor_gets_no_reply_goes_before_it() -> None:
    queue = sequenced(6, 8, confirmed="9-50")
    queue.take(NOW_US, 100)
    queue.put(trade(7))

    queue.no_reply()

    assert places(queue.take(NOW_US, 100)) == [("A", 6), ("A", 7), ("A", 8)]
    assert queue.bytes == sum(slot.size for slot in queue.slots)


def test_sequenced_missing_number_of_a_later_time_came_late_and_goes_to_its_place() -> None:
    queue = sequenced(5, 8, 9, confirmed="9-40")

    queue.put(trade(6, NOW_US + 2 * SECOND_US))
    queue.put(trade(4, NOW_US + 2 * SECOND_US))

    assert places(queue.take(NOW_US, 100)) == [("A", n) for n in (5, 6, 8, 9, 4)]
    assert [slot.begins_numbering for slot in queue.slots] == [False] * 4 + [True]


def test_sequenced_missing_number_before_the_head_is_recognised_by_the_last_id_of_redis() -> None:
    queue = sequenced(8, confirmed="9-50")

    queue.put(trade(7, NOW_US + 2 * SECOND_US))

    assert places(queue.take(NOW_US, 100)) == [("A", 7), ("A", 8)]


def test_sequenced_recovered_trades_of_no_known_message_go_first() -> None:
    queue = sequenced(8)

    queue.put_recovered([trade(6), trade(7)])

    assert places(queue.take(NOW_US, 100)) == [("A", 6), ("A", 7), ("A", 8)]


def test_sequenced_stream_refused_alone_and_rewound_is_open_again() -> None:
    queue = refused(8)
    queue.fail("WRONGTYPE")

    queue.rewind(7, 9, 0)

    assert (queue.state, queue.reason, queue.position, queue.replay_until) == (
        QueueState.OPEN, "", 7, 9,
    )  # fmt: skip


def test_sequenced_whole_stream_lost_and_rewound_begins_with_its_cause() -> None:
    queue = sequenced(8, confirmed="9-70")
    queue.take(NOW_US, 100)
    queue.settle(answer("empty", "0-0"), NOW_US)

    queue.rewind(0, 9, 0)
    queue.put(trade(5))

    assert queue.state is QueueState.WAITING
    batch = queue.take(NOW_US, 100)
    assert places(batch) == [("G", 4), ("A", 5)]
    assert fields(batch.slots[0])["cause"] == "redis lost entries"  # type: ignore[union-attr]
