"""Streams heard over several connections: all that any of them heard, each once, twins kept."""

import json
from collections import Counter
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from bridge.contract.streams import parse_stream
from bridge.pipeline.book import Join
from bridge.pipeline.intake import Intake
from bridge.pipeline.items import Recent
from tests.support import frames
from tests.support.items import fields

TRADES, DEPTHS, BALANCES = "trade.BTC_USDC_PERP", "depth.SOL_USDC", "account.balanceUpdate"
TICKERS, KLINES = "ticker.BTC_USDC_PERP", "kline.1m.SOL_USDC"
NAMES = [TRADES, DEPTHS, BALANCES, TICKERS, KLINES]
HOLD_US = 2_000_000
NOW_US = 1_790_915_531_000_000


def intake(connections: int = 2, wants: list[str] | None = None) -> Intake:
    subject = Intake(
        [parse_stream(name) for name in NAMES],
        hold_us=HOLD_US,
        snapshot_every=0,
        ask=(wants if wants is not None else []).append,
    )
    for number in range(1, connections + 1):
        subject.opened(number, NAMES)
        subject.answered(number, NOW_US, NOW_US, 0)
        subject.hear(changed(frames.TICKER, E=NOW_US - 1_000_000), NOW_US, number, 0)
    return subject


def changed(frame: str, **values: object) -> str:
    message = json.loads(frame)
    message["data"] |= values
    return json.dumps(message)


def trade(number: int) -> str:
    return changed(frames.TRADE, t=number, T=NOW_US + number * 1000, E=NOW_US + number * 1000)


def depth(number: int) -> str:
    return changed(frames.DEPTH, U=number, u=number, T=NOW_US, E=NOW_US)


def balance(amount: int) -> str:
    return changed(frames.BALANCE_UPDATE, A=str(amount), T=NOW_US + amount, E=NOW_US + amount)


@st.composite
def hearings(draw: st.DrawFn) -> tuple[list[int], list[list[int]], list[int]]:
    """What was sent (equal numbers are twins), what each of two connections heard of it, and in
    which turns they did.
    """
    sent = sorted(draw(st.lists(st.integers(1, 30), min_size=1, max_size=60)))
    heard = [[number for number in sent if not draw(st.booleans())] for _ in range(2)]
    turns = draw(st.permutations([0] * len(heard[0]) + [1] * len(heard[1])))
    return sent, heard, list(turns)


def say(subject: Intake, heard: list[list[int]], turns: Sequence[int], frame: object) -> None:
    waiting = [list(each) for each in heard]
    for step, turn in enumerate(turns):
        number = waiting[turn].pop(0)
        subject.hear(frame(number), NOW_US + step, turn + 1, step)  # type: ignore[operator]


@given(hearings())
def test_of_numbered_messages_all_that_anyone_heard_waits_once_and_in_order(
    drawn: tuple[list[int], list[list[int]], list[int]],
) -> None:
    _, heard, _ = drawn
    heard = [sorted(set(each)) for each in heard]
    turns = [turn for turn, each in enumerate(heard) for _ in each]
    subject = intake()

    say(subject, heard, turns, trade)

    line = subject.lines[TRADES]
    assert [item.position for item in line.pending] == sorted(set(heard[0]) | set(heard[1]))
    assert line.counters.doubles == len(set(heard[0]) & set(heard[1]))


@given(hearings())
def test_of_events_all_that_anyone_heard_waits_once_twins_counted(
    drawn: tuple[list[int], list[list[int]], list[int]],
) -> None:
    _, heard, turns = drawn
    subject = intake()

    say(subject, heard, turns, balance)

    waiting = Counter(int(fields(item)["available"]) for item in subject.lines[BALANCES].pending)
    assert waiting == Counter(heard[0]) | Counter(heard[1])


def test_a_book_waits_for_what_another_connection_may_have_heard() -> None:
    wants: list[str] = []
    subject = intake(wants=wants)
    subject.hear(depth(10), NOW_US, 1, 0)
    body = json.dumps({"asks": [], "bids": [], "lastUpdateId": "10"}).encode()
    assert subject.rest_body(DEPTHS, body, NOW_US, 0) is Join.PLACED

    subject.hear(depth(12), NOW_US + 1, 1, 0)  # 11 was lost on the first connection
    subject.hear(depth(11), NOW_US + 2, 2, 0)
    subject.hear(depth(13), NOW_US + 3, 1, 0)

    assert wants == [DEPTHS]  # the first delta asked, no hole did
    assert not subject.misses_book(DEPTHS)


def test_a_book_that_nobody_completes_in_time_is_void() -> None:
    wants: list[str] = []
    subject = intake(wants=wants)
    subject.hear(depth(10), NOW_US, 1, 0)
    body = json.dumps({"asks": [], "bids": [], "lastUpdateId": "10"}).encode()
    subject.rest_body(DEPTHS, body, NOW_US, 0)

    subject.hear(depth(12), NOW_US + 1, 1, 0)
    subject.hear(depth(13), NOW_US + 1 + HOLD_US, 1, 0)

    assert wants == [DEPTHS, DEPTHS]


def test_a_book_heard_over_one_connection_waits_for_nobody() -> None:
    wants: list[str] = []
    subject = intake(connections=1, wants=wants)
    subject.hear(depth(10), NOW_US, 1, 0)
    subject.rest_body(DEPTHS, b'{"asks":[],"bids":[],"lastUpdateId":"10"}', NOW_US, 0)

    subject.hear(depth(12), NOW_US + 1, 1, 0)

    assert wants == [DEPTHS, DEPTHS]


def test_a_sample_that_another_server_took_a_moment_later_is_the_same() -> None:
    subject = intake()
    for second in range(3):
        for connection, late_us in ((1, 0), (2, 400_000)):
            moment_us = NOW_US + second * 1_000_000 + late_us
            subject.hear(changed(frames.TICKER, E=moment_us), moment_us, connection, 0)

    line = subject.lines[TICKERS]
    assert len(line.pending) == 4
    assert line.counters.doubles == 3


def test_a_sample_goes_on_over_the_connection_that_is_left() -> None:
    subject = intake()
    subject.hear(changed(frames.TICKER, E=NOW_US), NOW_US, 1, 0)
    subject.hear(changed(frames.TICKER, E=NOW_US + 400_000), NOW_US, 2, 0)
    subject.lost(1, "connection lost", NOW_US, 0)
    subject.hear(changed(frames.TICKER, E=NOW_US + 1_400_000), NOW_US, 2, 0)

    assert len(subject.lines[TICKERS].pending) == 3


def test_a_candle_emitted_at_two_times_is_one() -> None:
    subject = intake()
    subject.hear(changed(frames.KLINE_EMPTY, E=NOW_US), NOW_US, 1, 0)
    subject.hear(changed(frames.KLINE_EMPTY, E=NOW_US + 5_000), NOW_US, 2, 0)

    assert len(subject.lines[KLINES].pending) == 1


def test_with_two_connections_the_end_of_one_leaves_no_mark_in_any_stream() -> None:
    subject = intake()
    for second in range(1, 6):
        for connection in (1, 2):
            moment_us = NOW_US + second * 1_000_000
            subject.hear(changed(frames.TICKER, E=moment_us), moment_us, connection, 0)
    subject.hear(trade(1), NOW_US, 1, 0)

    subject.lost(1, "connection lost", NOW_US + 6_000_000, 0)
    subject.hear(trade(3), NOW_US, 2, 0)

    assert not [
        item
        for line in subject.every_line()
        for item in line.pending
        if fields(item)["type"] == "gap"
    ]
    assert subject.lines[TRADES].pending[-1].cause == ""


def test_a_frame_under_way_when_its_stream_was_left_is_passed_over() -> None:
    subject = intake()
    subject.changed(1, [DEPTHS], NOW_US, 0)

    assert subject.hear(trade(1), NOW_US, 1, 0) is None
    assert subject.counts.unwanted == 1
    assert not subject.quarantine.pending


def test_streams_that_a_connection_is_to_hear_have_lines() -> None:
    subject = Intake((), hold_us=0, snapshot_every=0, ask=lambda _: None)

    subject.opened(1, [TRADES, "no stream"])
    subject.changed(1, [TRADES, DEPTHS], NOW_US, 0)

    assert list(subject.lines) == [TRADES, DEPTHS]


def rotate(subject: Intake, old: int, new: int) -> None:
    """One connection replaces another, which is closed then."""
    subject.opened(new, NAMES)
    subject.answered(new, NOW_US, NOW_US, 0)
    subject.hear(trade(1), NOW_US, new, 0)
    subject.lost(old, "connection lost", NOW_US, 0)


def remembered(subject: Intake) -> dict[str, int]:
    return {name: n for name, line in subject.lines.items() if (n := len(line._recent._heard))}


def test_a_minute_after_a_connection_replaced_another_nothing_heard_is_remembered() -> None:
    subject = intake(connections=1)
    rotate(subject, 1, 2)
    for second in range(1, 61):
        subject.hear(trade(second + 1), NOW_US + second * 1_000_000, 2, 0)
        subject.hear(balance(second), NOW_US + second * 1_000_000, 2, 0)
    assert remembered(subject) == {TRADES: 61, BALANCES: 60}

    subject.hear(trade(62), NOW_US + 61_000_000, 2, 0)

    assert remembered(subject) == {}
    subject.hear(trade(63), NOW_US + 62_000_000, 2, 0)
    assert remembered(subject) == {}


def test_what_two_connections_hear_always_is_remembered_for_a_minute() -> None:
    subject = intake()
    for second in range(300):
        subject.hear(trade(second + 1), NOW_US + second * 1_000_000, 1, 0)

    assert remembered(subject)[TRADES] == 61


def test_doubles_of_a_second_replacement_are_told_like_those_of_the_first() -> None:
    subject = intake(connections=1)
    rotate(subject, 1, 2)
    later_us = NOW_US + 1_800_000_000
    subject.hear(trade(2), later_us, 2, 0)
    subject.opened(3, NAMES)
    subject.hear(trade(3), later_us, 2, 0)
    subject.hear(trade(3), later_us, 3, 0)
    subject.lost(2, "connection lost", later_us, 0)
    subject.hear(trade(4), later_us + 30_000_000, 3, 0)
    subject.hear(trade(3), later_us + 30_000_000, 3, 0)

    line = subject.lines[TRADES]
    assert [item.position for item in line.pending] == [1, 2, 3, 4]
    assert line.counters.doubles == 2


def test_a_delta_that_waited_for_another_connection_waits_no_longer_than_the_overlap() -> None:
    wants: list[str] = []
    subject = intake(wants=wants)
    subject.hear(depth(10), NOW_US, 1, 0)
    body = json.dumps({"asks": [], "bids": [], "lastUpdateId": "10"}).encode()
    subject.rest_body(DEPTHS, body, NOW_US, 0)
    subject.hear(depth(12), NOW_US, 1, 0)  # 11 may come over the second
    subject.lost(2, "connection lost", NOW_US, 0)
    subject.hear(trade(1), NOW_US + 61_000_000, 1, 0)

    subject.hear(depth(13), NOW_US + 61_000_000, 1, 0)

    assert wants == [DEPTHS, DEPTHS]
    assert subject._books._books[DEPTHS].position == 13


def test_the_memory_of_what_was_heard_is_bounded_in_number_and_time() -> None:
    recent = Recent()
    assert recent.has((0,), 1, NOW_US) is False
    assert recent.has((0,), 2, NOW_US + Recent.WITHIN_US + 1) is False
    for number in range(1, Recent.LIMIT + 1):
        recent.has((number,), 1, NOW_US)

    assert recent.has((0,), 1, NOW_US) is False
    assert recent.has((Recent.LIMIT,), 2, NOW_US) is True
    assert recent.has((Recent.LIMIT,), 1, NOW_US) is False  # equal, on the same connection: a twin
