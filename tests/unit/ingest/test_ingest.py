"""Ingest: each frame goes to the log, then to the core; live, behind, restarted, no journal."""

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from bridge.contract.causes import GapCause
from bridge.core.records import Answered, BodyKind, Frame, Watermarks
from bridge.journal.segments import list_segments
from tests.support import frames
from tests.support.full_disk import FullDisk
from tests.support.ingest_subject import (
    FIRST,
    NAMES,
    NOW_US,
    ORDERS,
    SECOND_US,
    TICKERS,
    TRADES,
    IngestSubject,
    numbers,
)
from tests.support.memory_server import MemoryServer
from tests.support.stepped_bridge import history

SMALL = 300_000


# ---- live ----------------------------------------------------------------------------------------


def test_ingest_frame_is_written_to_the_journal_before_it_is_published(tmp_path: Path) -> None:
    class Watched(MemoryServer):
        published = 0

        def call(self, packed: bytes, replies: int) -> list[object]:
            if b"EVALSHA" in packed and b"99419872" in packed:
                self.published += 1
                assert b'"t":99419872' in subject.journaled()
            return super().call(packed, replies)

    server = Watched()
    subject = IngestSubject(tmp_path, server)
    subject.connect()
    subject.trades(3)
    assert subject.waiting() == numbers(0, 3)

    subject.pump()

    assert subject.trade_ids() == numbers(0, 3)
    assert server.published


def test_ingest_unknown_event_is_logged_once_by_its_name_alone(tmp_path: Path) -> None:
    frame = frames.ORDER_ACCEPTED.replace("orderAccepted", "orderSplit")
    subject = IngestSubject(tmp_path)
    connection = subject.connect()

    with capture_logs() as logs:
        for _ in range(3):
            subject.receive(frame, connection)

    lines = [line for line in logs if line["event"] == "unknown_event"]
    assert lines == [{"event": "unknown_event", "log_level": "warning", "name": "orderSplit"}]
    assert subject.ingest.core.unknown_events.counts == {"orderSplit": 3}


def test_ingest_unknown_event_that_is_read_from_the_log_is_logged(tmp_path: Path) -> None:
    subject = IngestSubject(tmp_path)
    connection = subject.connect()
    subject.receive(frames.ORDER_ACCEPTED.replace("orderAccepted", "orderSplit"), connection)
    subject.log.flush()

    with capture_logs() as logs:
        subject.begin_again(with_checkpoint=False)

    assert [line["name"] for line in logs if line["event"] == "unknown_event"] == ["orderSplit"]


def test_ingest_segment_state_has_the_open_connections(tmp_path: Path) -> None:
    subject = IngestSubject(tmp_path)
    number = subject.connect()

    state = subject.ingest.state()

    assert state.connections == {number: dict.fromkeys(NAMES, NOW_US)}


def test_ingest_broken_log_continues_publishing_and_is_written_once_there_is_room(
    tmp_path: Path, full_disk: FullDisk
) -> None:
    subject = IngestSubject(tmp_path)
    subject.connect()
    subject.trades(2)
    subject.log.flush()
    full_disk.begin()
    subject.trades(2)
    subject.pump()
    subject.trades(2)

    assert "No space left" in subject.log.trouble
    assert subject.trade_ids() == numbers(0, 4)
    full_disk.end()
    subject.recover()
    subject.trades(1)
    subject.pump()

    assert subject.log.trouble == ""
    assert subject.trade_ids() == numbers(0, 7)
    assert b'"t":99419876' in subject.journaled()
    assert subject.log.loss.frames == 0


# ---- after a restart -----------------------------------------------------------------------------


def test_ingest_after_a_kill_the_next_process_receives_unsettled_frames(tmp_path: Path) -> None:
    subject = IngestSubject(tmp_path)
    subject.connect()
    subject.trades(5)
    subject.pump()
    subject.trades(4)
    subject.log.flush()

    subject.begin_again()

    assert subject.waiting() == numbers(5, 4)
    assert subject.queue(TRADES).confirmed.endswith(f"-{FIRST + 4}0")
    assert subject.ingest.is_live


def test_ingest_without_a_checkpoint_everything_is_read_again_and_nothing_twice(
    tmp_path: Path,
) -> None:
    subject = IngestSubject(tmp_path)
    subject.connect()
    subject.trades(3)
    subject.pump()

    subject.begin_again(with_checkpoint=False)

    assert subject.waiting() == numbers(0, 3)
    subject.come_to_rest()
    assert subject.trade_ids() == numbers(0, 3)


@pytest.mark.parametrize(("asked_s", "from_s"), [(5, 4), (None, 19), (0, 0)])
def test_ingest_late_answer_has_the_same_effect_when_it_is_read_again(
    tmp_path: Path, asked_s: float | None, from_s: float
) -> None:
    subject = IngestSubject(tmp_path)
    number = subject.connect_to([ORDERS])
    pinged_us = NOW_US + int(asked_s * 1e6) if asked_s else asked_s  # 0: no pong was received
    subject.now_us = NOW_US + 20 * SECOND_US
    subject.ingest.take(
        Answered(subject.now_us, number, subject.now_us, ("account.rfqUpdate",), pinged_us)
    )
    subject.lose(number)
    subject.now_us = NOW_US + 30 * SECOND_US
    subject.connect_to([ORDERS])
    marked = [(NOW_US + int(from_s * 1e6), NOW_US + 30 * SECOND_US)]
    assert subject.outages() == marked
    subject.log.flush()

    subject.begin_again(with_checkpoint=False)

    assert subject.outages() == marked


@pytest.mark.parametrize(
    "lines",
    [
        b"\x00\x00rubbish\n",
        b'5 O 1 {"name":\x00}\n',
        b"5 R 0 \xff {}\n",
        b"5 L 1 {}\n",
        b"99999999999999999999 F 1 {}\n",
    ],
)
def test_ingest_damaged_line_is_skipped_counted_and_marked(tmp_path: Path, lines: bytes) -> None:
    subject = IngestSubject(tmp_path)
    subject.connect()
    subject.trades(2)
    subject.log.flush()
    with list_segments(tmp_path)[0].path.open("ab") as file:
        file.write(lines)

    subject.begin_again(with_checkpoint=False)

    assert subject.waiting() == numbers(0, 2)
    assert subject.queued() == ["not in the journal"]
    assert subject.ingest.damaged == 0  # counts the read in progress only


def test_ingest_gap_recovered_before_a_kill_is_recovered_again_after_any_delay(
    tmp_path: Path,
) -> None:
    subject = IngestSubject(tmp_path)
    subject.connect()
    subject.trades(2)
    subject.skip(3)
    subject.trades(2)
    subject.rest_body(TRADES, history([(number, 1) for number in numbers(0, 7)]))
    subject.log.flush()
    subject.kill()
    subject.now_us += 10**12
    subject.start()

    while len(subject.queue(TRADES).slots) < 3:
        assert subject.ingest.step(1)
    subject.pump()
    assert subject.trade_ids() == numbers(0, 2)
    subject.come_to_rest()

    assert subject.server.numbers(TRADES) == ["gap - start", *map(str, numbers(0, 7))]


def test_ingest_gap_not_recovered_is_marked_once_the_journal_is_read(tmp_path: Path) -> None:
    subject = IngestSubject(tmp_path)
    subject.connect()
    subject.trades(2)
    subject.skip(3)
    subject.trades(1)
    subject.log.flush()
    subject.kill()
    subject.start()
    while len(subject.queue(TRADES).slots) < 3:
        assert subject.ingest.step(1)
    subject.now_us += 31 * SECOND_US
    subject.pump()
    assert subject.trade_ids() == numbers(0, 2)

    subject.read_journal()
    subject.now_us += 31 * SECOND_US
    subject.come_to_rest()

    gap = f"gap {FIRST + 2}-{FIRST + 4} skipped"
    assert gap in subject.server.numbers(TRADES)


# ---- another Redis -------------------------------------------------------------------------------

HERE, THERE = "127.0.0.1:6379/0", "10.0.0.1:6379/0 mine:"


def moved_to(subject: IngestSubject, server: MemoryServer, target: str) -> None:
    """Restart the bridge with another server and target (empty: it records only)."""
    subject.log.flush()
    subject._wire = subject.server = server
    subject.save_checkpoint()
    subject.kill()
    subject.target = target
    subject.start()
    subject.read_journal()


def test_ingest_moved_to_another_redis_begins_with_frames_that_the_previous_one_lacks(
    tmp_path: Path,
) -> None:
    subject = IngestSubject(tmp_path, target=HERE)
    subject.connect()
    subject.trades(2)
    subject.pump()
    subject.trades(3)

    moved_to(subject, MemoryServer(), THERE)

    assert subject.waiting() == numbers(2, 3)
    assert subject.queue(TRADES).confirmed == "0-0"


def test_ingest_moved_back_begins_with_all_that_redis_lacks(tmp_path: Path) -> None:
    subject = IngestSubject(tmp_path, target=HERE)
    here = subject.server
    subject.connect()
    subject.trades(2)
    subject.pump()
    subject.trades(3)
    moved_to(subject, MemoryServer(), THERE)
    subject.trades(4, subject.connect())
    subject.come_to_rest()

    moved_to(subject, here, HERE)

    assert subject.waiting() == numbers(2, 7)


def test_ingest_recorder_in_between_removes_nothing_that_redis_lacks(tmp_path: Path) -> None:
    subject = IngestSubject(tmp_path, target=HERE)
    here = subject.server
    subject.connect()
    subject.trades(2)
    subject.pump()
    subject.trades(3)
    moved_to(subject, MemoryServer(), "")
    assert subject.waiting() == []
    subject.trades(4, subject.connect())

    moved_to(subject, here, HERE)

    assert subject.waiting() == numbers(2, 7)
    assert subject.queue(TRADES).confirmed.endswith(f"-{FIRST + 1}0")


def test_ingest_recording_alone_is_not_published(tmp_path: Path) -> None:
    subject = IngestSubject(tmp_path, target="")
    subject.connect()
    subject.trades(4)
    for queue in subject.table:
        queue.discard()  # a recorder publishes nothing

    moved_to(subject, MemoryServer(), HERE)

    assert subject.waiting() == []


# ---- more than memory may hold -------------------------------------------------------------------


def test_ingest_memory_full_leaves_frames_in_the_journal_and_loses_none(tmp_path: Path) -> None:
    subject = IngestSubject(tmp_path, buffer_bytes=SMALL)
    subject.connect()

    subject.trades(3000)

    assert not subject.ingest.is_live
    assert subject.ingest.behind_bytes() > 0
    assert len(subject.waiting()) < 1000
    while not subject.ingest.is_live:
        subject.pump()
        assert subject.ingest.step(200)
    subject.pump()
    assert subject.trade_ids() == numbers(0, 3000)


@pytest.mark.parametrize("count", range(250, 265))
def test_ingest_memory_full_at_any_frame_keeps_that_frame(tmp_path: Path, count: int) -> None:
    subject = IngestSubject(tmp_path, buffer_bytes=100_000)
    subject.connect()

    subject.trades(count)
    subject.come_to_rest()

    assert subject.trade_ids() == numbers(0, count)


def test_ingest_behind_a_frames_stream_is_reported(tmp_path: Path) -> None:
    subject = IngestSubject(tmp_path)
    connection = subject.connect()
    subject.take_over()

    assert subject.receive('{"stream":"trade.BTC_USDC_PERP","data":{}}', connection) == TRADES
    assert subject.receive("rubbish", connection) is None


def test_ingest_behind_lets_no_connection_close_until_the_core_has_read_that_another_covers_it(
    tmp_path: Path,
) -> None:
    subject = IngestSubject(tmp_path, buffer_bytes=SMALL)
    old = subject.connect()
    subject.trades(3000)
    new = subject.connect()
    for _ in range(3):
        subject.now_us += SECOND_US
        for connection in (old, new):
            subject.tick(connection)
            subject.ingest.take(Answered(subject.now_us, connection, subject.now_us))

    assert not subject.ingest.is_live
    assert not subject.ingest.may_close(old)
    subject.come_to_rest()
    assert subject.ingest.is_live
    assert subject.ingest.may_close(old)


def test_ingest_while_behind_keeps_memory_bounded(tmp_path: Path) -> None:
    subject = IngestSubject(tmp_path, buffer_bytes=SMALL)
    subject.connect()

    for _ in range(50):
        subject.trades(200)
        subject.ingest.step(500)
        assert subject.table.pending_bytes() < 1.5 * SMALL


def test_ingest_that_skips_frames_marks_public_streams_and_keeps_account_frames(
    tmp_path: Path,
) -> None:
    subject = IngestSubject(tmp_path, buffer_bytes=SMALL)
    subject.connect()
    subject.trades(2000)
    subject.order(1)
    subject.tick()
    subject.log.flush()
    waiting = subject.waiting()

    while not subject.ingest.skip_before(subject.log.end, 100):
        pass

    assert subject.queued(ORDERS) == ["1"]
    assert subject.queued(TICKERS) == ["overflow"]
    assert subject.waiting() == waiting
    subject.come_to_rest()
    subject.trades(1)
    assert subject.queue(TRADES).slots[-1].cause is GapCause.OVERFLOW


def test_ingest_without_a_journal_drops_the_oldest_and_marks_it() -> None:
    subject = IngestSubject(None, buffer_bytes=SMALL)
    subject.connect()

    subject.trades(3000)

    assert subject.table.pending_bytes() < 620_000  # the limit is checked every 256 frames
    assert subject.waiting()[-1] == FIRST + 2999
    overflowed = subject.queue(TRADES).counters.overflowed
    subject.come_to_rest()
    assert overflowed > 0
    assert len(subject.trade_ids()) == 3000 - overflowed


# ---- private streams that no journal keeps -------------------------------------------------------


def test_ingest_private_frames_and_replies_stay_out_of_the_journal(tmp_path: Path) -> None:
    subject = IngestSubject(tmp_path, keeps_private=False)
    private = subject.connect_to([ORDERS])
    subject.order(59887375336, private, is_private=True)
    subject.rest_body(ORDERS, b'[{"id":"59887375336"}]')
    subject.log.flush()

    assert len(subject.queue(ORDERS).slots) == 2
    assert b"59887375336" not in subject.journaled()


@pytest.mark.parametrize(
    ("body", "reaches"),
    [
        (b'{"stream":"account.orderUpdate","data":{"i":"59887375336"}}', False),
        (b'{"data":{"i":"59887375336"},"stream":"\\u0061ccount.orderUpdate"}', False),
        (b'{"data":{"i":"59887375336"},"stream":"account.orderUp', False),
        (b'{"data":["59887375336"],"stream":"account.orderUpdate"}', False),
        (b'{"id":1,"error":{"code":4006,"message":"59887375336 account.x"}}', True),
        (b'{"stream":"trade.BTC_USDC_PERP","data":{"i":"59887375336 account.x"}}', True),
    ],
)
@pytest.mark.parametrize("is_behind", [False, True])
def test_ingest_private_message_on_a_public_connection_stays_out_of_the_journal(
    tmp_path: Path, body: bytes, reaches: bool, is_behind: bool
) -> None:
    subject = IngestSubject(tmp_path, keeps_private=False)
    public = subject.connect_to([TRADES, TICKERS])
    if is_behind:
        subject.kill()
        subject.start()
    assert subject.ingest.is_live is not is_behind
    subject.ingest.take(Frame(NOW_US, public, body))
    subject.log.flush()

    assert (b"59887375336" in subject.journaled()) is reaches
    assert subject.core.counters.unwanted == (not reaches)


def test_ingest_private_unjournaled_have_an_outage_between_two_processes(tmp_path: Path) -> None:
    subject = IngestSubject(tmp_path, keeps_private=False)
    subject.private.take(Watermarks(NOW_US, {ORDERS: NOW_US - 100}))
    subject.connect_to([ORDERS])
    subject.trades(10, subject.connect_to([TRADES]))
    subject.log.flush()

    subject.begin_again()
    subject.private.take(Watermarks(subject.now_us, {ORDERS: NOW_US - 7}))
    subject.connect_to([ORDERS])

    assert subject.outages() == [(NOW_US - 7, subject.now_us)]


def test_ingest_backfill_leaves_private_streams_that_no_journal_has_as_they_are(
    tmp_path: Path,
) -> None:
    subject = IngestSubject(tmp_path, keeps_private=False)
    public = subject.connect_to([TRADES, TICKERS])
    private = subject.connect_to([ORDERS])
    subject.trades(3, public)
    subject.pump()
    subject.order(1, private, is_private=True)
    subject.server.delete(TRADES)
    subject.trades(1, public)
    subject.pump()
    subject.order(2, private, is_private=True)
    subject.order(3, private, is_private=True)
    assert subject.ingest.step(1), "the backfill of the trades has begun"

    assert subject.stored() == ["1"]
    assert subject.queued() == ["2", "3"]
    subject.come_to_rest()
    assert subject.stored() == ["1", "2", "3"]
    assert not subject.core.quarantine.slots
    assert subject.trade_ids() == numbers(0, 4)


def test_ingest_private_unjournaled_are_bounded_while_the_journal_is_behind(
    tmp_path: Path,
) -> None:
    subject = IngestSubject(tmp_path, keeps_private=False, buffer_bytes=SMALL)
    private = subject.connect_to([ORDERS])
    subject.trades(1000, subject.connect_to([TRADES]))
    assert not subject.ingest.is_live
    waiting = subject.waiting()

    for number in range(1000):
        subject.now_us += 1
        subject.order(number, private, is_private=True)

    orders = subject.queue(ORDERS)
    assert orders.bytes < 900_000  # the limit is checked every 256 frames
    assert subject.queued()[0] == "overflow"
    assert orders.counters.overflowed > 0
    assert subject.waiting() == waiting  # journaled trades are not dropped


def test_ingest_private_unjournaled_are_kept_while_public_ones_fill_the_memory(
    tmp_path: Path,
) -> None:
    subject = IngestSubject(tmp_path, keeps_private=False, buffer_bytes=1_600_000)
    private = subject.connect_to([ORDERS])
    subject.trades(4000, subject.connect_to([TRADES]))
    assert not subject.ingest.is_live

    for number in range(50):
        subject.now_us += 1
        subject.order(number, private, is_private=True)
    subject.come_to_rest()

    assert subject.stored() == [str(number) for number in range(50)]
    assert subject.trade_ids() == numbers(0, 4000)


def test_ingest_unwritten_counts_frames_that_no_journal_has(tmp_path: Path) -> None:
    subject = IngestSubject(tmp_path, keeps_private=False)
    public = subject.connect_to([TRADES])
    private = subject.connect_to([ORDERS])
    subject.trades(3, public)
    subject.order(1, private, is_private=True)
    subject.log.flush()

    assert subject.ingest.unwritten() == 0
    assert subject.private.unwritten() == 1


def test_ingest_unwritten_without_a_journal_counts_a_stream_that_redis_refuses() -> None:
    subject = IngestSubject(None)
    connection = subject.connect()
    subject.server.refusals[ORDERS] = "WRONGTYPE Operation against a key"
    for number in range(200):
        subject.order(number, connection)
    subject.trades(3)
    subject.pump()

    assert subject.queue(ORDERS).is_suspended
    assert subject.trade_ids() == numbers(0, 3)
    assert subject.ingest.unwritten() == 200


# ---- REST ----------------------------------------------------------------------------------------


def test_ingest_end_of_history_has_the_same_effect_when_it_is_read_again(tmp_path: Path) -> None:
    subject = IngestSubject(tmp_path)
    subject.connect()
    subject.trades(2)
    subject.skip(2)
    subject.trades(1)
    subject.rest_body(TRADES, b"[]", BodyKind.END)
    subject.come_to_rest()
    before = subject.server.numbers(TRADES)
    subject.server.flush()

    subject.begin_again(with_checkpoint=False)
    subject.come_to_rest()

    assert before[-2] == f"gap {FIRST + 2}-{FIRST + 3} skipped"
    assert subject.server.numbers(TRADES) == before
