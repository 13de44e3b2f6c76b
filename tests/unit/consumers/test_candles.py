"""The candles sample: bounds, closing, amending, and incomplete candles."""

from collections.abc import Iterable
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.contract.streams import KLINE_INTERVALS
from consumers.handlers.candles import Candles, bounds
from consumers.kit.api.results import Results, State
from tests.support.consumer_entries import (
    MINUTE_US,
    START_US,
    Fields,
    delivery,
    entry_id,
    gap,
    trade,
)

Entry = tuple[str, Fields]


def consumer(saved: dict[str, str] | None = None, intervals: str = "1m") -> Candles:
    candles = Candles(intervals)
    candles.stream, candles.state = "trade.SOL_USDC", State(saved)
    candles.load()
    return candles


def at(number: int, after_us: int, price: str = "98.96", quantity: str = "1.5") -> Entry:
    """The entry of a trade `after_us` µs after a whole minute."""
    return entry_id(START_US + after_us, number), trade(
        number, START_US + after_us, price, quantity
    )


def missing(to: int, after_us: int, **more: Any) -> Entry:
    return entry_id(START_US + after_us, to, 1), gap(to, **more)


def feed(candles: Candles, entries: Iterable[Entry]) -> None:
    for where, fields in entries:
        handler = candles.on_gap if fields["type"] == "gap" else candles.on_trade
        handler(delivery(fields, at=where))


def written(candles: Candles) -> tuple[list[dict[str, str]], dict[str, str]]:
    """Write the candles; return the closed ones and the current one as stored in Redis."""
    results = Results()
    candles.write(results)
    closed = [_pairs(w.arguments[4:]) for w in results.writes if w.command == "XADD"]
    hashes = [_pairs(w.arguments) for w in results.writes if w.command == "HSET"]
    return closed, hashes[0] if hashes else {}


def _pairs(flat: tuple[str, ...]) -> dict[str, str]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


def test_a_candle_is_the_trades_from_its_start_until_before_its_end() -> None:
    candles = consumer()
    feed(
        candles,
        [
            at(100, -1, "98.00", "1"),
            at(101, 0, "98.50", "1.5"),
            at(102, 30_000_000, "99.25", "2"),
            at(103, 40_000_000, "98.10", "0.25"),
            at(104, MINUTE_US - 1, "98.75", "1"),
            at(105, MINUTE_US, "98.80", "1"),
        ],
    )
    closed, current = written(candles)
    assert closed[1] == {
        "symbol": "SOL_USDC",
        "interval": "1m",
        "start_utc": "2026-09-02T16:44:00",
        "end_utc": "2026-09-02T16:45:00",
        "open": "98.50",
        "high": "99.25",
        "low": "98.10",
        "close": "98.75",
        "volume": "4.75",
        "quote_volume": "469.5250",
        "trades": "4",
        "first_trade_id": "101",
        "last_trade_id": "104",
        "complete": "true",
        "closed": "true",
        "revision": "0",
    }
    assert (current["start_utc"], current["open"], current["closed"]) == (
        "2026-09-02T16:45:00",
        "98.80",
        "false",
    )


def test_the_first_candle_is_not_complete_for_trades_before_it_are_unknown() -> None:
    candles = consumer()
    feed(candles, [missing(99, 0), at(100, 1), at(101, MINUTE_US)])
    closed, current = written(candles)
    assert [c["complete"] for c in closed] == ["false"]
    assert current["complete"] == "true"


def test_a_gap_makes_the_candles_on_both_its_sides_incomplete() -> None:
    candles = consumer()
    feed(
        candles,
        [
            at(100, 0),
            at(101, MINUTE_US),
            at(102, 2 * MINUTE_US),
            missing(105, 3 * MINUTE_US, first=103),
            at(106, 3 * MINUTE_US),
            at(107, 4 * MINUTE_US),
            at(108, 5 * MINUTE_US),
        ],
    )
    closed, _ = written(candles)
    assert [c["complete"] for c in closed] == ["false", "true", "false", "false", "true"]


def test_a_recovered_gap_leaves_candles_complete() -> None:
    candles = consumer()
    feed(
        candles,
        [at(100, 0), at(101, MINUTE_US), missing(101, MINUTE_US, first=101, recovered=True)],
    )
    feed(candles, [at(102, MINUTE_US + 1)])
    assert written(candles)[1]["complete"] == "true"


def test_trade_ids_that_jump_without_a_gap_entry_make_candles_incomplete() -> None:
    candles = consumer()
    feed(candles, [at(100, 0), at(101, MINUTE_US), at(103, MINUTE_US + 1)])
    assert written(candles)[1]["complete"] == "false"


def test_a_late_trade_amends_the_closed_candle_it_belongs_to() -> None:
    candles = consumer()
    feed(candles, [at(100, -1), at(101, 0), at(102, MINUTE_US)])
    late = trade(103, START_US + MINUTE_US - 1, "97.00", "4")
    feed(candles, [(entry_id(START_US + MINUTE_US, 103), late)])
    closed, current = written(candles)
    amended = closed[-1]
    assert (amended["start_utc"], amended["revision"]) == ("2026-09-02T16:44:00", "1")
    assert (amended["low"], amended["close"], amended["volume"]) == ("97.00", "97.00", "5.5")
    assert (current["trades"], current["low"]) == ("1", "98.96")


def late(number: int, minute: int, newest: int, price: str = "1.00") -> Entry:
    """The entry of a trade of `minute` that arrives when `newest` is the newest minute."""
    fields = trade(number, START_US + minute * MINUTE_US, price)
    return entry_id(START_US + newest * MINUTE_US, number), fields


def test_a_trade_that_is_too_late_to_amend_is_counted_and_changes_no_candle() -> None:
    candles = consumer()
    feed(candles, [at(100 + n, n * MINUTE_US) for n in range(7)])  # minutes 1 to 5 can be amended
    written(candles)
    for n, (minute, too_late) in enumerate([(1, "0"), (0, "1"), (-3, "2")]):
        feed(candles, [late(107 + n, minute, 6)])
        closed, current = written(candles)
        assert len(closed) == (1 if minute == 1 else 0)
        assert (current["too_late"], current["trades"]) == (too_late, "1")
    saved: dict[str, str] = {}
    for write in candles.state.take_writes("state"):
        saved |= _pairs(write.arguments)
    assert written(consumer(saved))[1]["too_late"] == "2"


def test_a_late_trade_for_a_minute_without_trades_makes_its_candle() -> None:
    candles = consumer()
    feed(candles, [at(100, 0), at(101, 3 * MINUTE_US), late(102, 1, 3, "97.00"), late(103, 1, 3)])
    closed, current = written(candles)
    assert [(c["start_utc"][11:16], c["close"], c["revision"], c["complete"]) for c in closed] == [
        ("16:44", "98.96", "0", "false"),  # the first candle is incomplete
        ("16:45", "97.00", "0", "true"),
        ("16:45", "1.00", "1", "true"),
    ]
    assert (current["start_utc"], current["too_late"]) == ("2026-09-02T16:47:00", "0")
    feed(candles, [at(104, 4 * MINUTE_US)])
    assert written(candles)[0][0]["start_utc"] == "2026-09-02T16:47:00"


def test_a_candle_that_is_made_late_pushes_out_the_oldest() -> None:
    candles = consumer()
    feed(candles, [at(100 + n, minute * MINUTE_US) for n, minute in enumerate([0, 1, 2, 3, 4, 6])])
    feed(candles, [late(106, 5, 6), late(107, 0, 6), late(108, 1, 6)])
    closed, current = written(candles)
    assert [c["start_utc"][14:16] for c in closed] == ["44", "45", "46", "47", "48", "49", "45"]
    assert current["too_late"] == "1"


def test_a_candle_that_is_made_late_where_trades_may_be_missing_is_not_complete() -> None:
    candles = consumer()
    across = [missing(103, 4 * MINUTE_US, first=102), at(104, 4 * MINUTE_US)]
    feed(candles, [at(100, 0), at(101, MINUTE_US), *across, at(105, 6 * MINUTE_US)])
    written(candles)
    feed(candles, [late(106, 2, 6), late(107, 3, 6), late(108, 5, 6)])
    assert [c["complete"] for c in written(candles)[0]] == ["false", "false", "true"]
    feed(candles, [late(109, 5, 6), missing(110, 6 * MINUTE_US, first=110), late(111, 5, 6)])
    assert [c["complete"] for c in written(candles)[0]] == ["true", "false"]


def test_a_trade_from_history_without_microseconds_counts_at_its_entrys_time() -> None:
    candles = consumer()
    row = trade(100, START_US) | {"engine_us": "", "event_us": "", "source": "rest"}
    feed(candles, [(entry_id(START_US, 100), row)])
    assert written(candles)[1]["start_utc"] == "2026-09-02T16:44:00"


def test_a_closed_candle_is_kept_under_the_id_of_the_entry_that_closed_it() -> None:
    candles = consumer()
    feed(candles, [at(100, 0), at(101, MINUTE_US)])
    results = Results()
    candles.write(results)
    [xadd] = [w for w in results.writes if w.command == "XADD"]
    assert xadd.part == "1m:closed"
    assert xadd.arguments[:4] == ("MAXLEN", "~", "10000", f"{(START_US + MINUTE_US) // 1000}-1010")


@pytest.mark.parametrize(
    ("interval", "start", "end"),
    [
        ("1s", "2026-09-02T16:44:31", "2026-09-02T16:44:32"),
        ("5m", "2026-09-02T16:40:00", "2026-09-02T16:45:00"),
        ("4h", "2026-09-02T16:00:00", "2026-09-02T20:00:00"),
        ("1d", "2026-09-02T00:00:00", "2026-09-03T00:00:00"),
        ("1w", "2026-08-31T00:00:00", "2026-09-07T00:00:00"),
        ("1month", "2026-09-01T00:00:00", "2026-10-01T00:00:00"),
    ],
)
def test_bounds_of_each_kind_of_interval(interval: str, start: str, end: str) -> None:
    candles = consumer(intervals=interval)
    feed(candles, [at(100, 31_500_000)])
    _, current = written(candles)
    assert (current["start_utc"], current["end_utc"]) == (start, end)


def test_december_ends_with_the_year() -> None:
    december_us = 1_798_000_000_000_000  # 2026-12-23
    start_us, end_us = bounds("1month", december_us)
    assert (start_us, end_us) == (1_796_083_200_000_000, 1_798_761_600_000_000)


@given(st.sampled_from(KLINE_INTERVALS), st.integers(0, 4_000_000_000_000_000))
def test_every_moment_lies_in_exactly_one_candle(interval: str, moment_us: int) -> None:
    start_us, end_us = bounds(interval, moment_us)
    assert start_us <= moment_us < end_us
    assert bounds(interval, start_us) == bounds(interval, end_us - 1) == (start_us, end_us)
    assert bounds(interval, end_us)[0] == end_us


amounts = st.decimals("0.0001", "99999", places=4).map(str)
steps_us = st.one_of(  # forward, back by up to 1.5 ms, or by whole minutes
    st.integers(-1500, 45_000_000), st.integers(-8, 3).map(lambda minutes: minutes * MINUTE_US)
)


@st.composite
def trades(draw: st.DrawFn) -> list[Entry]:
    found, newest_us = [], 0
    for number in range(100, 100 + draw(st.integers(1, 40))):
        moment_us = max(0, newest_us + draw(steps_us))
        newest_us = max(newest_us, moment_us)
        fields = trade(number, START_US + moment_us, draw(amounts), draw(amounts))
        found.append((entry_id(START_US + newest_us, number), fields))
    return found


def in_time(entries: list[Entry]) -> list[Entry]:
    """The entries that are not too late: not before the last five closed candles."""
    minutes, found = set[int](), []
    for entry in entries:
        minute = int(entry[1]["engine_us"]) // MINUTE_US
        if not minutes or minute >= min(sorted(minutes)[-6:]):
            minutes.add(minute)
            found.append(entry)
    return found


def folded(entries: list[Entry]) -> dict[int, dict[str, Any]]:
    """Reference candles by minute, each from all its trades in the order of their IDs."""
    minutes: dict[int, list[Fields]] = {}
    for _, fields in entries:
        minutes.setdefault(int(fields["engine_us"]) // MINUTE_US, []).append(fields)
    return {
        minute: {
            "open": Decimal(of[0]["price"]),
            "high": max(Decimal(f["price"]) for f in of),
            "low": min(Decimal(f["price"]) for f in of),
            "close": Decimal(of[-1]["price"]),
            "volume": sum(Decimal(f["quantity"]) for f in of),
            "quote_volume": sum(Decimal(f["quantity"]) * Decimal(f["price"]) for f in of),
            "trades": len(of),
        }
        for minute, of in minutes.items()
    }


@given(trades(), st.sets(st.integers(0, 39)), st.sets(st.integers(0, 39)))
def test_candles_equal_a_direct_fold_for_any_batches_and_takeovers(
    entries: list[Entry], batches: set[int], takeovers: set[int]
) -> None:
    candles, saved, closed = consumer(), dict[str, str](), []
    for i, entry in enumerate(entries):
        feed(candles, [entry])
        if i in batches | takeovers:
            closed += written(candles)[0]
            for write in candles.state.take_writes("state"):
                saved |= _pairs(write.arguments)
        if i in takeovers:
            candles = consumer(saved)
    closed_last, current = written(candles)
    by_start: dict[str, list[dict[str, str]]] = {}
    for one in [*closed, *closed_last, current]:
        by_start.setdefault(one["start_utc"], []).append(one)
    counted = in_time(entries)
    expected = folded(counted)
    assert current["too_late"] == str(len(entries) - len(counted))
    for start, (_, values) in zip(sorted(by_start), sorted(expected.items()), strict=True):
        versions = by_start[start]
        assert [int(one["revision"]) for one in versions] == list(range(len(versions)))
        assert {name: Decimal(versions[-1][name]) for name in values} == values


def test_candles_refuse_an_unknown_interval() -> None:
    with pytest.raises(ValueError, match="'7m' is no interval"):
        Candles("1m,7m")


@pytest.mark.parametrize("absurd", [0, 2**64 - 1, START_US + 365 * 24 * 60 * MINUTE_US])
def test_candle_uses_the_entrys_time_for_an_implausible_engine_time(
    absurd: int,
) -> None:
    candles = consumer(intervals="1m,1month")
    where, fields = at(2, 20_000_000)
    feed(candles, [at(1, 0), (where, fields | {"engine_us": str(absurd)}), at(3, 40_000_000)])

    _, current = written(candles)

    assert (current["start_utc"], current["trades"]) == ("2026-09-02T16:44:00", "3")


def test_candles_continue_after_an_entry_id_that_is_no_time() -> None:
    candles = consumer(intervals="1m,1month")
    feed(candles, [at(1, 0), ("18446744073709551615-20", at(2, 0)[1])])

    closed, current = written(candles)

    assert [one["trades"] for one in closed] == ["1", "1"]
    assert current["start_utc"] == "9998-12-31T23:59:00"
