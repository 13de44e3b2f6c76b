"""Redis away, more heard than memory may hold, and the journal broken: memory stays bounded, and
nothing takes long.
"""

import os
from pathlib import Path

import pytest

from bridge.journal.keeper import CATCH_UP_RECORDS
from tests.support import frames
from tests.support.hearing_subject import (
    FIRST,
    NOW_US,
    ORDERS,
    TICKERS,
    Subject,
    full,
    numbers,
)
from tests.support.items import fields

BUFFER_BYTES = 1_000_000


def behind_and_broken(folder: Path, monkeypatch: pytest.MonkeyPatch, count: int) -> Subject:
    """Redis is away, memory is full, so many trades are in the journal; now the disk is full."""
    subject = Subject(folder, buffer_bytes=BUFFER_BYTES).begin()
    subject.open()
    subject.trades(count)
    subject.hearing.journal.flush()
    assert not subject.hearing.is_live
    monkeypatch.setattr(os, "write", full)
    subject.trades(1)
    subject.hearing.journal.flush()
    return subject


def test_memory_stays_bounded_however_much_more_is_heard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = behind_and_broken(tmp_path, monkeypatch, 3000)

    most = 0
    for _ in range(240):
        subject.trades(50)
        most = max(most, subject.intake.pending_bytes())
        subject.hearing.catch_up(CATCH_UP_RECORDS)
        most = max(most, subject.intake.pending_bytes())

    assert most < 1.5 * BUFFER_BYTES
    assert subject.hearing.is_live
    assert subject.waiting()[-1] == FIRST + subject.heard - 1
    [gap] = subject.intake.lines[TICKERS].pending
    assert fields(gap)["cause"] == "buffer full"


def test_what_is_held_stays_bounded_while_nobody_comes_to_hear_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Public frames go first, and are marked; the account's stay."""
    subject = behind_and_broken(tmp_path, monkeypatch, 3000)
    tick = frames.TICKER.replace("1790134358087727", str(NOW_US))
    subject.hearing.hear(tick, NOW_US + subject.heard, 1)
    subject.hearing.hear(frames.ORDER_ACCEPTED, NOW_US + subject.heard, 1)

    for _ in range(100):
        subject.trades(50)
        assert subject.intake.pending_bytes() < 1.5 * BUFFER_BYTES
    while subject.hearing.catch_up(CATCH_UP_RECORDS):
        assert subject.intake.pending_bytes() < 1.5 * BUFFER_BYTES

    assert [fields(item)["type"] for item in subject.intake.lines[ORDERS].pending] == [
        "orderAccepted"
    ]
    assert "buffer full" in {
        fields(item).get("cause") for item in subject.intake.lines[TICKERS].pending
    }
    waiting = subject.waiting()
    assert waiting[-1] == FIRST + subject.heard - 1
    assert waiting[0] > FIRST + 3001


def test_no_step_takes_longer_for_all_that_is_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither hearing a frame nor a step of catching up reads the whole journal."""
    read: list[int] = []
    subject = behind_and_broken(tmp_path, monkeypatch, 20_000)
    records = subject.hearing.journal.records

    def counted(offset: int) -> object:
        read.append(0)
        for each in records(offset):
            read[-1] += 1
            yield each

    monkeypatch.setattr(subject.hearing.journal, "records", counted)

    subject.trades(1000)
    assert sum(read) == 0, "a frame had somebody read the journal"
    while subject.hearing.catch_up(CATCH_UP_RECORDS):
        assert max(read, default=0) <= CATCH_UP_RECORDS
    assert subject.hearing.is_live


def test_redis_is_back_and_what_was_held_is_said_in_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = behind_and_broken(tmp_path, monkeypatch, 3000)
    subject.trades(200)

    seen: list[int] = []
    while not subject.hearing.is_live or subject.waiting():
        seen += subject.waiting()
        if subject.waiting():
            subject.all_settled()
        before = len(subject.waiting())
        subject.hearing.catch_up(50)
        assert len(subject.waiting()) - before <= 50

    assert seen == numbers(0, 3201)


def test_a_refill_that_cannot_go_on_holds_no_more_than_memory_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = Subject(tmp_path, buffer_bytes=BUFFER_BYTES).begin()
    subject.open()
    subject.trades(10)
    subject.all_settled()
    line = subject.intake.lines["trade.BTC_USDC_PERP"]
    line.lost_at = "0-0"
    subject.hearing.rehearing.refill()
    subject.hearing.journal.flush()
    monkeypatch.setattr(os, "write", full)
    subject.trades(1)
    subject.hearing.journal.flush()

    for _ in range(50):
        subject.trades(200)
        subject.hearing.catch_up(CATCH_UP_RECORDS)
        assert subject.intake.pending_bytes() < 1.5 * BUFFER_BYTES

    assert subject.waiting()[-1] == FIRST + subject.heard - 1


def test_room_on_the_disk_in_the_middle_of_giving_up_ends_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was passed over, and what was not even held, is marked once."""
    subject = behind_and_broken(tmp_path, monkeypatch, 3000)
    tick = frames.TICKER.replace("1790134358087727", str(NOW_US))
    subject.hearing.hear(tick, NOW_US + subject.heard, 1)
    subject.trades(3000)
    waiting = len(subject.waiting())
    subject.hearing.catch_up(CATCH_UP_RECORDS)
    monkeypatch.undo()
    subject.hearing.mend()

    seen: list[int] = []
    while not subject.hearing.is_live or subject.waiting():
        seen += subject.waiting()
        if subject.waiting():
            subject.all_settled()
        subject.hearing.catch_up(CATCH_UP_RECORDS)

    assert seen[-1] == FIRST + subject.heard - 1
    assert sorted(set(seen)) == seen
    assert waiting < len(seen) < subject.heard
    told = [fields(item) for item in subject.intake.lines[TICKERS].pending]
    assert {entry["cause"] for entry in told if entry["type"] == "gap"} == {
        "buffer full",
        "not in the journal",
    }
    spans = [(entry["from_us"], entry["to_us"]) for entry in told if entry["type"] == "gap"]
    assert len(set(spans)) == len(spans)
