"""What was heard while the journal could not be written is not in it, and it says so: whoever hears
it again marks what Redis has not got.
"""

import json
import os
from pathlib import Path

import pytest

from bridge.contract.identity import EntryId
from bridge.contract.streams import parse_stream
from bridge.journal.player import Player
from bridge.journal.reading import records
from bridge.journal.record import Kind
from bridge.pipeline.intake import Intake
from bridge.pipeline.items import Item
from bridge.pipeline.peers import Word
from bridge.pipeline.tail import Edge, Tail
from tests.support import frames
from tests.support.hearing_subject import (
    FIRST,
    NOW_US,
    ORDERS,
    TICKERS,
    TRADES,
    Subject,
    full,
    gaps,
    numbers,
)
from tests.support.items import fields

SECOND_US = 1_000_000
QUIET = [TRADES, ORDERS]  # nothing ticks on a connection for these
ALONE = Word(instance="one", session="1")


def order(subject: Subject, number: int, at_s: int, connection: int = 1) -> None:
    """An order event with this id, so many seconds later."""
    message = json.loads(frames.ORDER_ACCEPTED)
    us = NOW_US + at_s * SECOND_US
    message["data"] |= {"i": str(number), "E": us, "T": us}
    subject.hearing.hear(json.dumps(message, separators=(",", ":")), us, connection)


def orders(subject: Subject) -> list[str]:
    """What waits of the orders: ids, and gaps by their cause."""
    waiting = [fields(item) for item in subject.intake.lines[ORDERS].pending]
    return [entry.get("order_id") or entry["cause"] for entry in waiting]


def a_hole(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    """Order 1 is journaled; 2 to 5 come while the disk is full, 20 to 80 s later; then 6."""
    order(subject, 1, 0)
    subject.hearing.journal.flush()
    monkeypatch.setattr(os, "write", full)
    for number in (2, 3, 4, 5):
        order(subject, number, 20 * (number - 1))
        subject.hearing.answered(1, NOW_US + 20 * (number - 1) * SECOND_US)
        subject.hearing.journal.flush()
    monkeypatch.undo()
    subject.hearing.mend()
    order(subject, 6, 100)
    subject.hearing.journal.flush()


def killed(subject: Subject) -> None:
    assert subject.hearing.journal.writer is not None
    subject.hearing.journal.writer.close()


def is_within_the_hole(found: list[tuple[int, int]]) -> bool:
    """One gap, over all four orders, and nothing that the journal has."""
    [(from_us, to_us)] = found
    return (
        NOW_US < from_us <= NOW_US + 20 * SECOND_US
        and NOW_US + 80 * SECOND_US <= to_us < NOW_US + 100 * SECOND_US
    )


def test_what_was_heard_while_the_disk_was_full_is_marked_by_the_next_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Subject(tmp_path).begin()
    first.open(QUIET)
    a_hole(first, monkeypatch)
    checkpoint = first.hearing.rehearing.checkpoint()
    killed(first)

    again = Subject(tmp_path).begin(checkpoint)

    assert orders(again) == ["1", "not in the journal", "6"]
    assert is_within_the_hole(gaps(again))


def test_what_redis_has_of_it_is_not_marked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that was heard until the mark is in the stream."""
    first = Subject(tmp_path).begin()
    first.open(QUIET)
    a_hole(first, monkeypatch)
    checkpoint = first.hearing.rehearing.checkpoint()
    killed(first)

    again = Subject(tmp_path).begin(checkpoint)
    settled_us = NOW_US + 90 * SECOND_US
    again.intake.company.look(ALONE, [], {ORDERS: settled_us}, redis_us=NOW_US, now_us=NOW_US)
    line = again.intake.lines[ORDERS]
    first_order, gap, last_order = line.pending
    line.pending.popleft()
    line.read_tail(tail_of(first_order))

    assert [fields(item)["order_id"] for item in line.take(NOW_US, 10)] == ["6"]
    assert gap.deaf_us
    assert last_order in line.pending


def tail_of(*items: Item) -> Tail:
    """What a stream with these entries says of its end."""
    return Tail("9-0", [(item.key, item.order) for item in items])


def test_all_settled_behind_the_hole_nothing_is_marked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Subject(tmp_path).begin()
    first.open(QUIET)
    a_hole(first, monkeypatch)
    first.intake.lines[ORDERS].pending.clear()
    checkpoint = first.hearing.rehearing.checkpoint()
    killed(first)

    assert orders(Subject(tmp_path).begin(checkpoint)) == []


@pytest.mark.parametrize("marks", [{}, {ORDERS: NOW_US + 10**9}])
def test_a_refill_however_late_marks_what_the_journal_never_had(
    marks: dict[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Marks in Redis are of what it has lost."""
    subject = Subject(tmp_path).begin()
    subject.open(QUIET)
    a_hole(subject, monkeypatch)
    line = subject.intake.lines[ORDERS]
    line.pending.clear()
    subject.intake.company.look(ALONE, [], marks, redis_us=NOW_US, now_us=NOW_US)
    line.confirmed, line.lost_at = "9-0", "0-0"

    subject.hearing.rehearing.refill()
    subject.catch_up()
    line.read_tail(tail_of())
    line.confirmed = "0-0"
    sent = [fields(item) for item in line.take(NOW_US, 10)]

    assert [entry.get("order_id") or entry["cause"] for entry in sent] == [
        "redis lost entries", "1", "not in the journal", "6",
    ]  # fmt: skip


def test_what_redis_kept_when_it_lost_the_rest_is_not_marked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = Subject(tmp_path).begin()
    subject.open(QUIET)
    a_hole(subject, monkeypatch)
    line = subject.intake.lines[ORDERS]
    line.pending.clear()
    last_ms = NOW_US // 1000 + 99_000
    line.confirmed = f"{last_ms + 10_000}-0"
    kept = Edge(EntryId(last_ms, 0), NOW_US + 99 * SECOND_US, NOW_US + 99 * SECOND_US)
    line.read_tail(Tail(f"{last_ms}-0", [], newest=kept))

    subject.hearing.rehearing.refill()
    subject.catch_up()

    assert orders(subject) == ["6"]


def test_a_hole_in_a_numbered_stream_has_its_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Subject(tmp_path).begin()
    first.open(QUIET)
    first.trades(2)
    first.hearing.journal.flush()
    monkeypatch.setattr(os, "write", full)
    first.trades(3)
    first.hearing.journal.flush()
    monkeypatch.undo()
    first.hearing.mend()
    first.trades(1)
    first.hearing.journal.flush()
    killed(first)

    again = Subject(tmp_path).begin()

    assert again.waiting() == [*numbers(0, 2), FIRST + 5]
    assert again.intake.lines[TRADES].pending[-1].cause == "not in the journal"


def test_what_waits_and_is_in_no_journal_is_told_when_the_bridge_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = Subject(tmp_path).begin()
    subject.open(QUIET)
    a_hole(subject, monkeypatch)

    assert subject.hearing.waiting_unjournaled() == 4


def test_streams_of_which_nothing_came_have_no_gap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Subject(tmp_path).begin()
    first.open(QUIET)
    a_hole(first, monkeypatch)
    killed(first)

    assert gaps(Subject(tmp_path).begin(), TICKERS) == []


def test_a_recording_with_a_hole_replays_with_a_gap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = Subject(tmp_path).begin()
    recording.open(QUIET)
    a_hole(recording, monkeypatch)
    killed(recording)
    intake = Intake([parse_stream(ORDERS)], hold_us=0, snapshot_every=0, ask=lambda _: None)
    player = Player(intake)

    for record in records(tmp_path):
        player.apply(record, 1, strict=False)

    played = [fields(item) for item in intake.lines[ORDERS].pending]
    assert [entry["type"] for entry in played] == ["orderAccepted", "gap", "orderAccepted"]


def test_the_record_is_one_line_that_people_can_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = Subject(tmp_path).begin()
    subject.open(QUIET)
    a_hole(subject, monkeypatch)

    [told] = [record for record in records(tmp_path) if record.kind is Kind.UNWRITTEN]

    assert json.loads(told.body) == {ORDERS: [NOW_US + 20 * SECOND_US, NOW_US + 80 * SECOND_US]}


def lose_orders(subject: Subject) -> None:
    """Redis turns out to have lost the orders, and a refill begins."""
    line = subject.intake.lines[ORDERS]
    line.pending.clear()
    line.confirmed, line.lost_at = "9-0", "0-0"
    subject.hearing.rehearing.refill()


def test_the_disk_is_full_while_a_stream_is_refilled_nothing_of_it_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = Subject(tmp_path).begin()
    subject.open(QUIET)
    for number in (0, 1, 2):
        order(subject, number, number)
    lose_orders(subject)

    subject.hearing.journal.flush()
    monkeypatch.setattr(os, "write", full)
    order(subject, 100, 100)
    subject.hearing.journal.flush()
    order(subject, 101, 101)
    monkeypatch.undo()
    subject.hearing.mend()
    order(subject, 102, 102)
    subject.catch_up()

    assert orders(subject) == ["redis lost entries", "0", "1", "2", "100", "101", "102"]
    lose_orders(subject)
    subject.catch_up()
    assert orders(subject) == ["redis lost entries", "0", "1", "2", "100", "101", "102"]


def test_a_refill_ends_while_the_disk_is_still_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = Subject(tmp_path).begin()
    subject.open(QUIET)
    order(subject, 0, 0)
    lose_orders(subject)
    subject.hearing.journal.flush()
    monkeypatch.setattr(os, "write", full)
    order(subject, 100, 100)
    subject.trades(1)
    subject.hearing.journal.flush()
    second = subject.open(QUIET)
    order(subject, 101, 101, second)

    subject.catch_up()
    order(subject, 102, 102, second)

    assert orders(subject) == ["redis lost entries", "0", "100", "101", "102"]
    assert subject.waiting() == numbers(0, 1)
    monkeypatch.undo()
    subject.hearing.mend()
    order(subject, 103, 103, second)
    lose_orders(subject)
    subject.catch_up()
    assert orders(subject) == ["redis lost entries", "0", "not in the journal", "103"]
    assert not subject.intake.quarantine.pending


def test_a_refill_that_is_half_through_what_is_held_when_the_disk_has_room_hears_each_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = Subject(tmp_path).begin()
    subject.open(QUIET)
    order(subject, 0, 0)
    lose_orders(subject)
    subject.hearing.journal.flush()
    monkeypatch.setattr(os, "write", full)
    for number in range(100, 106):
        order(subject, number, number)
    subject.hearing.journal.flush()
    while "100" not in orders(subject):
        assert subject.hearing.catch_up(2)
    monkeypatch.undo()
    subject.hearing.mend()
    order(subject, 106, 106)

    subject.catch_up()

    expected = ["redis lost entries", "0", *map(str, range(100, 107))]
    assert orders(subject) == expected
    subject.hearing.journal.flush()
    killed(subject)
    again = Subject(tmp_path).begin()
    assert orders(again)[0:2] == ["0", "not in the journal"]
    assert set(orders(again)[2:]) < set(expected)


def test_twice_broken_each_hole_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = Subject(tmp_path).begin()
    subject.open(QUIET)
    a_hole(subject, monkeypatch)
    monkeypatch.setattr(os, "write", full)
    order(subject, 7, 200)
    subject.hearing.journal.flush()
    monkeypatch.undo()
    subject.hearing.mend()
    order(subject, 8, 300)
    subject.hearing.journal.flush()
    killed(subject)

    again = Subject(tmp_path).begin()

    assert orders(again) == ["1", "not in the journal", "6", "not in the journal", "8"]
