"""The one way into an intake: live, behind, without a journal. Disks fail here on purpose."""

import json
import os
from pathlib import Path

import pytest

from bridge.contract import keys
from bridge.journal.checkpoint import Checkpoint
from bridge.journal.loss import Loss
from bridge.journal.segments import list_segments
from bridge.pipeline.tail import Tail
from tests.support import frames
from tests.support.hearing_subject import (
    FIRST,
    NAMES,
    NOW_US,
    ORDERS,
    TARGET,
    TICKERS,
    TRADES,
    Subject,
    full,
    gaps,
    numbers,
)
from tests.support.items import answer, fields


def test_what_is_heard_waits_and_is_on_disk_before_it_is_sent(tmp_path: Path) -> None:
    subject = Subject(tmp_path).begin()
    subject.open()
    subject.trades(3)

    subject.hearing.journal.flush()

    assert subject.waiting() == numbers(0, 3)
    assert b'"t":99419872' in list_segments(tmp_path)[0].path.read_bytes()


def test_a_killed_process_is_followed_by_one_that_hears_it_again(tmp_path: Path) -> None:
    killed = Subject(tmp_path).begin()
    killed.open()
    killed.trades(5)
    killed.all_settled()
    killed.trades(4)
    killed.hearing.journal.flush()
    checkpoint = killed.hearing.rehearing.checkpoint()
    assert killed.hearing.journal.writer is not None
    killed.hearing.journal.writer.close()

    again = Subject(tmp_path).begin(checkpoint)

    assert again.waiting() == numbers(5, 4)
    assert again.intake.lines[TRADES].confirmed == f"9-{FIRST + 4}0"
    assert again.hearing.is_live


def test_without_a_checkpoint_everything_is_heard_again(tmp_path: Path) -> None:
    killed = Subject(tmp_path).begin()
    killed.open()
    killed.trades(3)
    killed.hearing.journal.close()

    assert Subject(tmp_path).begin().waiting() == numbers(0, 3)


OTHER = "10.0.0.1:6379/0 mine:"


def followed(subject: Subject, folder: Path, target: str) -> Subject:
    """The process ends, and another begins."""
    checkpoint = subject.hearing.rehearing.checkpoint()
    subject.hearing.journal.close()
    return Subject(folder).begin(checkpoint, target)


def test_another_redis_begins_with_what_the_one_before_lacks(tmp_path: Path) -> None:
    subject = Subject(tmp_path).begin()
    subject.open()
    subject.trades(2)
    subject.all_settled()
    subject.trades(3)

    other = followed(subject, tmp_path, OTHER)

    assert other.waiting() == numbers(2, 3)
    assert other.intake.lines[TRADES].confirmed == "0-0"


def test_back_at_a_redis_of_before_all_that_it_lacks_is_heard_again(tmp_path: Path) -> None:
    subject = Subject(tmp_path).begin()
    subject.open()
    subject.trades(2)
    subject.all_settled()
    subject.trades(3)
    other = followed(subject, tmp_path, OTHER)
    other.open()
    other.heard = 5
    other.trades(4)
    other.all_settled()

    back = followed(other, tmp_path, TARGET)

    assert back.waiting() == numbers(2, 7)


def test_a_recording_in_between_takes_nothing_from_what_a_redis_lacks(tmp_path: Path) -> None:
    subject = Subject(tmp_path).begin()
    subject.open()
    subject.trades(2)
    subject.all_settled()
    subject.trades(3)
    recorder = followed(subject, tmp_path, "")
    assert recorder.waiting() == []
    recorder.open()
    recorder.heard = 5
    recorder.trades(4)

    back = followed(recorder, tmp_path, TARGET)

    assert back.waiting() == numbers(2, 7)
    assert back.intake.lines[TRADES].confirmed == f"9-{FIRST + 1}0"


def test_a_recording_alone_is_not_published(tmp_path: Path) -> None:
    recorder = Subject(tmp_path).begin(None, "")
    recorder.open()
    recorder.trades(4)
    for line in recorder.intake.every_line():
        line.rewind(recorder.hearing.journal.end, 0)

    assert followed(recorder, tmp_path, TARGET).waiting() == []


def test_more_than_memory_may_hold_is_left_to_the_journal(tmp_path: Path) -> None:
    subject = Subject(tmp_path, buffer_bytes=300_000).begin()
    subject.open()

    subject.trades(3000)

    waiting = len(subject.waiting())
    assert not subject.hearing.is_live
    assert subject.hearing.behind_bytes() > 0
    assert waiting < 1000
    total = waiting
    while not subject.hearing.is_live:
        subject.all_settled()
        assert subject.hearing.catch_up(200)
        total += len(subject.waiting())
    assert total == 3000
    assert subject.waiting()[-1] == FIRST + 2999


def test_what_redis_lost_is_heard_again_for_that_stream_alone(tmp_path: Path) -> None:
    subject = Subject(tmp_path).begin()
    subject.open()
    subject.trades(5)
    subject.hearing.hear(frames.ORDER_ACCEPTED, NOW_US, 1)
    subject.all_settled()
    subject.trades(1)
    line = subject.intake.lines[TRADES]
    line.take(NOW_US, 10)
    line.settle(answer("empty", "0-0"), NOW_US)

    subject.hearing.rehearing.refill()
    subject.catch_up()

    assert subject.waiting() == numbers(0, 6)
    assert len(subject.intake.lines[ORDERS].pending) == 1
    start = line.take(NOW_US, 10)[0]
    assert fields(start)["cause"] == "redis lost entries"


def test_a_full_disk_raises_an_alarm_and_publishing_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = Subject(tmp_path).begin()
    subject.open()
    subject.trades(2)
    subject.hearing.journal.flush()

    monkeypatch.setattr(os, "write", full)
    subject.trades(2)
    subject.hearing.journal.flush()
    subject.trades(2)

    assert "No space left" in subject.hearing.journal.trouble
    assert subject.waiting() == numbers(0, 6)
    monkeypatch.undo()
    subject.hearing.mend()
    assert subject.hearing.journal.trouble == ""
    subject.trades(1)
    subject.hearing.journal.flush()
    assert b'"t":99419876' in list_segments(tmp_path)[-1].path.read_bytes()
    assert subject.hearing.journal.loss == Loss(4, NOW_US + 2, NOW_US + 5)


def test_behind_and_the_disk_full_what_comes_is_held_and_then_heard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = Subject(tmp_path, buffer_bytes=300_000).begin()
    subject.open()
    subject.trades(3000)
    subject.hearing.journal.flush()

    monkeypatch.setattr(os, "write", full)
    subject.trades(1)
    subject.hearing.journal.flush()
    subject.trades(50)
    monkeypatch.undo()

    seen = set(subject.waiting())
    while not subject.hearing.is_live:
        subject.all_settled()
        subject.hearing.catch_up(500)
        seen |= set(subject.waiting())
    assert seen >= set(numbers(0, 3000)) | set(numbers(3001, 50))
    assert subject.hearing.journal.loss.frames == 51  # never written, though published


def test_redis_away_and_the_journal_full_the_oldest_public_frames_go_and_are_marked(
    tmp_path: Path,
) -> None:
    subject = Subject(tmp_path, buffer_bytes=300_000).begin()
    subject.open()
    subject.trades(2000)
    subject.hearing.hear(frames.ORDER_ACCEPTED, NOW_US, 1)
    subject.hearing.hear(frames.TICKER.replace("1790134358087727", str(NOW_US)), NOW_US, 1)
    subject.hearing.journal.flush()
    first_waiting = len(subject.waiting())

    while not subject.hearing.rehearing.give_up(subject.hearing.journal.end, 100):
        pass

    (order,) = subject.intake.lines[ORDERS].pending
    assert fields(order)["type"] == "orderAccepted"
    ticker_entries = [fields(item) for item in subject.intake.lines[TICKERS].pending]
    assert [entry["cause"] for entry in ticker_entries] == ["buffer full"]
    assert len(subject.waiting()) == first_waiting
    subject.all_settled()
    subject.catch_up()
    subject.trades(1)
    assert subject.intake.lines[TRADES].pending[-1].cause == "buffer full"


def test_private_frames_stay_out_of_the_journal_where_that_is_wanted(tmp_path: Path) -> None:
    subject = Subject(tmp_path, keep_private=False).begin()
    private = subject.open([ORDERS])
    subject.hearing.hear(frames.ORDER_ACCEPTED, NOW_US, private)
    subject.hearing.journal.flush()

    assert len(subject.intake.lines[ORDERS].pending) == 1
    assert b"59887375336" not in list_segments(tmp_path)[0].path.read_bytes()


def test_private_streams_that_no_journal_has_are_deaf_between_two_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge.journal.rehearing.TWINS_BYTES", 0)
    killed = Subject(tmp_path, keep_private=False, segment_bytes=2000).begin()
    killed.hearing.resume({ORDERS: NOW_US - 100})
    killed.open([ORDERS])
    killed.open([TRADES])
    killed.trades(10)
    killed.hearing.journal.flush()
    killed.trades(1)
    killed.hearing.journal.close()
    last = list_segments(tmp_path)[-1]
    assert last.start
    assert last.path.stat().st_size

    again = Subject(tmp_path, keep_private=False)
    again.begin(Checkpoint(last.start, TARGET))
    again.hearing.resume({ORDERS: NOW_US - 7})
    again.open([ORDERS])

    assert gaps(again) == [(NOW_US - 7, NOW_US)]


def test_hearing_the_journal_again_leaves_private_streams_as_they_are(tmp_path: Path) -> None:
    subject = Subject(tmp_path, keep_private=False).begin()
    subject.open([TRADES])
    private = subject.open([ORDERS])
    subject.hearing.resume({ORDERS: NOW_US - 7})
    assert gaps(subject) == [(NOW_US - 7, NOW_US)]
    subject.hearing.lost(private, "connection lost")

    for line in subject.intake.every_line():
        if line.stream.name in (TRADES, keys.QUARANTINE):
            line.confirmed, line.lost_at = "9-90", "0-0"
    subject.hearing.rehearing.refill()
    assert not subject.hearing.is_live
    subject.catch_up()
    number = subject.hearing.opened("private", [ORDERS])
    subject.hearing.answered(number, NOW_US + 9)

    assert gaps(subject) == [(NOW_US - 7, NOW_US), (NOW_US, NOW_US + 9)]


@pytest.mark.parametrize(("asked_s", "from_s"), [(5, 4), (19.5, 19), (0, 0)])
def test_an_answer_that_took_long_means_the_same_when_it_is_heard_again(
    tmp_path: Path, asked_s: float, from_s: float
) -> None:
    subject = Subject(tmp_path).begin()
    number = subject.open([ORDERS])
    asked_us = NOW_US + int(asked_s * 1e6) if asked_s else 0  # 0: no answer came
    subject.hearing.answered(number, NOW_US + 20_000_000, ["account.rfqUpdate"], asked_us)
    subject.hearing.lost(number, "connection lost")
    again = subject.hearing.opened("private", [ORDERS])
    subject.hearing.answered(again, NOW_US + 30_000_000, (), NOW_US + 29_900_000)
    marked = [(NOW_US + int(from_s * 1e6), NOW_US + 30_000_000)]
    assert gaps(subject) == marked
    subject.hearing.journal.close()

    assert gaps(Subject(tmp_path).begin()) == marked


def test_without_a_journal_memory_is_bounded_by_giving_up_the_oldest() -> None:
    subject = Subject(None, buffer_bytes=300_000)
    subject.open()

    subject.trades(3000)

    assert subject.intake.pending_bytes() < 620_000  # looked at every 256 frames
    assert subject.waiting()[-1] == FIRST + 2999


def test_damaged_lines_are_passed_over_and_counted(tmp_path: Path) -> None:
    killed = Subject(tmp_path).begin()
    killed.open()
    killed.trades(2)
    killed.hearing.journal.close()
    path = list_segments(tmp_path)[0].path
    path.write_bytes(path.read_bytes() + b"\x00\x00rubbish\n")

    again = Subject(tmp_path).begin()

    assert again.waiting() == numbers(0, 2)
    assert again.hearing.rehearing.damaged_lines == 1


def test_a_segment_begins_with_the_connections_that_are_open(tmp_path: Path) -> None:
    subject = Subject(tmp_path).begin()
    number = subject.open()

    line = subject.hearing.state()

    facts = json.loads(line.split(b" ", 3)[3])
    assert facts["connections"] == {str(number): dict.fromkeys(NAMES, NOW_US)}


def test_damaged_records_are_passed_over_and_counted(tmp_path: Path) -> None:
    killed = Subject(tmp_path).begin()
    killed.open()
    killed.trades(1)
    killed.hearing.journal.close()
    path = list_segments(tmp_path)[0].path
    with path.open("ab") as file:
        file.write(b'5 O 1 {"name":\x00}\n5 R 0 \xff {}\n5 L 1 {}\n99999999999999999999 F 1 {}\n')

    again = Subject(tmp_path).begin()

    assert again.waiting() == numbers(0, 1)
    assert again.hearing.rehearing.damaged_lines == 4


def test_a_refill_leaves_alone_what_was_never_in_the_journal(tmp_path: Path) -> None:
    subject = Subject(tmp_path, keep_private=False).begin()
    subject.open([TRADES, TICKERS])
    private = subject.open([ORDERS])
    subject.trades(3)
    subject.hearing.hear(frames.ORDER_ACCEPTED, NOW_US, private)
    line = subject.intake.lines[TRADES]
    line.confirmed = "9-90"
    line.take(NOW_US, 10)
    line.settle(answer("empty", "0-0"), NOW_US)

    subject.hearing.rehearing.refill()
    subject.catch_up()

    assert len(subject.intake.lines[ORDERS].pending) == 1
    assert subject.hearing.hear(frames.ORDER_CANCELLED, NOW_US, private) == ORDERS
    assert len(subject.intake.lines[ORDERS].pending) == 2
    assert not subject.intake.quarantine.pending


def test_connections_made_while_nothing_could_be_written_are_in_the_mended_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = Subject(tmp_path).begin()
    first = subject.open()
    monkeypatch.setattr(os, "write", full)
    subject.trades(1)
    subject.hearing.lost(first, "connection lost")
    subject.hearing.journal.flush()
    second = subject.open()
    subject.trades(1, second)
    monkeypatch.undo()
    subject.hearing.mend()
    subject.trades(2, second)
    line = subject.intake.lines[TRADES]
    line.confirmed = "9-90"
    line.take(NOW_US, 10)
    line.settle(answer("empty", "0-0"), NOW_US)

    subject.hearing.rehearing.refill()
    subject.catch_up()

    assert subject.waiting() == numbers(2, 2)
    assert not subject.intake.quarantine.pending


def test_held_while_behind_it_is_written_in_order_once_it_can_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = Subject(tmp_path, buffer_bytes=300_000).begin()
    subject.open()
    subject.trades(3000)
    subject.hearing.journal.flush()
    monkeypatch.setattr(os, "write", full)
    subject.trades(1)
    subject.hearing.journal.flush()
    subject.trades(50)
    monkeypatch.undo()
    subject.hearing.mend()
    subject.trades(1)

    seen: list[int] = []
    while not subject.hearing.is_live or subject.waiting():
        seen += subject.waiting()
        if subject.waiting():
            subject.all_settled()
        subject.hearing.catch_up(500)

    assert seen == numbers(0, 3052)


def test_private_replies_stay_out_of_the_journal_where_that_is_wanted(tmp_path: Path) -> None:
    subject = Subject(tmp_path, keep_private=False).begin()
    subject.open([ORDERS])

    subject.hearing.rest_body(ORDERS, b'[{"id":"59887375336"}]')
    subject.hearing.journal.flush()

    assert len(subject.intake.lines[ORDERS].pending) == 1
    assert b"59887375336" not in list_segments(tmp_path)[0].path.read_bytes()


def history(*numbers: int) -> bytes:
    rows = [
        {"id": number, "isBuyerMaker": False, "price": "1", "quantity": "1", "timestamp": 1}
        for number in numbers
    ]
    return json.dumps(rows).encode()


def test_a_hole_that_was_mended_is_mended_again_after_a_restart_however_late(
    tmp_path: Path,
) -> None:
    killed = Subject(tmp_path).begin()
    killed.open()
    killed.trades(2)
    killed.heard += 3
    killed.trades(2)
    killed.hearing.rest_body(TRADES, history(*numbers(0, 7)))
    killed.hearing.journal.flush()
    assert killed.hearing.journal.writer is not None
    killed.hearing.journal.writer.close()
    again = Subject(tmp_path)
    again.hearing.begin(None, TARGET)
    line = again.intake.lines
    days_later_us = NOW_US + 10**12

    while TRADES not in line or len(again.waiting()) < 3:
        assert again.hearing.catch_up(1)
    line[TRADES].take(days_later_us, 10)
    line[TRADES].settle(answer("hole", f"9-{FIRST + 1}0", "++"), days_later_us)
    assert line[TRADES].take(days_later_us, 10) == ()
    again.catch_up()

    sent = line[TRADES].take(days_later_us, 10)
    assert [(item.op.value, item.position - FIRST) for item in sent] == [
        ("A", 2), ("A", 3), ("A", 4), ("A", 5), ("A", 6),
    ]  # fmt: skip


def test_a_hole_that_nobody_mended_is_marked_when_the_journal_has_told_so(tmp_path: Path) -> None:
    killed = Subject(tmp_path).begin()
    killed.open()
    killed.trades(2)
    killed.heard += 3
    killed.trades(1)
    killed.hearing.journal.close()
    again = Subject(tmp_path).begin()
    line = again.intake.lines[TRADES]
    later_us = NOW_US + 31_000_000

    line.take(later_us, 10)
    line.settle(answer("hole", f"9-{FIRST + 1}0", "++"), later_us)

    gap, _ = line.take(later_us, 10)
    assert (fields(gap)["type"], fields(gap)["cause"]) == ("gap", "skipped")


def lose(subject: Subject, name: str = TRADES, last: str = "0-0") -> None:
    """Redis turns out to have lost the stream."""
    line = subject.intake.lines[name]
    line.take(NOW_US, 10)
    line.settle(answer("empty", last), NOW_US)
    subject.hearing.rehearing.refill()


def test_one_lost_stream_is_heard_again_while_the_others_go_on(tmp_path: Path) -> None:
    subject = Subject(tmp_path).begin()
    subject.open()
    subject.trades(5)
    subject.all_settled()
    subject.trades(1)
    lose(subject)

    subject.hearing.hear(frames.ORDER_ACCEPTED, NOW_US, 1)
    subject.trades(2)

    assert subject.hearing.is_live
    assert len(subject.intake.lines[ORDERS].pending) == 1
    assert subject.waiting() == []
    assert subject.hearing.catch_up(4)
    assert len(subject.waiting()) < 8
    subject.catch_up()
    assert subject.waiting() == numbers(0, 8)
    subject.trades(1)
    assert subject.waiting() == numbers(0, 9)
    assert len(subject.intake.lines[ORDERS].pending) == 1


def test_what_is_being_refilled_holds_the_checkpoint_of_nobody_else(tmp_path: Path) -> None:
    subject = Subject(tmp_path).begin()
    subject.open()
    subject.trades(5)
    subject.all_settled()
    subject.trades(1)
    lose(subject)

    checkpoint = subject.hearing.rehearing.checkpoint()

    assert checkpoint.offset == subject.hearing.journal.end
    assert checkpoint.parked == {TRADES: 0}


def test_a_second_stream_that_is_lost_meanwhile_is_heard_again_too(tmp_path: Path) -> None:
    subject = Subject(tmp_path).begin()
    subject.open()
    subject.trades(5)
    subject.hearing.hear(frames.ORDER_ACCEPTED, NOW_US, 1)
    subject.all_settled()
    orders = subject.intake.lines[ORDERS]
    orders.confirmed = "8-0"
    subject.trades(1)
    lose(subject)
    subject.hearing.catch_up(4)

    orders.lost_at = "0-0"
    subject.hearing.rehearing.refill()
    subject.catch_up()

    assert subject.waiting() == numbers(0, 6)
    assert [fields(item)["type"] for item in orders.pending][-1] == "orderAccepted"


def test_memory_full_while_a_stream_is_refilled_hears_nothing_of_it_twice(tmp_path: Path) -> None:
    subject = Subject(tmp_path, buffer_bytes=300_000).begin()
    subject.open()
    subject.trades(50)
    subject.hearing.hear(frames.ORDER_ACCEPTED, NOW_US, 1)
    orders = subject.intake.lines[ORDERS]
    orders.pending.clear()
    orders.confirmed, orders.lost_at = "8-0", "0-0"
    subject.hearing.rehearing.refill()

    subject.trades(3000)
    assert not subject.hearing.is_live
    seen: set[int] = set()
    while not subject.hearing.is_live:
        seen |= set(subject.waiting())
        subject.all_settled()
        subject.hearing.catch_up(500)
    subject.catch_up()

    assert seen | set(subject.waiting()) == set(numbers(0, 3050))
    heard = [fields(item) for item in orders.pending if fields(item)["type"] == "orderAccepted"]
    assert len(heard) == 1


def test_a_hole_while_its_stream_is_refilled_is_mended_by_the_reply_in_the_journal(
    tmp_path: Path,
) -> None:
    subject = Subject(tmp_path).begin()
    subject.open()
    subject.trades(2)
    subject.all_settled()
    subject.trades(1)
    lose(subject)

    subject.heard += 2
    subject.trades(1)
    subject.hearing.rest_body(TRADES, history(*numbers(0, 6)))
    subject.catch_up()

    assert subject.waiting() == numbers(0, 6)


def test_a_hole_that_is_heard_again_is_one_line_of_the_ledger(tmp_path: Path) -> None:
    subject = Subject(tmp_path).begin()
    subject.open()
    subject.trades(2)
    subject.heard += 1
    subject.trades(1)
    subject.hearing.rest_body(TRADES, history(*numbers(0, 4)))
    ledger = subject.intake.ledger
    assert ledger.tail_wanted(NOW_US) is not None
    ledger.read_tail(Tail("0-0", []))
    assert len(ledger.take(NOW_US, 10)) == 1
    ledger.settle(answer("ok", "9-0", "+"), NOW_US)
    subject.all_settled()
    subject.trades(1)

    lose(subject)
    subject.catch_up()

    assert not ledger.pending


def test_what_no_journal_has_is_told_apart_when_the_bridge_stops(tmp_path: Path) -> None:
    subject = Subject(tmp_path, keep_private=False).begin()
    subject.open([TRADES])
    private = subject.open([ORDERS])
    subject.trades(3)
    subject.hearing.hear(frames.ORDER_ACCEPTED, NOW_US, private)

    assert subject.hearing.waiting_unjournaled() == 1
    assert Subject(tmp_path / "other").begin().hearing.waiting_unjournaled() == 0


def test_a_stream_that_fails_alone_is_bounded_while_the_journal_is_heard_again(
    tmp_path: Path,
) -> None:
    killed = Subject(tmp_path).begin()
    killed.open()
    killed.trades(3000)
    killed.hearing.journal.close()
    again = Subject(tmp_path, buffer_bytes=1_600_000)
    again.hearing.begin(None, TARGET)
    again.hearing.catch_up(10)
    again.intake.lines[TRADES].fail("WRONGTYPE")

    while again.hearing.catch_up(100):
        assert again.intake.lines[TRADES].pending_bytes < 300_000


def test_a_refill_that_ends_before_a_tick_marks_what_nobody_heard(tmp_path: Path) -> None:
    """That the connection listens again is told by another stream, which the refill passes over."""
    subject = Subject(tmp_path).begin()
    first = subject.open()
    tick = frames.TICKER.replace("1790134358087727", str(NOW_US))
    subject.hearing.hear(tick, NOW_US, first)
    subject.hearing.lost(first, "connection lost")
    second = subject.open()
    subject.trades(1, second)
    marked = gaps(subject, TICKERS)
    assert marked

    tickers = subject.intake.lines[TICKERS]
    tickers.confirmed, tickers.lost_at = "8-0", "0-0"
    subject.hearing.rehearing.refill()
    assert gaps(subject, TICKERS) == []
    subject.catch_up()

    assert gaps(subject, TICKERS) == marked


def test_private_streams_that_no_journal_has_are_bounded_while_it_is_behind(
    tmp_path: Path,
) -> None:
    subject = Subject(tmp_path, keep_private=False, buffer_bytes=300_000).begin()
    private = subject.open([ORDERS])
    subject.open([TRADES])
    subject.trades(1000, connection=2)
    assert not subject.hearing.is_live
    waiting = subject.waiting()

    for number in range(1000):
        frame = frames.ORDER_ACCEPTED.replace("59887375336", str(number))
        subject.hearing.hear(frame, NOW_US + number, private)

    orders = subject.intake.lines[ORDERS]
    assert orders.pending_bytes < 900_000  # looked at every 256 frames
    assert fields(orders.pending[0])["cause"] == "buffer full"
    assert orders.counters.overflowed > 0
    assert subject.waiting() == waiting  # these are in the journal, and are settled from there
