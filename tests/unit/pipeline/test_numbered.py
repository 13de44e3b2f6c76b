"""The line of a numbered stream: literal answers of Redis in, the next batch out."""

from bridge.contract.events import DepthSnapshot
from bridge.contract.streams import parse_stream
from bridge.pipeline.items import Op, numbered, numbered_gap, snapshot
from bridge.pipeline.numbered import (
    ASK_EVERY_US,
    OLDEST_LOOKED_AT,
    START_GRACE_US,
    NumberedLine,
)
from bridge.pipeline.peers import PATIENCE_US, TURN_US, Company, Word
from bridge.pipeline.unnoted import PAGE, PAGES
from tests.support.items import NOW_US, TRADES, answer, delta, fields, trade

HOLD_US = 2_000_000
SECOND_US = 1_000_000


def line_with(*numbers: int, confirmed: str = "0-0") -> NumberedLine:
    line = NumberedLine(TRADES, HOLD_US)
    line.confirmed = confirmed
    for number in numbers:
        line.put(trade(number))
    return line


def positions(line: NumberedLine, now_us: int = NOW_US) -> list[tuple[str, int]]:
    return [(item.op.value, item.position) for item in line.take(now_us, 100)]


def test_what_was_heard_goes_out_in_order_with_its_predecessor() -> None:
    line = line_with(5, 6)

    batch = line.take(NOW_US, 100)

    assert [(item.op, item.expected, item.position, item.ms) for item in batch] == [
        (Op.APPEND, "4", 5, NOW_US // 1000),
        (Op.APPEND, "5", 6, NOW_US // 1000),
    ]


def test_nothing_more_goes_out_before_the_answer() -> None:
    line = line_with(5)
    line.take(NOW_US, 100)
    line.put(trade(6))

    assert line.take(NOW_US, 100) == ()


def test_what_was_not_answered_goes_out_again() -> None:
    line = line_with(5, 6)
    line.take(NOW_US, 100)

    line.unanswered()

    assert positions(line) == [("A", 5), ("A", 6)]


def test_a_batch_is_bounded() -> None:
    assert len(line_with(*range(1, 50)).take(NOW_US, 20)) == 20


def test_what_is_settled_is_counted_and_forgotten() -> None:
    line = line_with(5, 6, 7)
    line.take(NOW_US, 100)

    line.settle(answer("ok", "9-70", "=++"), NOW_US)

    assert (line.counters.published, line.counters.duplicates) == (2, 1)
    assert (line.confirmed, len(line.pending), line.pending_bytes) == ("9-70", 0, 0)


def test_a_new_stream_begins_with_a_start_that_stands_before_the_first_message() -> None:
    line = line_with(5)
    line.take(NOW_US, 100)

    line.settle(answer("empty", "0-0"), NOW_US)

    start, first = line.take(NOW_US, 100)
    assert (start.op, start.expected, start.position) == (Op.GAP, "0-0", 4)
    assert (fields(start)["cause"], fields(start)["from"], fields(start)["to"]) == ("start", "", "")
    assert first.position == 5


def test_a_message_whose_predecessor_is_missing_waits_a_bounded_time() -> None:
    line = line_with(8, confirmed="9-50")
    line.take(NOW_US, 100)
    line.settle(answer("hole", "9-50"), NOW_US)

    assert line.take(NOW_US + HOLD_US - 1, 100) == ()
    assert line.due_us() == NOW_US + HOLD_US


def test_then_a_gap_names_what_is_missing_and_the_stream_goes_on() -> None:
    line = line_with(8, 9, confirmed="9-50")
    line.take(NOW_US, 100)
    line.settle(answer("hole", "9-50"), NOW_US)

    gap, *rest = line.take(NOW_US + HOLD_US, 100)

    assert (gap.op, gap.expected, gap.position) == (Op.GAP, "9-50", 7)
    named = fields(gap)
    assert (named["from"], named["to"], named["cause"]) == ("6", "7", "skipped")
    assert (named["symbol"], named["repaired"]) == ("SOL_USDC", "false")
    assert named["received_us"] == str(NOW_US)
    assert [item.position for item in rest] == [8, 9]


def test_a_predecessor_that_comes_in_time_closes_the_hole() -> None:
    line = line_with(8, confirmed="9-50")
    line.take(NOW_US, 100)
    line.settle(answer("hole", "9-50"), NOW_US)

    line.put(trade(7))
    line.put(trade(6))

    assert positions(line, NOW_US + HOLD_US) == [("A", 6), ("A", 7), ("A", 8)]


def test_a_backlog_with_many_holes_does_not_wait_once_for_each() -> None:
    line = line_with(8, 10, 12, confirmed="9-50")
    now_us = NOW_US + HOLD_US
    for last in ("9-50", "9-80", "9-100"):
        line.take(now_us, 100)
        line.settle(answer("hole", last), now_us)
        _, following = line.take(now_us, 2)
        line.settle(answer("ok", f"9-{following.position}0", "++"), now_us)

    assert line.counters.gaps == 3


def test_a_gap_that_came_too_late_is_thought_over_again() -> None:
    line = line_with(8, confirmed="9-50")
    line.take(NOW_US, 100)
    line.settle(answer("hole", "9-50"), NOW_US)
    line.take(NOW_US + HOLD_US, 100)

    line.settle(answer("hole", "9-60", "~"), NOW_US + HOLD_US)

    gap = line.take(NOW_US + HOLD_US, 100)[0]
    assert (gap.expected, fields(gap)["from"], fields(gap)["to"]) == ("9-60", "7", "7")
    assert line.counters.gaps == 0


def test_a_gap_after_a_lost_connection_says_so() -> None:
    line = line_with(5, confirmed="9-40")
    line.disconnected("connection lost")
    line.put(trade(8))
    line.take(NOW_US, 1)
    line.settle(answer("ok", "9-50", "+"), NOW_US)
    line.take(NOW_US, 100)
    line.settle(answer("hole", "9-50"), NOW_US)

    gap = line.take(NOW_US + HOLD_US, 100)[0]
    assert fields(gap)["cause"] == "connection lost"


def test_redis_that_lost_entries_gets_nothing_before_it_is_decided_what_to_do() -> None:
    line = line_with(8, confirmed="9-70")
    line.take(NOW_US, 100)

    line.settle(answer("hole", "9-50"), NOW_US)

    assert line.lost_at == "9-50"
    assert line.take(NOW_US + HOLD_US, 100) == ()


def test_a_whole_stream_lost_for_good_begins_anew_and_says_so() -> None:
    line = line_with(8, confirmed="9-70")
    line.take(NOW_US, 100)
    line.settle(answer("empty", "0-0"), NOW_US)

    line.accept_loss()

    start = line.take(NOW_US, 100)[0]
    assert (start.expected, fields(start)["cause"]) == ("0-0", "redis lost entries")


def test_the_newest_entries_lost_for_good_become_a_gap_that_says_so() -> None:
    line = line_with(8, confirmed="9-70")
    line.take(NOW_US, 100)
    line.settle(answer("hole", "9-50"), NOW_US)

    line.accept_loss()

    gap = line.take(NOW_US + HOLD_US, 100)[0]
    named = fields(gap)
    assert (named["from"], named["to"], named["cause"]) == ("6", "7", "redis lost entries")


def test_a_refilled_stream_goes_on_where_redis_is() -> None:
    line = line_with(8, confirmed="9-70")
    line.take(NOW_US, 100)
    line.settle(answer("hole", "9-50"), NOW_US)

    line.rewind(0, 0)
    for number in (5, 6, 7, 8):
        line.put(trade(number))

    assert positions(line) == [("A", 5), ("A", 6), ("A", 7), ("A", 8)]
    line.settle(answer("ok", "9-80", "=+++"), NOW_US)
    assert line.counters.gaps == 0


def test_a_loss_is_noticed_while_nothing_waits() -> None:
    line = line_with(confirmed="9-70")

    line.look("9-70")
    assert line.lost_at is None
    line.look("0-0")

    assert line.lost_at == "0-0"


def test_a_foreign_entry_with_a_clock_id_is_healed() -> None:
    line = line_with(8, confirmed="9-70")
    line.take(NOW_US, 100)

    line.settle(answer("hole", "1790915531000-0"), NOW_US)

    gap, first = line.take(NOW_US, 100)
    assert (gap.op, gap.expected, gap.position) == (Op.GAP, "1790915531000-0", 7)
    assert fields(gap)["cause"] == "foreign"
    assert first.position == 8


def test_an_id_beyond_two_to_the_fifty_three_stops_this_stream_and_says_what_to_do() -> None:
    line = line_with(8)
    line.take(NOW_US, 100)

    line.settle(answer("foreign", "18446744073709551615-1"), NOW_US)

    assert "rename" in line.parked
    assert line.take(NOW_US, 100) == ()
    line.redeem()
    assert positions(line) == [("A", 8)]


def test_numbers_that_begin_anew_are_believed_after_five_seconds() -> None:
    line = NumberedLine(TRADES, HOLD_US, confirmed="9-1000000")
    for number, second in ((1, 0), (2, 3), (3, 6)):
        line.put(trade(number, NOW_US + second * SECOND_US))
        line.take(NOW_US + second * SECOND_US, 100)
        line.settle(answer("ok", "9-1000000", "!"), NOW_US + second * SECOND_US)

    batch = line.take(NOW_US + 6 * SECOND_US, 100)

    assert fields(batch[0])["cause"] == "renumbered"
    assert [(item.op.value, item.expected, item.position) for item in batch] == [
        ("G", "9-1000000", 0),
        ("A", "0", 1),
        ("A", "1", 2),
        ("A", "2", 3),
    ]


def test_a_single_message_appended_in_between_says_that_numbers_go_on() -> None:
    line = NumberedLine(TRADES, HOLD_US, confirmed="9-1000000")
    for number, second, sign in ((1, 0, "!"), (100_001, 3, "+"), (2, 4, "!"), (3, 6, "!")):
        line.put(trade(number, NOW_US + second * SECOND_US))
        line.take(NOW_US + second * SECOND_US, 100)
        line.settle(answer("ok", "9-1000010", sign), NOW_US + second * SECOND_US)

    assert line.take(NOW_US + 7 * SECOND_US, 100) == ()


def test_a_full_buffer_gives_up_the_oldest_and_names_them_later() -> None:
    line = line_with(*range(6, 26), confirmed="9-50")
    before = line.pending_bytes

    freed = line.drop_oldest(10)

    assert (len(line.pending), line.pending_bytes) == (18, before - freed)
    line.take(NOW_US, 100)
    line.settle(answer("hole", "9-50"), NOW_US)
    named = fields(line.take(NOW_US + HOLD_US, 100)[0])
    assert (named["from"], named["to"], named["cause"]) == ("6", "7", "buffer full")


def test_what_is_in_flight_is_not_given_up() -> None:
    line = line_with(6, 7, 8)
    line.take(NOW_US, 2)

    line.drop_oldest(1)

    assert [item.position for item in line.pending] == [6, 7]
    assert line.drop_oldest(1) == 0


def test_stopping_does_not_wait_for_a_predecessor() -> None:
    line = line_with(8, confirmed="9-50")
    line.take(NOW_US, 100)
    line.settle(answer("hole", "9-50"), NOW_US)

    line.hurry()

    assert positions(line, NOW_US) == [("G", 7), ("A", 8)]


def test_a_hole_that_was_written_voids_the_book_once() -> None:
    line = line_with(8, confirmed="9-50")
    line.take(NOW_US, 100)
    line.settle(answer("hole", "9-50"), NOW_US)
    line.take(NOW_US + HOLD_US, 100)
    line.settle(answer("ok", "9-80", "++"), NOW_US + HOLD_US)

    assert [line.takes_void_book(), line.takes_void_book()] == [True, False]


def test_a_start_voids_no_book() -> None:
    line = line_with(5)
    line.take(NOW_US, 100)
    line.settle(answer("empty", "0-0"), NOW_US)
    line.take(NOW_US, 100)
    line.settle(answer("ok", "9-50", "++"), NOW_US)

    assert not line.takes_void_book()
    assert line.counters.gaps == 0


def test_a_plain_xadd_into_an_unknown_stream_is_foreign_and_names_no_ids() -> None:
    line = line_with(8)
    line.take(NOW_US, 100)

    line.settle(answer("hole", "1790915531000-0"), NOW_US)

    gap = line.take(NOW_US, 100)[0]
    assert (fields(gap)["cause"], fields(gap)["from"]) == ("foreign", "")


def with_company(line: NumberedLine, *words: Word) -> NumberedLine:
    line.company = Company()
    line.company.look(Word(instance="m", session="m"), words, {}, redis_us=0, now_us=NOW_US)
    return line


def word(instance: str, **facts: object) -> Word:
    return Word.model_validate({"instance": instance, "session": instance, **facts})


def held(*words: Word) -> NumberedLine:
    line = with_company(line_with(8, 9, confirmed="9-50"), *words)
    line.take(NOW_US, 100)
    line.settle(answer("hole", "9-50"), NOW_US)
    return line


def test_a_held_line_says_what_it_needs() -> None:
    assert line_with(8).held_after() is None
    assert held().held_after() == 7


def test_a_hole_is_marked_in_time_where_no_other_bridge_can_fill_it() -> None:
    line = held(word("z", heard={TRADES.name: NOW_US}))

    gap, *_ = line.take(NOW_US + HOLD_US, 100)

    assert (gap.op, gap.position) == (Op.GAP, 7)


def test_while_another_bridge_may_fill_a_hole_the_stream_is_asked_again_and_again() -> None:
    line = held(word("z", held={TRADES.name: 6}))
    assert line.take(NOW_US + ASK_EVERY_US - 1, 100) == ()
    assert line.due_us() == NOW_US + ASK_EVERY_US

    assert positions(line, NOW_US + 2 * HOLD_US) == [("A", 8)]
    line.settle(answer("ok", "9-80", "+"), NOW_US + 2 * HOLD_US)

    assert positions(line, NOW_US + 2 * HOLD_US) == [("A", 9)]
    assert line.counters.gaps == 0


def test_a_hole_that_nobody_fills_is_marked_after_half_a_minute() -> None:
    line = held(word("z", held={TRADES.name: 6}))
    positions(line, NOW_US + HOLD_US)
    line.settle(answer("hole", "9-50"), NOW_US + HOLD_US)

    gap, *_ = line.take(NOW_US + HOLD_US + PATIENCE_US, 100)

    assert gap.op is Op.GAP


def test_a_stream_begins_with_the_earliest_of_all_bridges() -> None:
    line = with_company(line_with(8), word("z", held={TRADES.name: 5}))
    line.take(NOW_US, 100)
    line.settle(answer("empty", "0-0"), NOW_US)

    assert positions(line, NOW_US + START_GRACE_US) == [("A", 8)]
    line.settle(answer("ok", "9-80", "+"), NOW_US + START_GRACE_US)
    assert line.held_after() is None


def test_beside_another_bridge_a_start_gives_it_a_second() -> None:
    line = with_company(line_with(8), word("z"))
    line.take(NOW_US, 100)
    line.settle(answer("empty", "0-0"), NOW_US)

    assert positions(line, NOW_US) == []
    assert positions(line, NOW_US + ASK_EVERY_US) == [("A", 8)]
    line.settle(answer("empty", "0-0"), NOW_US + ASK_EVERY_US)
    assert positions(line, NOW_US + ASK_EVERY_US + START_GRACE_US)[0] == ("G", 7)


WINDOWS = parse_stream("depth.200ms.SOL_USDC")


def test_windows_of_depth_are_published_in_turn() -> None:
    line = NumberedLine(WINDOWS, HOLD_US)
    with_company(line, word("a", heard={WINDOWS.name: NOW_US}))
    line.put(numbered(delta(5, 8), NOW_US))
    line.put(numbered(delta(9, 9, engine_us=NOW_US + 5), NOW_US + 5))

    assert positions(line, NOW_US + TURN_US - 1) == []
    assert line.due_us() == NOW_US + TURN_US
    assert positions(line, NOW_US + TURN_US) == [("A", 8)]


def test_taking_over_windows_of_depth_wants_a_whole_book() -> None:
    line = NumberedLine(WINDOWS, HOLD_US)
    with_company(line, word("a", heard={WINDOWS.name: NOW_US}))
    line.put(numbered(delta(5, 8), NOW_US))
    line.take(NOW_US, 100)

    with_company(line)
    line.take(NOW_US, 100)

    assert line.takes_void_book()


def test_a_whole_book_that_another_bridge_has_placed_is_no_reason_for_another() -> None:
    line = NumberedLine(parse_stream("depth.SOL_USDC"), HOLD_US)
    line.put(snapshot(DepthSnapshot(symbol="SOL_USDC", update_id=5, rest_update_id=None,
                                    bids=[], asks=[], received_us=NOW_US), 1))  # fmt: skip
    line.take(NOW_US, 100)

    line.settle(answer("ok", "9-52", "="), NOW_US)

    assert not line.takes_void_book()


def gap_entry(number: int, entry_id: str = "") -> tuple[str, dict[str, str]]:
    """The gap that an earlier process wrote before this trade."""
    waiting = trade(number)
    gap = numbered_gap(
        waiting, symbol="SOL_USDC", last="9-0", from_=number - 2, cause="connection lost"
    )
    return entry_id or f"{waiting.ms}-{number - 1}1", fields(gap)


def heard_again(*numbers: int, confirmed: str = "9-50") -> NumberedLine:
    """A line after a restart: this was heard before, from the checkpoint on."""
    line = NumberedLine(TRADES, HOLD_US)
    line.confirmed = confirmed
    line.hear_again()
    for at, number in enumerate(numbers):
        item = trade(number)
        item.offset = 100 + at
        line.put(item)
    line.caught_up()
    return line


def test_a_gap_that_nobody_may_have_noted_is_looked_for_where_numbers_leave_out() -> None:
    line = heard_again(6, 7, 10, 11)
    line.take(NOW_US, 9)
    line.settle(answer("ok", "9-110", "===="), NOW_US)

    places = line.gaps_wanted()
    assert [place.from_id for place in places] == [f"{NOW_US // 1000}-{n}1" for n in (5, 9)]
    assert line.oldest_offset() == 100, "killed again before that, it is to be looked for again"
    line.read_gaps([[], [gap_entry(10)]])

    (noted,) = line.written_gaps
    assert (noted.position, noted.offset, fields(noted)["cause"]) == (9, 102, "connection lost")
    assert list(line.gaps_wanted()) == []
    assert line.oldest_offset() is None


def test_a_message_that_an_earlier_process_did_not_get_to_may_have_its_gap_there() -> None:
    line = heard_again(10)
    line.take(NOW_US, 9)
    line.settle(answer("ok", "9-100", "+"), NOW_US)

    assert len(line.gaps_wanted()) == 1


def test_a_gap_of_our_own_is_not_looked_for_nor_one_before_what_is_new() -> None:
    line = heard_again(10)
    line.take(NOW_US, 9)
    line.settle(answer("hole", "9-50"), NOW_US)
    new = trade(15)
    new.offset = 500
    line.put(new)
    assert positions(line, NOW_US + HOLD_US) == [("G", 9), ("A", 10), ("A", 15)]
    line.settle(answer("ok", "9-150", "+++"), NOW_US)

    assert list(line.gaps_wanted()) == []


def test_a_gap_under_a_raised_id_is_found_behind_what_has_a_later_time() -> None:
    line = heard_again(900)
    line.take(NOW_US, 9)
    line.settle(answer("ok", "9-9000", "="), NOW_US)
    later = NOW_US // 1000 + 60_000
    before = [(f"{later}-{number}0", fields(trade(number))) for number in range(40, 40 + PAGE)]

    line.read_gaps([before])
    (place,) = line.gaps_wanted()
    assert place.from_id == f"({before[-1][0]}"
    line.read_gaps([[gap_entry(900, f"{later}-8991")]])

    assert [gap.position for gap in line.written_gaps] == [899]


def test_a_gap_is_not_looked_for_without_end() -> None:
    line = heard_again(900)
    line.take(NOW_US, 9)
    line.settle(answer("ok", "9-9000", "="), NOW_US)
    page = [(f"9-{number}0", fields(trade(number))) for number in range(40, 40 + PAGE)]

    for _ in range(PAGES):
        assert line.gaps_wanted()
        line.read_gaps([page])

    assert list(line.gaps_wanted()) == []


def test_a_message_without_a_time_has_its_gap_under_the_streams_own() -> None:
    line = heard_again()
    line.hear_again()
    item = trade(10)
    item.ms = 0
    line.put(item)
    line.take(NOW_US, 9)
    line.settle(answer("ok", "9-100", "="), NOW_US)

    assert [place.from_id for place in line.gaps_wanted()] == ["9-91"]


def test_a_hole_that_was_filled_has_no_gap_nor_has_a_beginning() -> None:
    line = heard_again(10, 20)
    line.take(NOW_US, 9)
    line.settle(answer("ok", "9-200", "=="), NOW_US)

    entry_id, start = gap_entry(10)
    line.read_gaps([[(entry_id, start | {"cause": "start"})], [("9-200", fields(trade(20)))]])

    assert line.written_gaps == []


def test_what_will_be_heard_again_is_looked_for_then() -> None:
    line = heard_again(10)
    line.take(NOW_US, 9)
    line.settle(answer("ok", "9-100", "="), NOW_US)

    line.rewind(0, 0)

    assert list(line.gaps_wanted()) == []


def test_many_rows_of_history_in_front_hide_no_place_in_the_journal() -> None:
    """What waits behind them is not settled: the checkpoint must not pass it."""
    line = NumberedLine(TRADES, 0)
    waiting = trade(10_000)
    waiting.offset = 7
    line.put(waiting)
    rows = [trade(number) for number in range(1, 2 * OLDEST_LOOKED_AT)]
    for row in rows:
        row.offset = 99

    line.put_missing(rows)

    assert line.pending[-1] is waiting
    assert line.oldest_offset() == 7
