"""Backfills from the journal of streams that Redis lost."""

from pathlib import Path

import pytest

from bridge.contract.identity import EntryId
from bridge.core.records import Watermarks
from tests.support.full_disk import FullDisk
from tests.support.ingest_subject import (
    NOW_US,
    ORDERS,
    SECOND_US,
    TICKERS,
    TRADES,
    IngestSubject,
    lose,
    numbers,
    subject_with_trades,
)
from tests.support.stepped_bridge import history

SMALL = 300_000
LOST = "redis lost entries"


def test_backfill_lost_stream_is_read_again_alone(tmp_path: Path) -> None:
    subject = subject_with_trades(tmp_path)
    subject.trades(1)

    lose(subject, TRADES)
    published = subject.queue(ORDERS).counters.published
    subject.come_to_rest()

    assert subject.server.numbers(TRADES) == [f"gap - {LOST}", *map(str, numbers(0, 6))]
    assert subject.queue(ORDERS).counters.published == published


def test_backfill_marks_what_only_another_bridge_received_before_a_restart(tmp_path: Path) -> None:
    """Its watermark is in the journal, but what it wrote may have been lost as well."""
    subject = subject_with_trades(tmp_path)
    ended_us = subject.now_us
    subject.now_us += 20 * SECOND_US
    subject.begin_again()
    mark_us = subject.now_us - SECOND_US
    subject.ingest.take(Watermarks(subject.now_us, {ORDERS: mark_us}))
    subject.order(2, subject.connect())
    subject.come_to_rest()
    assert subject.stored() == ["1", "bridge was not running", "2"]
    assert int(subject.server.entries(ORDERS)[1]["from_us"]) >= mark_us - SECOND_US

    lose(subject, ORDERS)
    subject.come_to_rest()

    assert subject.stored() == [LOST, "1", "bridge was not running", "2"]
    assert int(subject.server.entries(ORDERS)[2]["from_us"]) < ended_us + SECOND_US


def test_backfill_meanwhile_other_streams_continue(tmp_path: Path) -> None:
    subject = subject_with_trades(tmp_path)
    lose(subject, TRADES)

    subject.order(2)
    subject.trades(2)

    assert subject.ingest.is_live
    assert subject.queued() == ["2"]
    assert subject.waiting() == []
    subject.ingest.step(4)
    assert len(subject.waiting()) < 7
    subject.read_journal()
    assert subject.waiting() == numbers(0, 7)
    subject.trades(1)
    assert subject.waiting() == numbers(0, 8)
    assert subject.queued() == ["2"]


def test_backfill_holds_the_checkpoint_of_no_other_stream(tmp_path: Path) -> None:
    subject = subject_with_trades(tmp_path)
    lose(subject, TRADES)

    checkpoint = subject.ingest.checkpoint()

    assert checkpoint.offset == subject.log.end
    assert checkpoint.suspended == {TRADES: 0}


def test_backfill_second_stream_lost_meanwhile_is_read_again_too(tmp_path: Path) -> None:
    subject = subject_with_trades(tmp_path)
    lose(subject, TRADES)
    subject.ingest.step(4)

    lose(subject, ORDERS)
    subject.come_to_rest()

    assert subject.trade_ids() == numbers(0, 5)
    assert subject.stored() == [LOST, "1"]


def test_backfill_memory_full_meanwhile_publishes_nothing_twice(tmp_path: Path) -> None:
    subject = IngestSubject(tmp_path, buffer_bytes=SMALL)
    subject.connect()
    subject.trades(50)
    subject.order(1)
    subject.pump()
    lose(subject, ORDERS)

    subject.trades(3000)
    assert not subject.ingest.is_live
    subject.come_to_rest()

    assert subject.trade_ids() == numbers(0, 3050)
    assert subject.stored() == [LOST, "1"]


def test_backfill_of_a_stream_that_fills_the_memory_is_published(tmp_path: Path) -> None:
    """Redis was unavailable until only the journal took messages, and comes back empty."""
    subject = IngestSubject(tmp_path, buffer_bytes=SMALL)
    connection = subject.connect()
    subject.trades(10, connection)
    subject.order(1, connection)
    subject.pump()

    subject.trades(1000, connection)
    subject.order(2, connection)
    assert not subject.ingest.is_live
    subject.server.flush()
    subject.now_us += 10_000_000
    subject.come_to_rest()

    assert subject.ingest.is_live
    assert subject.trade_ids() == numbers(0, 1010)
    assert subject.stored() == [LOST, "1", "2"]


def test_backfill_of_a_gap_with_more_behind_it_than_memory_may_hold_is_published(
    tmp_path: Path,
) -> None:
    subject = IngestSubject(tmp_path, buffer_bytes=1_600_000)
    connection = subject.connect()
    subject.trades(5, connection)
    subject.skip(1)
    subject.trades(1000, connection)
    for _ in range(3):
        subject.now_us += 31_000_000
        subject.come_to_rest()
    assert subject.trade_ids() == [*numbers(0, 5), *numbers(6, 1000)]

    lose(subject, TRADES)
    subject.come_to_rest()

    assert subject.trade_ids() == [*numbers(0, 5), *numbers(6, 1000)]


def test_backfill_gap_meanwhile_is_recovered_by_the_reply_in_the_journal(tmp_path: Path) -> None:
    subject = subject_with_trades(tmp_path, 2)
    lose(subject, TRADES)

    subject.trades(1)
    subject.skip(2)
    subject.trades(1)
    subject.rest_body(TRADES, history([(number, 1) for number in numbers(0, 6)]))
    subject.come_to_rest()

    assert subject.trade_ids() == numbers(0, 6)


def test_backfill_gap_read_again_is_one_record_of_the_gap_log(tmp_path: Path) -> None:
    subject = subject_with_trades(tmp_path, 2)
    subject.skip(1)
    subject.trades(1)
    subject.rest_body(TRADES, history([(number, 1) for number in numbers(0, 4)]))
    subject.come_to_rest()
    before = subject.server.entries("bridge:gaps")
    lose(subject, TRADES)
    subject.come_to_rest()

    after = [each for each in subject.server.entries("bridge:gaps") if each["cause"] != LOST]
    assert after == before
    assert len(before) == 1


def test_backfill_that_ends_before_a_tick_marks_the_outage(
    tmp_path: Path,
) -> None:
    """A stream that is not backfilled proves that the connection receives messages again."""
    subject = IngestSubject(tmp_path)
    first = subject.connect()
    subject.tick(first)
    subject.now_us += 1000
    subject.lose(first)
    subject.trades(1, subject.connect())
    marked = subject.outages(TICKERS)
    assert marked
    subject.pump()

    lose(subject, TICKERS)
    assert subject.outages(TICKERS) == []
    subject.read_journal()

    assert [each for each in subject.outages(TICKERS) if each[1] != NOW_US] == marked


def test_backfill_connections_made_while_the_log_was_broken_are_known_to_it(
    tmp_path: Path, full_disk: FullDisk
) -> None:
    subject = subject_with_trades(tmp_path, 0)
    full_disk.begin()
    subject.trades(1)
    subject.lose(1)
    second = subject.connect()
    subject.trades(1, second)
    subject.log.flush()
    full_disk.end()
    subject.recover()
    subject.trades(2, second)
    subject.pump()

    lose(subject, TRADES)
    subject.come_to_rest()

    assert subject.trade_ids() == numbers(0, 4)
    assert not subject.core.quarantine.slots


# ---- where the journal does not reach back -------------------------------------------------------


def received_much(folder: Path) -> tuple[IngestSubject, dict[str, dict[str, int]]]:
    """A bridge that has published trades, orders and tickers; by stream, the time in µs at which
    each was received.
    """
    subject = IngestSubject(folder, segment_bytes=5_000)
    connection = subject.connect()
    for number in range(100):
        subject.trades(3, connection)
        subject.order(number, connection)
        subject.now_us += 1_000_000
        subject.tick(connection)
        subject.pump()
    subject.come_to_rest()
    return subject, {name: came(subject, name) for name in (TRADES, ORDERS, TICKERS)}


def came(subject: IngestSubject, name: str) -> dict[str, int]:
    return {
        entry.get("trade_id") or entry.get("order_id") or entry["event_us"]: int(
            entry["received_us"]
        )
        for entry in subject.server.entries(name)
        if entry["type"] != "gap"
    }


def assert_all_there_or_marked(
    subject: IngestSubject, before: dict[str, dict[str, int]], *lost: str
) -> None:
    for name in lost:
        first, *_ = subject.server.entries(name)
        assert (first["type"], first["cause"]) == ("gap", LOST), name
        there = came(subject, name)
        assert set(there) <= set(before[name]), name
        begun_us = min(there.values())
        spans = [
            (int(entry["from_us"] or 0), int(entry["to_us"]))
            for entry in subject.server.entries(name)
            if entry["type"] == "gap" and entry["to_us"]
        ]
        if name == TRADES:  # sequenced: missing numbers are named by gaps
            numbers_there = sorted(map(int, there))
            missing = [n for n in map(int, before[name]) if n > numbers_there[0]]
            named = {
                number
                for entry in subject.server.entries(name)
                if entry["type"] == "gap" and entry["from"]
                for number in range(int(entry["from"]), int(entry["to"]) + 1)
            }
            assert set(missing) <= set(numbers_there) | named
        else:
            for key, at_us in before[name].items():
                marked = any(from_us <= at_us <= to_us for from_us, to_us in spans)
                assert key in there or marked, f"{name}: {key}, begun {begun_us - NOW_US}"


def prune(subject: IngestSubject, count: int) -> None:
    subject.flush()
    for _ in range(count):
        subject.prune()


def test_backfill_redis_emptied_where_the_journal_is_pruned_each_stream_begins_with_its_gap(
    tmp_path: Path,
) -> None:
    subject, before = received_much(tmp_path)
    prune(subject, 8)

    subject.server.flush()
    subject.now_us += 10_000_000
    subject.come_to_rest()

    assert_all_there_or_marked(subject, before, TRADES, ORDERS, TICKERS)


def test_backfill_streams_found_lost_one_after_another_each_begins_with_its_gap(
    tmp_path: Path,
) -> None:
    subject, before = received_much(tmp_path)
    prune(subject, 4)

    for name in (ORDERS, TRADES, TICKERS):
        lose(subject, name)
        subject.now_us += 6_000_000
        for _ in range(2):
            subject.ingest.step(40)
            subject.publish(5)
        prune(subject, 2)
    subject.come_to_rest()

    assert_all_there_or_marked(subject, before, TRADES, ORDERS, TICKERS)


def test_backfill_pruned_while_it_is_read_marks_the_pruned_records(tmp_path: Path) -> None:
    subject, before = received_much(tmp_path)
    subject.server.flush()
    subject.now_us += 10_000_000
    subject.publish(500)
    subject.ingest.step(60)

    prune(subject, 12)
    subject.now_us += 1_000_000
    subject.come_to_rest()

    assert_all_there_or_marked(subject, before, TRADES, ORDERS, TICKERS)
    assert set(came(subject, ORDERS)) == set(before[ORDERS]), "account events are not skipped"


def test_backfill_lost_again_and_again_each_stream_begins_with_its_gap(tmp_path: Path) -> None:
    subject, before = received_much(tmp_path)
    for _ in range(4):
        subject.server.flush()
        subject.now_us += 6_000_000
        subject.publish(50)
        subject.ingest.step(70)
        subject.publish(50)
        prune(subject, 3)
    subject.now_us += 6_000_000
    subject.come_to_rest()

    assert_all_there_or_marked(subject, before, TRADES, ORDERS, TICKERS)


def emptied_and_read_again(folder: Path) -> tuple[IngestSubject, dict[str, dict[str, int]]]:
    """Redis was emptied, and each stream's gap waits to be written."""
    subject, before = received_much(folder)
    prune(subject, 8)
    subject.server.flush()
    subject.now_us += 10_000_000
    subject.publish(500)
    subject.ingest.step(1)
    assert subject.queued() == [LOST]
    return subject, before


def test_backfill_suspended_before_its_gap_is_written_each_stream_begins_with_it(
    tmp_path: Path,
) -> None:
    """As where the node of a shard comes back empty, and is away again at once."""
    subject, before = emptied_and_read_again(tmp_path)

    subject.ingest.suspend(list(subject.table), "its node is unavailable")
    for _ in range(3):
        subject.now_us += 20_000_000
        subject.come_to_rest()

    assert_all_there_or_marked(subject, before, TRADES, ORDERS, TICKERS)
    assert [subject.stored(name).count(LOST) for name in (ORDERS, TICKERS)] == [1, 1]


def test_backfill_killed_before_its_gap_is_written_each_stream_begins_with_it(
    tmp_path: Path,
) -> None:
    subject, before = emptied_and_read_again(tmp_path)

    subject.begin_again()
    for _ in range(3):
        subject.now_us += 20_000_000
        subject.come_to_rest()

    assert_all_there_or_marked(subject, before, TRADES, ORDERS, TICKERS)
    assert [subject.stored(name).count(LOST) for name in (ORDERS, TICKERS)] == [1, 1]


def test_backfill_journals_folder_deleted_while_the_bridge_was_stopped_marks_all(
    tmp_path: Path,
) -> None:
    subject, before = received_much(tmp_path)
    subject.flush()
    subject.save_checkpoint()
    subject.kill()
    for path in tmp_path.iterdir():
        path.unlink()
    subject.server.flush()

    subject.start()
    subject.read_journal()
    connection = subject.connect()
    subject.order(1000, connection)
    subject.tick(connection)
    subject.trades(1, connection)
    subject.now_us += 6_000_000
    for _ in range(3):
        subject.come_to_rest()
        subject.now_us += 31_000_000

    for name in (ORDERS, TICKERS):
        spans = [
            (int(entry["from_us"] or 0), int(entry["to_us"]))
            for entry in subject.server.entries(name)
            if entry["type"] == "gap"
        ]
        assert all(any(a <= us <= b for a, b in spans) for us in before[name].values()), name
    assert subject.server.entries(TRADES)[0]["cause"] == LOST


# ---- the gap log ---------------------------------------------------------------------------------

GAP_LOG = "bridge:gaps"


def with_gaps(folder: Path) -> IngestSubject:
    """A bridge that has written and logged two gaps of trades, one of orders, one of tickers."""
    subject = subject_with_trades(folder)
    for _ in range(2):
        subject.skip(2)
        subject.trades(1)
    subject.lose(1)
    subject.now_us += 60_000_000
    connection = subject.connect()
    subject.order(2, connection)
    subject.trades(1, connection)
    for _ in range(3):
        subject.come_to_rest()
        subject.now_us += 31_000_000
    assert len(gaps(subject)) == len(logged(subject)) == 4
    return subject


def gaps(subject: IngestSubject) -> set[tuple[str, ...]]:
    """All gaps in the streams, except those at a stream's start."""
    return {
        (name, *(entry[field] for field in ("from", "to", "from_us", "to_us", "cause")))
        for name in (TRADES, ORDERS, TICKERS)
        for entry in subject.server.entries(name)
        if entry["type"] == "gap" and entry["cause"] != "start"
    }


def logged(subject: IngestSubject) -> list[tuple[str, ...]]:
    return [
        tuple(entry[field] for field in ("stream", "from", "to", "from_us", "to_us", "cause"))
        for entry in subject.server.entries(GAP_LOG)
        if entry["type"] == "gap_record"
    ]


@pytest.mark.parametrize("times", [1, 4])
@pytest.mark.parametrize("is_restarted", [False, True])
def test_gap_log_after_flushall_has_one_record_for_each_gap(
    times: int, is_restarted: bool, tmp_path: Path
) -> None:
    subject = with_gaps(tmp_path)
    before = set(logged(subject))

    for _ in range(times):
        subject.server.flush()
        if is_restarted:
            subject.begin_again()
        for _ in range(3):
            subject.now_us += 10_000_000
            subject.come_to_rest()

    after = logged(subject)
    assert len(after) == len(set(after))
    assert set(after) >= before | gaps(subject)


def test_gap_log_evicted_alone_has_its_records_again(tmp_path: Path) -> None:
    subject = with_gaps(tmp_path)
    before = logged(subject)

    subject.server.delete(GAP_LOG)
    subject.now_us += 10_000_000
    subject.come_to_rest()

    assert sorted(logged(subject)) == sorted(before)


def test_gap_log_backfilled_holds_the_checkpoint_of_no_stream(tmp_path: Path) -> None:
    subject = with_gaps(tmp_path)
    subject.server.delete(GAP_LOG)
    subject.now_us += 10_000_000
    subject.publish(500)

    checkpoint = subject.ingest.checkpoint()

    assert checkpoint.offset == subject.log.end
    assert checkpoint.suspended == {GAP_LOG: 0}


def test_gap_log_of_private_streams_that_no_journal_keeps_is_not_journaled(
    tmp_path: Path,
) -> None:
    subject = IngestSubject(tmp_path, keeps_private=False)
    first = subject.connect_to([ORDERS])
    subject.order(1, first, is_private=True)
    subject.lose(first, is_private=True)
    subject.now_us += 60_000_000
    subject.connect_to([ORDERS])
    subject.come_to_rest()
    subject.come_to_rest()

    assert [entry[0] for entry in logged(subject)] == [ORDERS]
    subject.log.flush()
    assert ORDERS.encode() not in subject.journaled()


def test_backfill_connection_lost_in_the_journal_behind_a_second_loss_continues(
    tmp_path: Path,
) -> None:
    """When the first backfill continues, the stream belongs to a second backfill."""
    subject = subject_with_trades(tmp_path)
    subject.lose(1)
    connection = subject.connect()
    subject.order(2, connection)
    subject.trades(1, connection)
    subject.pump()
    lose(subject, ORDERS)
    subject.ingest.step(3)
    subject.pump()
    lose(subject, ORDERS)

    subject.come_to_rest()

    assert [each for each in subject.stored() if each in "12"] == ["1", "2"]


def test_backfill_foreign_entry_last_in_redis_and_journal_pruned_begins_with_a_gap(
    tmp_path: Path,
) -> None:
    """The last ID in Redis is another program's, and far ahead of ours."""
    subject, before = received_much(tmp_path)
    stream = subject.server.streams[ORDERS.encode()]
    stream.entries = [(EntryId(subject.now_us // 1000 + 9_000_000, 0), [b"by", b"hand"])]
    subject.order(200)
    subject.queue(ORDERS).confirmed = f"{subject.now_us // 1000 + 9_000_001}-0"
    stream.last = stream.entries[-1][0]
    prune(subject, 8)
    subject.now_us += 10_000_000

    subject.come_to_rest()

    ours = [entry for entry in subject.server.entries(ORDERS) if "type" in entry]
    assert (ours[0]["type"], ours[0]["cause"], ours[0]["from_us"]) == ("gap", LOST, "")
    there = {entry.get("order_id") for entry in ours}
    until_us = int(ours[0]["to_us"])
    assert all(key in there or at_us <= until_us for key, at_us in before[ORDERS].items())
