"""Streams that Redis refuses alone, or that are left to the journal while a node is unavailable."""

from pathlib import Path

import pytest

from bridge.journal.segments import SegmentWriter
from tests.support import stepped_bridge
from tests.support.ingest_subject import (
    ORDERS,
    TICKERS,
    TRADES,
    IngestSubject,
    lose,
    numbers,
    subject_with_trades,
)

SMALL = 300_000
LOST = "redis lost entries"


def test_suspended_stream_is_kept_in_the_journal_only_and_backfilled_on_resume(
    tmp_path: Path,
) -> None:
    subject = IngestSubject(tmp_path, buffer_bytes=SMALL)
    connection = subject.connect()
    subject.order(0, connection)
    subject.pump()
    subject.server.refusals[ORDERS] = "WRONGTYPE Operation against a key"

    for number in range(1, 3000):
        subject.now_us += 1
        subject.order(number, connection)
        if number == 1:
            subject.pump()
            assert subject.queue(ORDERS).is_suspended
    assert subject.queue(ORDERS).bytes == 0
    assert subject.ingest.is_live
    assert subject.ingest.checkpoint().suspended.keys() == {ORDERS}
    subject.trades(3)
    subject.pump()
    assert subject.trade_ids() == numbers(0, 3)

    subject.server.refusals.clear()
    subject.now_us += 20_000_000
    subject.come_to_rest()

    assert subject.stored() == [str(number) for number in range(3000)]
    assert subject.queue(ORDERS).counters.overflowed == 0


def test_suspended_while_the_journal_is_read_stays_within_memory(tmp_path: Path) -> None:
    subject = IngestSubject(tmp_path, buffer_bytes=1_600_000)
    subject.connect()
    subject.trades(3000)
    subject.log.flush()
    subject.kill()
    subject.server.refusals[TRADES] = "WRONGTYPE Operation against a key"
    subject.start()
    subject.ingest.step(10)
    subject.pump()
    assert subject.queue(TRADES).is_suspended

    while subject.ingest.step(100):
        assert subject.queue(TRADES).bytes < 300_000
    subject.server.refusals.clear()
    subject.now_us += 20_000_000
    subject.come_to_rest()

    assert subject.trade_ids() == numbers(0, 3000)


def test_suspended_between_two_equal_messages_publishes_both(tmp_path: Path) -> None:
    """The second one is in another segment of the journal."""
    subject = IngestSubject(tmp_path)
    connection = subject.connect()
    subject.order(1, connection)
    subject.pump()
    subject.log.roll(subject.ingest.state())
    subject.server.refusals[ORDERS] = "WRONGTYPE Operation against a key"
    subject.order(1, connection)
    subject.pump()

    subject.server.refusals.clear()
    subject.now_us += 20_000_000
    subject.come_to_rest()

    assert [entry["occurrence"] for entry in subject.server.entries(ORDERS)] == ["", "1"]


def test_suspended_stream_with_a_gap_that_fills_the_memory_in_its_backfill_is_published(
    tmp_path: Path,
) -> None:
    """The bridge falls behind meanwhile, so that nothing can be read that would recover the gap."""
    subject = IngestSubject(tmp_path, buffer_bytes=100_000)
    connection = subject.connect()
    subject.server.refusals[TRADES] = "WRONGTYPE Operation against a key"
    subject.trades(20, connection)
    subject.pump()
    subject.skip(2)
    subject.trades(150, connection)
    subject.server.refusals.clear()
    subject.now_us += 20_000_000
    subject.publish(500)
    subject.ingest.step(100)
    subject.trades(3, connection)
    assert not subject.ingest.is_live

    subject.come_to_rest()

    assert subject.ingest.is_live
    assert subject.trade_ids() == [*numbers(0, 20), *numbers(22, 153)]


def test_suspended_stream_survives_a_restart(tmp_path: Path) -> None:
    subject = subject_with_trades(tmp_path)
    subject.server.refusals[TRADES] = "WRONGTYPE Operation against a key"
    subject.trades(10)
    subject.pump()
    subject.trades(10)
    subject.order(2)
    subject.pump()

    subject.begin_again()
    subject.server.refusals.clear()
    subject.come_to_rest()

    assert subject.trade_ids() == numbers(0, 25)
    assert subject.stored() == ["1", "2"]


@pytest.mark.parametrize(
    "error",
    [
        "OOM command not allowed when used memory > 'maxmemory'.",
        "NOPERM User b has no permissions to run the 'evalsha' command",
    ],
)
def test_refused_alike_by_all_streams_suspends_none_and_loses_nothing(
    error: str, tmp_path: Path
) -> None:
    subject = IngestSubject(tmp_path, buffer_bytes=SMALL)
    subject.connect()
    subject.trades(5)
    subject.order(1)
    subject.pump()
    subject.server.refusals[""] = error

    for _ in range(20):
        subject.trades(200)
        with pytest.raises(Exception, match=error.split()[0]):
            subject.pump()
        subject.outbox.disconnected(error)
        while subject.ingest.step(500):
            pass
        assert subject.table.pending_bytes() < 1.05 * SMALL
        assert not any(queue.is_suspended for queue in subject.table)
    subject.server.refusals.clear()
    subject.come_to_rest()

    assert subject.trade_ids() == numbers(0, 4005)
    assert all(queue.counters.overflowed == 0 for queue in subject.table)


def test_suspended_without_a_journal_is_bounded_and_dropped_entries_are_marked() -> None:
    subject = IngestSubject(None, buffer_bytes=1_600_000)
    connection = subject.connect()
    subject.server.refusals[ORDERS] = "WRONGTYPE Operation against a key"
    for number in range(3000):
        subject.now_us += 1
        subject.order(number, connection)
        if number == 0:
            subject.pump()
    orders = subject.queue(ORDERS)
    assert orders.bytes < 600_000  # checked every 256 frames
    subject.server.refusals.clear()
    subject.now_us += 20_000_000
    subject.come_to_rest()

    stored = subject.stored()
    assert stored[0] == "overflow"
    assert stored[1:] == [str(number) for number in range(3001 - len(stored), 3000)]


def test_suspended_while_the_journal_is_opened_late_reads_nothing_of_an_earlier_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What that had not published is older than what the stream has by now."""
    subject = IngestSubject(tmp_path)
    subject.order(1, subject.connect())
    subject.log.flush()
    subject.kill()
    with monkeypatch.context() as patched:
        patched.setattr(stepped_bridge, "SegmentWriter", lambda *_: None)
        subject.start()
    subject.read_journal()
    connection = subject.connect()
    subject.order(2, connection)
    subject.pump()
    subject.server.refusals[ORDERS] = "WRONGTYPE Operation against a key"
    subject.order(3, connection)
    subject.pump()

    by = subject.log.open_late(SegmentWriter(tmp_path, 1_000_000))
    subject.ingest.rebased(by, None)
    subject.recover()
    subject.server.refusals.clear()
    subject.now_us += 20_000_000
    subject.come_to_rest()

    assert subject.stored() == ["2", "3"]


def test_backfill_continues_for_others_where_the_node_of_a_shard_is_unavailable(
    tmp_path: Path,
) -> None:
    """The entries of its streams fill the memory of the backfill."""
    subject = IngestSubject(tmp_path, buffer_bytes=1_600_000)
    connection = subject.connect()
    for number in range(4):
        subject.trades(500, connection)
        subject.order(number, connection)
        subject.pump()
    away = subject.queue(TRADES)
    lose(subject, TRADES, ORDERS)
    subject.read_journal()
    assert not subject.ingest.step(500)
    assert subject.ingest.waits_for([away])
    assert not subject.ingest.waits_for([subject.queue(TICKERS)])

    subject.ingest.suspend([away], "its node is unavailable")
    subject.come_to_rest()

    assert subject.stored() == [LOST, "0", "1", "2", "3"]
    subject.now_us += 20_000_000
    subject.come_to_rest()
    assert subject.trade_ids() == numbers(0, 2000)
