"""The queue of a stream identified by content, which reads the stream's tail before it sends."""

from bridge.contract.causes import GapCause
from bridge.contract.streams import Stream, StreamType
from bridge.core.content import Content
from bridge.core.dedup import Occurrences
from bridge.core.entries import content_entry, content_gap, slot_of
from bridge.core.peers import Peers
from bridge.core.queue import QueueState
from bridge.core.tail import Tail, edge
from tests.support.queues import content, order_ids, poll, put_outage, sent, status, tail
from tests.support.slots import (
    NOW_US,
    ORDERS,
    TICKERS,
    answer,
    fields,
    order,
    order_event,
    ticker,
)

REPLAYED = 1_000  # bytes of the journal that an earlier process wrote


def ready(stream: Stream = ORDERS) -> Content:
    """A queue whose first message was acknowledged as 6-0."""
    queue = content(stream)
    queue.put(order("first", NOW_US))
    queue.read_tail(tail("5-0"))
    queue.take(NOW_US, 100)
    queue.settle(answer("ok", "6-0", "+"), NOW_US)
    return queue


# ---- the tail ------------------------------------------------------------------------------------


def test_content_tail_is_read_from_ten_seconds_before_the_oldest_message() -> None:
    queue = content()
    assert queue.tail_wanted(NOW_US) is None
    queue.put(order())

    assert queue.take(NOW_US, 100) is None
    assert queue.tail_wanted(NOW_US) == (NOW_US // 1000 - 10_000, None)


def test_content_batch_has_the_expected_last_id() -> None:
    queue = ready()
    queue.put(order("a", NOW_US + 5))
    queue.put(order("b", NOW_US + 1_007))

    batch = queue.take(NOW_US, 100)

    assert batch is not None
    assert batch.expected == "6-0"
    assert [(slot.entry.ms, slot.entry.number) for slot in batch.slots] == [
        (NOW_US // 1000, 5_000),
        (NOW_US // 1000 + 1, 7_000),
    ]


def test_content_stream_that_changed_is_read_again_and_messages_in_it_are_dropped() -> None:
    queue = ready()
    queue.put(order("a"))
    queue.put(order("b"))
    queue.take(NOW_US, 100)
    queue.settle(answer("moved", "8-0"), NOW_US)

    assert queue.take(NOW_US, 100) is None
    queue.read_tail(tail("8-0", ("8-0", fields(order("a")))))

    batch = queue.take(NOW_US, 100)
    assert batch is not None
    assert ([fields(s)["order_id"] for s in batch.slots], batch.expected) == (["b"], "8-0")
    assert queue.counters.duplicates == 1


def test_content_batch_without_reply_is_judged_by_the_tail() -> None:
    queue = ready()
    queue.put(order("a"))
    queue.take(NOW_US, 100)

    queue.no_reply()

    assert queue.state is QueueState.OPEN
    assert queue.tail_wanted(NOW_US) is not None
    queue.read_tail(tail("9-0", ("9-0", fields(order("a")))))
    assert queue.take(NOW_US, 100) is None


def test_content_message_received_again_after_the_tail_was_read_is_recognised_by_it() -> None:
    queue = content(replay_until=REPLAYED)
    queue.put(order("a"))
    queue.read_tail(tail("9-0", ("8-0", fields(order("a"))), ("9-0", fields(order("b")))))

    queue.put(order("b"))
    queue.put(order("c"))

    assert order_ids(queue) == ["c"]


def test_content_state_received_again_after_the_tail_was_read_is_overtaken_by_it() -> None:
    queue = content(TICKERS, replay_until=REPLAYED)
    queue.put(ticker(NOW_US + 1))
    stored = [("8-0", fields(ticker(NOW_US + 1))), ("9-0", fields(ticker(NOW_US + 3)))]
    queue.read_tail(tail("9-0", *stored))

    for moment_us in (NOW_US + 2, NOW_US + 3, NOW_US + 4):
        queue.put(ticker(moment_us))

    assert [named["event_us"] for named in sent(queue)] == [str(NOW_US + 4)]


def test_content_message_that_a_peer_wrote_before_it_was_received_is_not_written_again() -> None:
    queue = content()
    queue.put(order("a"))
    queue.read_tail(tail("9-0", ("9-0", fields(order("b")))))

    queue.put(order("b"))
    queue.put(order("c"))

    assert order_ids(queue) == ["a", "c"]


def test_content_state_that_a_peer_has_overtaken_before_it_was_received_is_late() -> None:
    queue = content(TICKERS)
    queue.put(ticker(NOW_US))
    queue.read_tail(tail("9-0", ("9-0", fields(ticker(NOW_US + 5)))))

    for moment_us in (NOW_US + 4, NOW_US + 5, NOW_US + 6):
        queue.put(ticker(moment_us))

    assert [named["event_us"] for named in sent(queue)] == [str(NOW_US + 6)]
    assert queue.counters.late == 1


def test_content_tail_does_not_count_once_redis_has_lost_it() -> None:
    queue = content(confirmed="8-0")
    queue.put(order("a"))
    queue.read_tail(tail("9-0", ("9-0", fields(order("b")))))
    queue.read_tail(tail("0-0"))
    assert queue.is_lost

    queue.accept_loss()
    queue.put(order("b"))

    assert [fields(slot)["type"] for slot in queue.slots] == [
        "gap",
        "orderAccepted",
        "orderAccepted",
    ]


def test_content_equal_messages_of_one_connection_are_two() -> None:
    occurrences = Occurrences()
    queue = content()
    for _ in range(2):
        entry = content_entry(order_event(), NOW_US, 1, occurrences)
        queue.put(slot_of(entry, 0, NOW_US))

    queue.read_tail(tail("9-0", ("9-0", fields(order()))))

    assert [named["occurrence"] for named in sent(queue)] == ["1"]


def test_content_entry_of_another_program_in_the_tail_is_skipped() -> None:
    queue = content()
    queue.put(order())

    queue.read_tail(tail("9-0", ("9-0", {"hello": "world"})))

    assert len(sent(queue)) == 1


def test_content_trimmed_message_is_not_written_again_after_the_kept_entries() -> None:
    queue = content()
    events = [order(str(number), NOW_US + number * 1_000_000) for number in range(6)]
    entries = [(f"{event.entry.ms}-0", fields(event)) for event in events[3:5]]
    for event in events[:4]:
        queue.put(event)

    queue.read_tail(tail(entries[-1][0], *entries)._replace(first=edge(*entries[0])))
    for event in events[4:]:
        queue.put(event)

    assert order_ids(queue) == ["5"]
    assert queue.counters.duplicates == 5


def test_content_message_received_after_the_first_kept_entry_is_new_with_any_time() -> None:
    queue = content()
    first = order("first", NOW_US)
    queue.put(order("late", NOW_US - 60_000_000, NOW_US + 1))
    queue.put(order("wound back", NOW_US + 9_000_000, NOW_US - 5))

    last = f"{first.entry.ms}-0"
    queue.read_tail(tail(last, (last, fields(first)))._replace(first=edge(last, fields(first))))

    assert len(sent(queue)) == 2


def only_gap_left(at: int = NOW_US) -> Tail:
    """A tail whose only retained entry is a gap from 5 s before `at` until 2 s after it."""
    entry = content_gap(
        symbol="",
        from_us=at - 5_000_000,
        to_us=at + 2_000_000,
        cause=GapCause.CONNECTION_LOST,
        received_us=at + 2_000_000,
    )
    last = f"{entry.ms}-{entry.number}"
    return tail(last, (last, fields(entry)))._replace(first=edge(last, fields(entry)))


def test_content_sent_without_a_reply_and_only_the_gap_behind_it_left_is_not_sent_again() -> None:
    queue = ready()
    queue.put(order("sent", NOW_US))
    assert order_ids(queue) == ["sent"]
    queue.no_reply()

    queue.read_tail(only_gap_left())

    assert not queue.slots


def test_content_received_again_and_only_the_gap_behind_it_left_is_not_sent_again() -> None:
    queue = content(replay_until=REPLAYED)
    queue.put(order("before", NOW_US))
    queue.put(order("behind", NOW_US + 2_000_000))

    queue.read_tail(only_gap_left())
    queue.put(order("before, read later", NOW_US + 1))

    assert order_ids(queue) == ["behind"]


def test_content_new_message_within_the_gap_that_is_left_is_sent() -> None:
    queue = content()
    queue.put(order("new", NOW_US))

    queue.read_tail(only_gap_left())

    assert order_ids(queue) == ["new"]


def test_content_sent_without_a_reply_and_only_a_gap_of_another_bridge_left_is_sent_again() -> None:
    queue = content(peers=poll(Peers(), status("z"), stream=ORDERS), replay_until=REPLAYED)
    queue.put(order("held back", NOW_US))

    queue.read_tail(only_gap_left())

    assert order_ids(queue) == ["held back"]


# ---- states --------------------------------------------------------------------------------------


def test_content_state_older_than_the_newest_is_late() -> None:
    queue = content(TICKERS)
    queue.put(ticker(NOW_US + 5))

    queue.put(ticker(NOW_US))

    assert (len(queue.slots), queue.counters.late) == (1, 1)


def test_content_equal_states_are_one_and_another_of_the_same_time_is_kept() -> None:
    queue = content(TICKERS)
    for price in ("1", "1", "2"):
        queue.put(ticker(NOW_US, price))

    assert (len(queue.slots), queue.counters.duplicates) == (2, 1)


def test_content_states_after_a_restart_continue_above_the_newest_stored() -> None:
    queue = content(TICKERS)
    for second in (1, 2, 3):
        queue.put(ticker(NOW_US + second))

    queue.read_tail(tail("9-0", ("9-0", fields(ticker(NOW_US + 2)))))

    assert [named["event_us"] for named in sent(queue)] == [str(NOW_US + 3)]


def test_content_unchanged_state_of_a_later_time_is_kept() -> None:
    queue = content(TICKERS)
    queue.put(ticker(NOW_US + 1_000_000, "98.97"))

    queue.read_tail(tail("9-0", ("9-0", fields(ticker(NOW_US, "98.97")))))

    assert len(sent(queue)) == 1


def test_content_state_of_an_absurd_time_makes_others_late_for_seconds_only() -> None:
    queue = content(TICKERS)
    queue.put(ticker(NOW_US + 3_000_000_000))
    for second in range(8):
        queue.put(ticker(NOW_US + second * 1_000_000))

    assert queue.counters.late == 5
    assert [fields(slot)["type"] for slot in queue.slots] == [
        "ticker", "gap", "ticker", "ticker", "ticker",
    ]  # fmt: skip
    gap = fields(queue.slots[1])
    assert (gap["from_us"], gap["to_us"], gap["cause"]) == (
        str(NOW_US),
        str(NOW_US + 4_000_000),
        "renumbered",
    )


# ---- outages and losses --------------------------------------------------------------------------


def test_content_outage_is_marked_before_the_first_message_received_after_it() -> None:
    queue = content()
    queue.put(order("before", NOW_US))
    queue.put(order("after", NOW_US + 9))

    put_outage(queue, NOW_US + 1, NOW_US + 8)

    queue.read_tail(tail("0-0"))
    before, gap, after = sent(queue)
    assert (before["order_id"], after["order_id"]) == ("before", "after")
    assert (gap["from_us"], gap["to_us"], gap["cause"]) == (
        str(NOW_US + 1),
        str(NOW_US + 8),
        "connection lost",
    )


def test_content_outage_is_not_put_before_entries_in_flight() -> None:
    queue = ready()
    queue.put(order("a", NOW_US + 20))
    queue.take(NOW_US + 20, 100)

    put_outage(queue, NOW_US + 1, NOW_US + 8)

    assert [fields(slot)["type"] for slot in queue.slots] == ["orderAccepted", "gap"]


def test_content_loss_that_the_journal_cannot_backfill_is_marked() -> None:
    queue = ready()
    queue.put(order("a"))
    queue.no_reply()
    queue.read_tail(tail("0-0"))
    assert queue.take(NOW_US, 100) is None

    queue.accept_loss()
    queue.read_tail(tail("0-0"))

    batch = queue.take(NOW_US, 100)
    assert batch is not None
    gap, first = (fields(slot) for slot in batch.slots)
    assert (gap["type"], gap["cause"], batch.expected) == ("gap", "redis lost entries", "0-0")
    assert first["order_id"] == "a"


def test_content_gap_of_a_loss_begins_at_the_kept_entrys_own_time() -> None:
    queue = ready()
    kept = fields(order("kept", NOW_US - 60_000_000)) | {"received_us": str(NOW_US)}
    lose(queue, f"{NOW_US // 1000}-0", kept)

    queue.accept_loss()

    (gap,) = queue.slots
    assert fields(gap)["from_us"] == str(NOW_US - 60_000_000)


def lose(queue: Content, last: str, kept: dict[str, str]) -> None:
    """Make the queue find that Redis lost all entries after `last`."""
    queue.confirmed = f"{NOW_US // 1000 + 3_600_000}-0"
    queue.discard()
    queue.check_end(last, edge(last, kept))
    assert (queue.state, queue.lost_last) == (QueueState.LOST, last)


def test_content_backfill_adds_missing_messages_and_marks_those_the_journal_lacks() -> None:
    queue = ready()
    there = fields(order("there", NOW_US - 1))
    lose(queue, f"{NOW_US // 1000}-0", there)

    queue.rewind(0, REPLAYED, NOW_US + 5_000_000)
    queue.put(order("too old", NOW_US - 11_000_000))
    queue.put(order("there", NOW_US - 1))
    queue.put(order("lost", NOW_US + 7_000_000))
    queue.read_tail(tail(f"{NOW_US // 1000}-0", ("1-1", there)))

    gap, event = sent(queue)
    assert (gap["from_us"], gap["to_us"]) == (str(NOW_US - 1), str(NOW_US + 5_000_000))
    assert event["order_id"] == "lost"


def check_backfill_while_the_engines_clock_is_back(kept_s: int) -> None:
    queue = ready()
    kept = order("kept", NOW_US + kept_s * 1_000_000)
    last, entry = f"{kept.entry.ms}-0", fields(kept) | {"received_us": str(NOW_US)}
    lose(queue, last, entry)

    queue.rewind(0, REPLAYED, NOW_US - 1)
    queue.put(order("there", NOW_US - 60_000_000))
    for second in range(3):
        received_us = NOW_US + second * 1_000_000
        queue.put(order(f"lost {second}", received_us - 60_000_000, received_us))
    queue.replayed()
    live = order("live", NOW_US - 50_000_000, NOW_US + 10_000_000, position=REPLAYED)
    queue.put(live)

    queue.read_tail(tail(last, (last, entry)))
    assert order_ids(queue) == ["lost 0", "lost 1", "lost 2", "live"]


def test_content_backfill_adds_messages_lost_while_the_engines_clock_went_back() -> None:
    check_backfill_while_the_engines_clock_is_back(0)


def test_content_backfill_adds_lost_messages_although_the_kept_entry_was_ahead() -> None:
    check_backfill_while_the_engines_clock_is_back(3_000)


def test_content_backfill_skips_outages_before_the_kept_entry() -> None:
    queue = ready()
    lose(queue, f"{NOW_US // 1000}-0", fields(order("kept", NOW_US)))
    queue.rewind(0, REPLAYED, NOW_US - 60_000_000)

    put_outage(queue, NOW_US - 40_000_000, NOW_US - 30_000_000)
    put_outage(queue, NOW_US + 1, NOW_US + 9)

    assert [fields(slot)["from_us"] for slot in queue.slots] == [str(NOW_US + 1)]


# ---- suspended, full, idle -----------------------------------------------------------------------


def test_content_full_buffer_drops_the_oldest_and_a_gap_covers_the_interval() -> None:
    queue = content()
    for number in range(20):
        queue.put(order(str(number), NOW_US + number))

    queue.drop_oldest(10)

    queue.read_tail(tail("0-0"))
    gap, *rest = sent(queue)
    assert (gap["from_us"], gap["to_us"], gap["cause"]) == (
        str(NOW_US),
        str(NOW_US + 1),
        "overflow",
    )
    assert (len(rest), queue.counters.overflowed) == (18, 2)


def test_content_suspended_stream_reads_its_tail_again_when_it_resumes() -> None:
    queue = ready()
    queue.put(order("a"))
    queue.take(NOW_US, 100)

    queue.fail("WRONGTYPE")
    assert queue.tail_wanted(NOW_US) is None
    queue.resume()

    assert queue.tail_wanted(NOW_US) is not None


def test_content_id_beyond_two_to_the_fifty_three_suspends() -> None:
    queue = ready()
    queue.put(order("a"))
    queue.take(NOW_US, 100)

    queue.settle(answer("foreign", "18446744073709551615-1"), NOW_US)

    assert queue.is_suspended
    assert "rename" in queue.reason


def test_content_queue_without_peers_sends_without_delay() -> None:
    assert ready(Stream("liquidation", StreamType.LIQUIDATION)).due_us() is None


def test_content_settled_until_is_a_second_before_pending_entries_and_unknown_with_a_gap() -> None:
    queue = content()
    assert queue.settled_until_us(NOW_US) == NOW_US

    queue.put(order("a", NOW_US - 5_000_000))
    assert queue.settled_until_us(NOW_US) == NOW_US - 6_000_000

    put_outage(queue, NOW_US - 9, NOW_US - 1)
    assert queue.settled_until_us(NOW_US) is None


def test_content_gap_that_the_tail_has_with_another_time_of_receipt_is_not_written_again() -> None:
    queue = content(replay_until=REPLAYED)
    put_outage(queue, NOW_US + 1, NOW_US + 8)
    (gap,) = queue.slots
    stored = fields(gap) | {"received_us": str(NOW_US + 77)}

    queue.read_tail(tail("9-0", ("9-0", stored)))

    assert not queue.slots
    assert [fields(slot)["to_us"] for slot in queue.gaps_written()] == [str(NOW_US + 8)]


def test_content_gap_that_the_tail_had_before_it_was_reported_is_not_written_again() -> None:
    other = content()
    put_outage(other, NOW_US + 1, NOW_US + 8)
    queue = content(replay_until=REPLAYED)
    queue.put(order("a", NOW_US - 5))
    queue.read_tail(tail("9-0", ("9-0", fields(other.slots[0]))))

    put_outage(queue, NOW_US + 1, NOW_US + 8)

    assert order_ids(queue) == ["a"]


def test_content_stream_refused_alone_and_rewound_writes_no_gap() -> None:
    queue = ready()
    queue.put(order("a"))
    queue.fail("WRONGTYPE")

    queue.rewind(0, REPLAYED, NOW_US)
    queue.put(order("a"))

    assert (queue.state, queue.stored_until_us) == (QueueState.OPEN, 0)
    assert [fields(slot)["type"] for slot in queue.slots] == ["orderAccepted"]


def test_content_whole_stream_lost_is_backfilled_from_the_journals_oldest() -> None:
    queue = ready()
    queue.take(NOW_US, 100)
    queue.check_end("0-0", None)

    queue.rewind(0, REPLAYED, NOW_US - 60_000_000)
    queue.put(order("a", NOW_US - 50_000_000))
    queue.read_tail(tail("0-0"))

    gap, event = sent(queue)
    assert (gap["from_us"], gap["to_us"]) == ("", str(NOW_US - 60_000_000))
    assert event["order_id"] == "a"


def test_content_poll_reports_no_loss_while_entries_are_pending() -> None:
    queue = ready()
    queue.put(order("a"))

    queue.check_end("0-0", None)

    assert not queue.is_lost  # reading the tail will show the loss
