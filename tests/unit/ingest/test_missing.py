"""Messages lost before the journal could write them: it records the loss, gaps mark it."""

from pathlib import Path

import pytest

from bridge.contract.causes import GapCause
from bridge.contract.streams import parse_stream
from bridge.core.core import Core
from bridge.core.peers import Peers, PeerStatus
from bridge.core.queue import QueueTable
from bridge.core.records import Answered, Missing
from bridge.journal.inspection import records
from tests.support.full_disk import FullDisk
from tests.support.ingest_subject import (
    FIRST,
    NOW_US,
    ORDERS,
    PLAN,
    SECOND_US,
    TICKERS,
    TRADES,
    IngestSubject,
    numbers,
)

QUIET = (TRADES, ORDERS)  # streams without a period
NO_TAIL = 1  # bytes: frames that cannot be written are dropped at once
LOST, MISSING = "redis lost entries", "not in the journal"
SMALL = 300_000
BUFFER_BYTES = 1_000_000


def order_at(subject: IngestSubject, number: int, second: int, connection: int = 1) -> None:
    subject.now_us = NOW_US + second * SECOND_US
    subject.order(number, connection)


def with_a_loss(folder: Path, full_disk: FullDisk) -> IngestSubject:
    """Order 1 is journaled; 2 to 5 are lost on a full disk, 20 to 80 s later; 6 is journaled."""
    subject = IngestSubject(folder, names=QUIET, tail_bytes=NO_TAIL)
    connection = subject.connect()
    order_at(subject, 1, 0)
    subject.log.flush()
    full_disk.begin()
    for number in (2, 3, 4, 5):
        order_at(subject, number, 20 * (number - 1))
        subject.ingest.take(Answered(subject.now_us, connection, subject.now_us))
        subject.log.flush()
    full_disk.end()
    subject.recover()
    order_at(subject, 6, 100)
    subject.log.flush()
    return subject


def is_over_the_loss(found: list[tuple[int, int]]) -> bool:
    """True if the only gap covers the four lost orders and no journaled one."""
    [(from_us, to_us)] = found
    return (
        NOW_US < from_us <= NOW_US + 20 * SECOND_US
        and NOW_US + 80 * SECOND_US <= to_us < NOW_US + 100 * SECOND_US
    )


# ---- read by the next process --------------------------------------------------------------------


def test_missing_is_marked_by_the_next_process(tmp_path: Path, full_disk: FullDisk) -> None:
    subject = with_a_loss(tmp_path, full_disk)
    assert subject.queued() == ["1", "2", "3", "4", "5", "6"]

    subject.begin_again()

    assert subject.queued() == ["1", MISSING, "6"]
    assert is_over_the_loss(subject.outages())


def test_missing_that_redis_has_is_not_marked(tmp_path: Path, full_disk: FullDisk) -> None:
    """All messages received up to the watermark are in the stream."""
    subject = with_a_loss(tmp_path, full_disk)
    subject.begin_again()
    me = PeerStatus(instance="one", session="1")
    settled = {ORDERS: NOW_US + 90 * SECOND_US}
    subject.peers.update(me, [], settled, redis_us=NOW_US, now_us=subject.now_us)

    subject.come_to_rest()

    assert subject.stored() == ["1", "6"]


def test_missing_behind_the_checkpoint_is_not_marked(tmp_path: Path, full_disk: FullDisk) -> None:
    subject = with_a_loss(tmp_path, full_disk)
    subject.pump()

    subject.begin_again()

    assert subject.queued() == []


def test_missing_of_a_sequenced_stream_is_the_cause_of_its_gap(
    tmp_path: Path, full_disk: FullDisk
) -> None:
    subject = IngestSubject(tmp_path, names=QUIET, tail_bytes=NO_TAIL)
    subject.connect()
    subject.trades(2)
    subject.log.flush()
    full_disk.begin()
    subject.trades(3)
    subject.log.flush()
    full_disk.end()
    subject.recover()
    subject.trades(1)
    subject.log.flush()

    subject.begin_again()

    assert subject.waiting() == [*numbers(0, 2), FIRST + 5]
    assert subject.queue(TRADES).slots[-1].cause is GapCause.NOT_IN_JOURNAL


def test_missing_does_not_mark_streams_without_messages(
    tmp_path: Path, full_disk: FullDisk
) -> None:
    subject = with_a_loss(tmp_path, full_disk)

    subject.begin_again()

    assert subject.queued(TRADES) == []


def test_missing_twice_is_marked_twice(tmp_path: Path, full_disk: FullDisk) -> None:
    subject = with_a_loss(tmp_path, full_disk)
    full_disk.begin()
    order_at(subject, 7, 200)
    subject.log.flush()
    full_disk.end()
    subject.recover()
    order_at(subject, 8, 300)
    subject.log.flush()

    subject.begin_again()

    assert subject.queued() == ["1", MISSING, "6", MISSING, "8"]


def test_killed_while_the_disk_is_full_received_frames_are_marked(
    tmp_path: Path, full_disk: FullDisk
) -> None:
    subject = IngestSubject(tmp_path, names=QUIET)
    subject.connect()
    order_at(subject, 1, 0)
    subject.log.flush()
    full_disk.begin()
    order_at(subject, 2, 20)
    subject.log.flush()
    subject.save_checkpoint()
    full_disk.end()

    subject.kill()
    order_at_start_us = subject.now_us
    subject.start()
    subject.read_journal()

    assert subject.queued() == ["1", MISSING]
    [(from_us, to_us)] = subject.outages()
    assert from_us <= NOW_US + 20 * SECOND_US <= to_us <= order_at_start_us + SECOND_US


def test_missing_is_counted_as_unwritten_when_the_bridge_stops(
    tmp_path: Path, full_disk: FullDisk
) -> None:
    subject = with_a_loss(tmp_path, full_disk)

    assert subject.ingest.unwritten() == 4


def test_missing_is_one_record_of_the_journal_with_the_times_of_each_stream(
    tmp_path: Path, full_disk: FullDisk
) -> None:
    with_a_loss(tmp_path, full_disk).kill()

    [missing] = [record for record in records(tmp_path) if isinstance(record, Missing)]

    assert missing.spans == {ORDERS: (NOW_US + 20 * SECOND_US, NOW_US + 80 * SECOND_US)}


def test_missing_in_a_recording_is_a_gap_when_it_is_replayed(
    tmp_path: Path, full_disk: FullDisk
) -> None:
    with_a_loss(tmp_path, full_disk).kill()
    core = Core([parse_stream(ORDERS)], PLAN, QueueTable(), Peers())

    for position, record in enumerate(records(tmp_path)):
        core.apply(record, position, record.received_us)

    played = [slot.entry.type for slot in core.queues[ORDERS].slots]
    assert played == ["orderAccepted", "gap", "orderAccepted"]


# ---- backfilled ----------------------------------------------------------------------------------


@pytest.mark.parametrize("marks", [{}, {ORDERS: NOW_US + 10**9}])
def test_missing_is_marked_in_a_backfill_for_any_watermarks(
    marks: dict[str, int], tmp_path: Path, full_disk: FullDisk
) -> None:
    """The watermarks are about entries that Redis has lost."""
    subject = with_a_loss(tmp_path, full_disk)
    subject.pump()
    me = PeerStatus(instance="one", session="1")
    subject.peers.update(me, [], marks, redis_us=NOW_US, now_us=subject.now_us)
    subject.server.flush()
    subject.now_us += 10 * SECOND_US

    subject.come_to_rest()

    assert subject.stored() == [LOST, "1", MISSING, "6"]


def test_missing_that_redis_kept_when_it_lost_the_rest_is_not_marked(
    tmp_path: Path, full_disk: FullDisk
) -> None:
    subject = with_a_loss(tmp_path, full_disk)
    subject.pump()
    order_at(subject, 7, 110)
    subject.pump()
    stream = subject.server.streams[ORDERS.encode()]
    stream.entries = stream.entries[:-1]  # 7 is lost
    stream.last = stream.entries[-1][0]
    subject.now_us += 10 * SECOND_US

    subject.come_to_rest()

    assert subject.stored() == ["1", "2", "3", "4", "5", "6", "7"]


def lose_orders(subject: IngestSubject) -> None:
    """Delete the orders in Redis and let the bridge find the loss."""
    subject.server.delete(ORDERS)
    subject.publish(500)


def test_backfill_disk_full_meanwhile_loses_nothing(tmp_path: Path, full_disk: FullDisk) -> None:
    subject = IngestSubject(tmp_path, names=QUIET)
    subject.connect()
    for number in (0, 1, 2):
        order_at(subject, number, number)
    subject.pump()
    lose_orders(subject)
    full_disk.begin()
    order_at(subject, 100, 100)
    subject.log.flush()
    order_at(subject, 101, 101)
    full_disk.end()
    subject.recover()
    order_at(subject, 102, 102)

    expected = [LOST, "0", "1", "2", "100", "101", "102"]
    subject.come_to_rest()
    assert subject.stored() == expected
    lose_orders(subject)
    subject.come_to_rest()
    assert subject.stored() == expected


def test_backfill_ends_while_the_disk_is_still_full(tmp_path: Path, full_disk: FullDisk) -> None:
    subject = IngestSubject(tmp_path, names=QUIET)
    subject.connect()
    order_at(subject, 0, 0)
    subject.pump()
    lose_orders(subject)
    full_disk.begin()
    order_at(subject, 100, 100)
    subject.trades(1)
    subject.log.flush()
    second = subject.connect()
    order_at(subject, 101, 101, second)

    subject.come_to_rest()
    order_at(subject, 102, 102, second)
    subject.come_to_rest()

    assert subject.stored() == [LOST, "0", "100", "101", "102"]
    assert subject.trade_ids() == numbers(0, 1)
    full_disk.end()
    subject.recover()
    order_at(subject, 103, 103, second)
    subject.pump()
    lose_orders(subject)
    subject.come_to_rest()
    assert subject.stored() == [LOST, "0", "100", "101", "102", "103"]
    assert not subject.core.quarantine.slots


def test_backfill_half_through_the_tail_when_the_disk_has_room_reads_each_once(
    tmp_path: Path, full_disk: FullDisk
) -> None:
    subject = IngestSubject(tmp_path, names=QUIET)
    subject.connect()
    order_at(subject, 0, 0)
    subject.pump()
    lose_orders(subject)
    full_disk.begin()
    for number in range(100, 106):
        order_at(subject, number, number)
    subject.log.flush()
    while "100" not in subject.queued():
        assert subject.ingest.step(2)
    full_disk.end()
    subject.recover()
    order_at(subject, 106, 106)

    subject.come_to_rest()

    expected = ["0", *map(str, range(100, 107))]
    assert subject.stored() == [LOST, *expected]
    subject.begin_again(with_checkpoint=False)
    assert subject.queued() == expected


# ---- memory --------------------------------------------------------------------------------------


def behind_and_broken(folder: Path, full_disk: FullDisk, **settings: int) -> IngestSubject:
    """A bridge that is behind: Redis is unavailable, its memory is full, now the disk too."""
    subject = IngestSubject(folder, buffer_bytes=BUFFER_BYTES, **settings)
    subject.connect()
    subject.trades(3000)
    subject.log.flush()
    assert not subject.ingest.is_live
    full_disk.begin()
    subject.trades(1)
    subject.log.flush()
    return subject


def come_to_rest_later(subject: IngestSubject) -> None:
    """Come to rest after the time that gaps wait for REST."""
    for _ in range(3):
        subject.come_to_rest()
        subject.now_us += 31 * SECOND_US
    subject.come_to_rest()


def test_behind_and_broken_memory_stays_bounded_for_all_frames(
    tmp_path: Path, full_disk: FullDisk
) -> None:
    tail_bytes = BUFFER_BYTES // 4
    subject = behind_and_broken(tmp_path, full_disk, tail_bytes=tail_bytes)

    for _ in range(240):
        subject.trades(50)
        subject.log.flush()
        subject.ingest.step(500)
        assert subject.table.pending_bytes() < 1.5 * BUFFER_BYTES
        assert subject.log.tail_bytes <= tail_bytes


def test_behind_and_broken_public_frames_go_first_and_are_marked(
    tmp_path: Path, full_disk: FullDisk
) -> None:
    subject = behind_and_broken(tmp_path, full_disk, tail_bytes=50_000)
    subject.tick()
    subject.order(1)
    for _ in range(20):
        subject.trades(50)
        subject.log.flush()

    come_to_rest_later(subject)

    assert subject.stored() == ["1"]
    assert "overflow" in subject.stored(TICKERS)
    there = subject.trade_ids()
    assert there[:3000] == numbers(0, 3000)
    assert there[-1] == FIRST + subject.sent - 1
    assert len(there) < subject.sent


def test_behind_and_broken_for_a_while_all_frames_of_the_tail_are_published_in_order(
    tmp_path: Path, full_disk: FullDisk
) -> None:
    subject = behind_and_broken(tmp_path, full_disk)
    subject.trades(50)
    full_disk.end()
    subject.recover()
    subject.trades(1)

    while not subject.ingest.is_live or subject.waiting():
        before = len(subject.waiting())
        subject.ingest.step(50)
        assert len(subject.waiting()) - before <= 50
        subject.pump()

    assert subject.trade_ids() == numbers(0, 3052)


def test_backfill_that_cannot_continue_holds_no_more_than_its_share(
    tmp_path: Path, full_disk: FullDisk
) -> None:
    subject = IngestSubject(tmp_path, buffer_bytes=BUFFER_BYTES, tail_bytes=BUFFER_BYTES // 4)
    subject.connect()
    subject.trades(10)
    subject.pump()
    subject.server.delete(TRADES)
    subject.publish(500)
    full_disk.begin()

    for _ in range(50):
        subject.trades(200)
        subject.log.flush()
        subject.ingest.step(500)
        assert subject.table.pending_bytes() < 1.5 * BUFFER_BYTES


def test_disk_space_in_the_middle_of_an_overflow_marks_dropped_frames_once(
    tmp_path: Path, full_disk: FullDisk
) -> None:
    subject = behind_and_broken(tmp_path, full_disk, tail_bytes=50_000)
    subject.tick()
    subject.trades(3000)
    subject.log.flush()
    subject.ingest.step(500)
    full_disk.end()
    subject.recover()

    come_to_rest_later(subject)

    there = subject.trade_ids()
    assert there == sorted(set(there))
    assert there[-1] == FIRST + subject.sent - 1
    assert 3000 < len(there) < subject.sent
    gaps = [entry for entry in subject.server.entries(TICKERS) if entry["type"] == "gap"]
    spans = [(gap["from_us"], gap["to_us"]) for gap in gaps]
    assert len(spans) == len(set(spans)) == 1
    assert subject.server.numbers(TRADES).count(f"gap - {LOST}") == 0


# ---- queues that begin within a loss -------------------------------------------------------------


def test_missing_with_a_checkpoint_within_it_and_a_pruned_connection_is_marked(
    tmp_path: Path, full_disk: FullDisk
) -> None:
    """The next process begins behind the position at which the loss begins."""
    subject = IngestSubject(tmp_path, names=QUIET)
    full_disk.begin()
    subject.lose(subject.connect())
    subject.connect()
    subject.save_checkpoint()
    full_disk.end()
    subject.kill()
    missed_us = subject.now_us = NOW_US + 3 * SECOND_US
    subject.start()
    subject.connect()
    subject.flush()
    subject.prune()
    subject.kill()
    subject.start()
    subject.read_journal()

    assert any(from_us <= missed_us <= to_us for from_us, to_us in subject.outages())


def is_marked(at_us: int, entries: list[dict[str, str]]) -> bool:
    """True if this time is within a gap."""
    return any(
        int(entry["from_us"] or 0) <= at_us <= int(entry["to_us"])
        for entry in entries
        if entry["type"] == "gap"
    )


def test_missing_journal_pruned_and_killed_before_any_checkpoint_is_marked(tmp_path: Path) -> None:
    """The orders were only in memory when their segment was pruned; nothing was published yet."""
    subject = IngestSubject(tmp_path, names=QUIET)
    connection = subject.connect()
    order_at(subject, 1, 5)
    received_us = subject.now_us
    order_at(subject, 2, 15)
    subject.trades(40, connection)
    subject.flush()
    subject.prune()

    subject.begin_again(with_checkpoint=False)
    subject.connect()
    subject.come_to_rest()

    assert "1" not in subject.stored()
    assert is_marked(received_us, subject.server.entries(ORDERS))


def test_missing_nothing_pruned_and_no_checkpoint_marks_nothing(tmp_path: Path) -> None:
    subject = IngestSubject(tmp_path, names=QUIET)
    order_at(subject, 1, 5, subject.connect())
    subject.flush()

    subject.begin_again(with_checkpoint=False)

    assert subject.queued() == ["1"]


def test_missing_connections_of_the_lost_end_are_an_outage_until_the_next(
    tmp_path: Path, full_disk: FullDisk
) -> None:
    """The only remaining segment records the loss; its process began without connections."""
    subject = IngestSubject(tmp_path, names=QUIET)
    full_disk.begin()
    subject.connect()
    subject.save_checkpoint()
    full_disk.end()
    subject.kill()
    subject.start()
    subject.kill()
    subject.now_us = missed_us = NOW_US + 5 * SECOND_US
    subject.start()
    subject.now_us += SECOND_US
    subject.connect()
    subject.flush()
    subject.prune()

    subject.begin_again(with_checkpoint=False)
    subject.come_to_rest()

    assert is_marked(missed_us, subject.server.entries(ORDERS))


def test_missing_connection_lost_while_behind_is_an_outage_from_the_next_segment_on(
    tmp_path: Path,
) -> None:
    """The segment's head has no begin time for the stream; all earlier records are settled."""
    subject = IngestSubject(tmp_path, names=QUIET)
    connection = subject.connect()
    order_at(subject, 1, 5, connection)
    subject.pump()
    subject.take_over()
    subject.now_us = missed_us = NOW_US + 20 * SECOND_US
    subject.lose(connection)
    subject.flush()
    subject.log.roll(subject.ingest.state())
    subject.come_to_rest()
    subject.prune()

    subject.begin_again()
    subject.now_us += SECOND_US
    subject.connect()
    subject.come_to_rest()

    assert is_marked(missed_us, subject.server.entries(ORDERS))


def test_missing_skipped_for_several_queues_is_marked_in_those_that_begin_within_it(
    tmp_path: Path,
) -> None:
    subject = IngestSubject(tmp_path, segment_bytes=5_000)
    connection = subject.connect()
    subject.trades(20, connection)
    subject.tick(connection)
    subject.pump()
    subject.server.refusals[TICKERS] = "WRONGTYPE Operation against a key"
    for _ in range(60):
        subject.now_us += SECOND_US
        subject.tick(connection)
        subject.trades(2, connection)
        subject.pump()
    assert subject.queue(TICKERS).is_suspended
    subject.server.delete(TRADES)
    subject.server.refusals.clear()
    subject.now_us += 20 * SECOND_US
    subject.publish(500)
    subject.ingest.step(1)
    subject.flush()
    for _ in range(5):
        subject.prune()

    subject.come_to_rest()

    there = [int(e["event_us"]) for e in subject.server.entries(TICKERS) if e["type"] == "ticker"]
    gaps = [
        (int(e["from_us"] or 0), int(e["to_us"]))
        for e in subject.server.entries(TICKERS)
        if e["type"] == "gap"
    ]
    begun_us = NOW_US + 20
    for second in range(1, 61):
        at_us = begun_us + second * SECOND_US + 2 * (second - 1)
        assert at_us in there or any(a <= at_us <= b for a, b in gaps), second


# ---- a segment that begins after a loss ----------------------------------------------------------


def test_missing_connection_replaced_while_the_disk_was_full_is_marked_by_the_tail(
    tmp_path: Path, full_disk: FullDisk
) -> None:
    """The tail's records of both connections are read with the state at the tail's beginning."""
    subject = IngestSubject(tmp_path, names=QUIET, tail_bytes=2_000)
    first = subject.connect()
    order_at(subject, 1, 0, first)
    subject.log.flush()
    full_disk.begin()
    for number in range(2, 20):
        order_at(subject, number, number, first)
        subject.log.flush()
    subject.lose(first)
    subject.now_us = missed_us = NOW_US + 30 * SECOND_US
    subject.now_us += SECOND_US
    order_at(subject, 40, 40, subject.connect())
    full_disk.end()
    subject.recover()
    subject.pump()
    subject.prune()

    subject.server.flush()
    subject.now_us += 10 * SECOND_US
    subject.come_to_rest()

    assert is_marked(missed_us, subject.server.entries(ORDERS))
    for number in range(1, 20):
        at_us = NOW_US + (number if number > 1 else 0) * SECOND_US
        is_there = str(number) in subject.stored()
        assert is_there or is_marked(at_us, subject.server.entries(ORDERS)), number
