"""The line of an unnumbered stream: nothing goes out before the tail is known."""

import pytest

from bridge.contract.events import OrdersSnapshot, OrderUpdate
from bridge.contract.streams import Stream, StreamType
from bridge.pipeline.items import Item, Twins, fill_from_history, unnumbered
from bridge.pipeline.peers import TURN_US, Company, Word
from bridge.pipeline.tail import Tail, edge, identify
from bridge.pipeline.unnumbered import UnnumberedLine
from tests.support.items import (
    NOW_US,
    ORDERS,
    TICKERS,
    answer,
    fields,
    order,
    order_event,
    ticker,
)


def tail(last: str, entries: list[tuple[str, dict[str, str]]]) -> Tail:
    """A stream's tail as the publisher tells it."""
    return Tail(last, [told for _, fields in entries if (told := identify(fields)) is not None])


def ready(stream: Stream = ORDERS, last: str = "5-0") -> UnnumberedLine:
    line = UnnumberedLine(stream)
    line.put(order("first", NOW_US))
    line.read_tail(tail(last, []))
    line.take(NOW_US, 100)
    line.settle(answer("ok", "6-0", "+"), NOW_US)
    return line


def test_the_tail_is_read_from_ten_seconds_before_the_oldest_message() -> None:
    line = UnnumberedLine(ORDERS)
    assert line.tail_wanted(NOW_US) is None
    line.put(order())

    assert line.take(NOW_US, 100) == ()
    assert line.tail_wanted(NOW_US) == (NOW_US // 1000 - 10_000, None)


def test_the_first_of_a_batch_carries_the_id_reasoned_on() -> None:
    line = ready()
    line.put(order("a", NOW_US + 5))
    line.put(order("b", NOW_US + 1_007))

    batch = line.take(NOW_US, 100)

    assert [(item.expected, item.ms, item.position) for item in batch] == [
        ("6-0", NOW_US // 1000, 5_000),
        ("", NOW_US // 1000 + 1, 7_000),
    ]


def test_a_stream_that_moved_is_looked_at_again_and_what_is_there_is_dropped() -> None:
    line = ready()
    line.put(order("a"))
    line.put(order("b"))
    line.take(NOW_US, 100)
    line.settle(answer("moved", "8-0"), NOW_US)

    assert line.take(NOW_US, 100) == ()
    line.read_tail(tail("8-0", [("8-0", fields(order("a")))]))

    batch = line.take(NOW_US, 100)
    assert [fields(item)["order_id"] for item in batch] == ["b"]
    assert batch[0].expected == "8-0"
    assert line.counters.duplicates == 1


def test_a_lost_answer_is_a_question_for_the_tail() -> None:
    line = ready()
    line.put(order("a"))
    line.take(NOW_US, 100)

    line.unanswered()

    assert line.tail_wanted(NOW_US) is not None
    line.read_tail(tail("9-0", [("9-0", fields(order("a")))]))
    assert line.take(NOW_US, 100) == ()


def test_what_is_heard_again_after_the_tail_was_read_is_told_by_it_too() -> None:
    line = UnnumberedLine(ORDERS)
    line.hear_again()
    line.put(order("a"))
    line.read_tail(tail("9-0", [("8-0", fields(order("a"))), ("9-0", fields(order("b")))]))

    line.put(order("b"))
    line.put(order("c"))

    (kept,) = line.take(NOW_US, 100)
    assert fields(kept)["order_id"] == "c"


def test_a_state_heard_again_after_the_tail_was_read_is_overtaken_by_it() -> None:
    line = UnnumberedLine(TICKERS)
    line.hear_again()
    line.put(ticker(NOW_US + 1))
    stored = [("8-0", fields(ticker(NOW_US + 1))), ("9-0", fields(ticker(NOW_US + 3)))]
    line.read_tail(tail("9-0", stored))

    for moment_us in (NOW_US + 2, NOW_US + 3, NOW_US + 4):
        line.put(ticker(moment_us))

    (kept,) = line.take(NOW_US, 100)
    assert fields(kept)["event_us"] == str(NOW_US + 4)


def test_what_another_bridge_wrote_before_we_came_to_hear_it_is_not_written_again() -> None:
    line = UnnumberedLine(ORDERS)
    line.put(order("a"))
    line.read_tail(tail("9-0", [("9-0", fields(order("b")))]))

    line.put(order("b"))
    line.put(order("c"))

    assert [fields(item)["order_id"] for item in line.take(NOW_US, 100)] == ["a", "c"]


def test_a_state_that_another_bridge_has_overtaken_before_we_came_to_hear_it_is_late() -> None:
    line = UnnumberedLine(TICKERS)
    line.put(ticker(NOW_US))
    line.read_tail(tail("9-0", [("9-0", fields(ticker(NOW_US + 5)))]))

    line.put(ticker(NOW_US + 4))
    line.put(ticker(NOW_US + 5))
    line.put(ticker(NOW_US + 6))

    assert [fields(item)["event_us"] for item in line.take(NOW_US, 9)] == [str(NOW_US + 6)]
    assert line.counters.late == 1


def test_a_tail_counts_no_more_once_redis_has_lost_it() -> None:
    line = UnnumberedLine(ORDERS)
    line.put(order("a"))
    line.read_tail(tail("9-0", [("9-0", fields(order("b")))]))
    line.lost_at = "0-0"

    line.accept_loss()
    line.put(order("b"))

    assert len(line.pending) == 3


def test_twins_are_two_messages() -> None:
    twins = Twins()
    line = UnnumberedLine(ORDERS)
    for _ in range(2):
        line.put(unnumbered(order_event(), NOW_US, twins))

    line.read_tail(tail("9-0", [("9-0", fields(order()))]))

    (kept,) = line.take(NOW_US, 100)
    assert fields(kept)["twin"] == "1"


def test_twins_are_counted_for_the_recent_messages_only() -> None:
    twins = Twins()
    for number in range(Twins.LIMIT + 1):
        twins.count((str(number),))

    assert twins.count((str(Twins.LIMIT),)) == 1
    assert twins.count(("0",)) == 0


def test_a_late_state_has_no_use() -> None:
    line = UnnumberedLine(TICKERS)
    line.put(ticker(NOW_US + 5))

    line.put(ticker(NOW_US))

    assert (len(line.pending), line.counters.late) == (1, 1)


def test_the_same_state_twice_is_one_and_another_at_the_same_time_is_kept() -> None:
    line = UnnumberedLine(TICKERS)
    for price in ("1", "1", "2"):
        line.put(ticker(NOW_US, price))

    assert (len(line.pending), line.counters.duplicates) == (2, 1)


def test_after_a_restart_states_go_on_above_what_is_there() -> None:
    line = UnnumberedLine(TICKERS)
    for second in (1, 2, 3):
        line.put(ticker(NOW_US + second))

    line.read_tail(tail("9-0", [("9-0", fields(ticker(NOW_US + 2)))]))

    assert [fields(item)["event_us"] for item in line.take(NOW_US, 100)] == [str(NOW_US + 3)]


def test_an_unchanged_state_of_a_later_time_is_kept() -> None:
    line = UnnumberedLine(TICKERS)
    line.put(ticker(NOW_US + 1_000_000, "98.97"))

    line.read_tail(tail("9-0", [("9-0", fields(ticker(NOW_US, "98.97")))]))

    assert len(line.take(NOW_US, 100)) == 1


def test_an_entry_of_somebody_else_in_the_tail_does_not_disturb() -> None:
    line = UnnumberedLine(ORDERS)
    line.put(order())

    line.read_tail(tail("9-0", [("9-0", {"hello": "world"})]))

    assert len(line.take(NOW_US, 100)) == 1


def test_deafness_is_marked_before_the_first_message_heard_after_it() -> None:
    line = UnnumberedLine(ORDERS)
    line.put(order("before", NOW_US))
    line.put(order("after", NOW_US + 9))

    line.put_gap(from_us=NOW_US + 1, to_us=NOW_US + 8, cause="connection lost", heard_us=NOW_US + 8)

    line.read_tail(tail("0-0", []))
    before, gap, after = line.take(NOW_US, 100)
    assert (fields(before)["order_id"], fields(after)["order_id"]) == ("before", "after")
    named = fields(gap)
    assert (named["from_us"], named["to_us"], named["cause"]) == (
        str(NOW_US + 1),
        str(NOW_US + 8),
        "connection lost",
    )


def test_redis_that_lost_entries_is_marked_where_nobody_can_refill_them() -> None:
    line = ready()
    line.put(order("a"))
    line.unanswered()
    line.read_tail(tail("0-0", []))
    assert line.take(NOW_US, 100) == ()

    line.accept_loss()
    line.read_tail(tail("0-0", []))

    gap, first = line.take(NOW_US, 100)
    assert (fields(gap)["type"], fields(gap)["cause"]) == ("gap", "redis lost entries")
    assert gap.expected == "0-0"
    assert fields(first)["order_id"] == "a"


def lost(line: UnnumberedLine, last: str, kept: dict[str, str]) -> None:
    """Redis has lost all behind this entry."""
    line.confirmed = f"{NOW_US // 1000 + 3_600_000}-0"
    line.pending.clear()
    line.look(last, edge(last, kept))
    assert line.lost_at == last


def test_a_refill_adds_what_is_missing_and_marks_what_the_journal_has_not() -> None:
    line = ready()
    there = fields(order("there", NOW_US - 1))
    lost(line, f"{NOW_US // 1000}-0", there)

    line.rewind(0, NOW_US + 5_000_000)
    line.put(order("too old", NOW_US - 11_000_000))
    line.put(order("there", NOW_US - 1))
    line.put(order("lost", NOW_US + 7_000_000))
    line.read_tail(tail(f"{NOW_US // 1000}-0", [("1-1", there)]))

    gap, event = line.take(NOW_US, 100)
    assert (fields(gap)["from_us"], fields(gap)["to_us"]) == (
        str(NOW_US - 1),
        str(NOW_US + 5_000_000),
    )
    assert fields(event)["order_id"] == "lost"


@pytest.mark.parametrize("kept_s", [0, 3_000], ids=["before", "ahead for one"])
def test_what_was_lost_while_the_engines_clock_went_back_is_not_taken_for_there(
    kept_s: int,
) -> None:
    line = ready()
    kept = order("kept", NOW_US + kept_s * 1_000_000)
    last, entry = f"{kept.ms}-0", fields(kept) | {"received_us": str(NOW_US)}
    lost(line, last, entry)

    line.rewind(0, NOW_US - 1)
    line.put(order("there", NOW_US - 60_000_000))
    for second in range(3):
        heard_us = NOW_US + second * 1_000_000
        line.put(unnumbered(order_event(f"lost {second}", heard_us - 60_000_000), heard_us))
    line.caught_up()
    line.put(unnumbered(order_event("live", NOW_US - 50_000_000), NOW_US + 10_000_000))

    line.read_tail(tail(last, [(last, entry)]))
    sent = [fields(item)["order_id"] for item in line.take(NOW_US, 100)]
    assert sent == ["lost 0", "lost 1", "lost 2", "live"]


def test_what_is_lost_with_nobody_to_refill_it_is_named_by_the_engines_clock() -> None:
    line = ready()
    kept = fields(order("kept", NOW_US - 60_000_000)) | {"received_us": str(NOW_US)}
    lost(line, f"{NOW_US // 1000}-0", kept)

    line.accept_loss()

    (gap,) = line.pending
    assert fields(gap)["from_us"] == str(NOW_US - 60_000_000)


def test_what_retention_has_taken_is_not_written_again_behind_what_is_there() -> None:
    line = UnnumberedLine(ORDERS)
    events = [order(str(number), NOW_US + number * 1_000_000) for number in range(6)]
    entries = [(f"{event.ms}-0", fields(event)) for event in events[3:5]]
    for event in events[:4]:
        line.put(event)

    line.read_tail(tail(entries[-1][0], entries)._replace(first=edge(*entries[0])))
    for event in events[4:]:
        line.put(event)

    assert [fields(item)["order_id"] for item in line.take(NOW_US, 100)] == ["5"]
    assert line.counters.duplicates == 5


def test_what_is_heard_after_the_first_kept_entry_is_new_whatever_the_engines_clock_says() -> None:
    line = UnnumberedLine(ORDERS)
    first = order("first", NOW_US)
    line.put(unnumbered(order_event("late", NOW_US - 60_000_000), NOW_US + 1))
    line.put(unnumbered(order_event("wound back", NOW_US + 9_000_000), NOW_US - 5))

    last = f"{first.ms}-0"
    line.read_tail(tail(last, [(last, fields(first))])._replace(first=edge(last, fields(first))))

    assert len(line.take(NOW_US, 100)) == 2


def test_a_full_buffer_gives_up_the_oldest_and_says_from_when_to_when() -> None:
    line = UnnumberedLine(ORDERS)
    for number in range(20):
        line.put(order(str(number), NOW_US + number))

    line.drop_oldest(10)

    line.read_tail(tail("0-0", []))
    gap, *rest = line.take(NOW_US, 100)
    named = fields(gap)
    assert (named["from_us"], named["to_us"], named["cause"]) == (
        str(NOW_US),
        str(NOW_US + 1),
        "buffer full",
    )
    assert len(rest) == 18
    assert line.counters.overflowed == 2


def test_a_stream_that_fails_alone_is_tried_again_later() -> None:
    line = ready()
    line.put(order("a"))
    line.take(NOW_US, 100)

    line.fail("WRONGTYPE")
    assert line.tail_wanted(NOW_US) is None
    line.redeem()

    assert line.tail_wanted(NOW_US) is not None


def test_an_unnumbered_stream_never_waits_for_time() -> None:
    assert ready(Stream("liquidation", StreamType.LIQUIDATION)).due_us() is None


def test_one_absurd_order_value_silences_a_stream_for_seconds_not_for_ever() -> None:
    line = UnnumberedLine(TICKERS)
    line.put(ticker(NOW_US + 3_000_000_000))
    for second in range(8):
        line.put(ticker(NOW_US + second * 1_000_000))

    assert line.counters.late == 5
    assert len(line.pending) == 4


def following(stream: Stream = ORDERS, **marks: int) -> UnnumberedLine:
    """A line whose stream bridge `a` publishes; we are `m`."""
    line = UnnumberedLine(stream, Company())
    hear_of(line, "a", **marks)
    return line


def hear_of(line: UnnumberedLine, *names: str, beat: int = 1, **marks: int) -> None:
    words = [
        Word(instance=name, session=name, beat=beat, heard={line.stream.name: NOW_US})
        for name in names
    ]
    me = Word(instance="m", session="m")
    line.company.look(me, words, marks, redis_us=0, now_us=NOW_US)


def test_what_another_bridge_publishes_is_ours_after_a_while_and_if_it_is_not_there() -> None:
    line = following()
    line.put(order("theirs", NOW_US))
    line.put(order("missed", NOW_US + 1))
    line.put(order("new", NOW_US + 9))
    line.read_tail(tail("5-0", []))
    assert line.take(NOW_US + TURN_US - 1, 100) == ()
    assert line.due_us() == NOW_US + TURN_US

    later_us = NOW_US + TURN_US + 1
    assert line.take(later_us, 100) == ()
    assert line.tail_wanted(later_us) is not None
    line.read_tail(tail("6-0", [("6-0", fields(order("theirs", NOW_US)))]))

    (missed,) = line.take(later_us, 100)
    assert fields(missed)["order_id"] == "missed"
    assert missed.expected == "6-0"


def test_once_the_other_bridge_is_gone_what_waits_goes_out_at_once() -> None:
    line = following()
    line.put(order())
    line.read_tail(tail("5-0", []))
    assert line.take(NOW_US, 100) == ()

    hear_of(line)

    assert len(line.take(NOW_US, 100)) == 1


def test_nothing_unnumbered_goes_out_before_the_first_look_at_the_others() -> None:
    line = UnnumberedLine(ORDERS, Company())
    line.company.expect()
    line.put(order())
    assert line.tail_wanted(NOW_US) is None

    hear_of(line)

    assert line.tail_wanted(NOW_US) is not None


def deaf(line: UnnumberedLine) -> None:
    line.put_gap(from_us=NOW_US - 9, to_us=NOW_US - 1, cause="connection lost", heard_us=NOW_US - 1)
    line.put(order("after", NOW_US))
    line.read_tail(tail("5-0", []))


def test_deafness_waits_while_another_bridge_hears_and_is_dropped_when_it_says_so() -> None:
    line = UnnumberedLine(ORDERS, Company())
    hear_of(line, "z")
    deaf(line)
    assert line.is_deaf()
    assert line.take(NOW_US, 100) == ()

    hear_of(line, "z", beat=2, **{ORDERS.name: NOW_US - 1})

    (after,) = line.take(NOW_US, 100)
    assert fields(after)["order_id"] == "after"
    assert not line.is_deaf()


def test_deafness_is_marked_only_from_where_another_bridge_left_off() -> None:
    line = UnnumberedLine(ORDERS, Company())
    hear_of(line, **{ORDERS.name: NOW_US - 4})
    deaf(line)

    gap, _ = line.take(NOW_US, 100)

    assert (fields(gap)["from_us"], fields(gap)["to_us"]) == (str(NOW_US - 4), str(NOW_US - 1))


def account_as_it_stands(received_us: int) -> Item:
    event = OrdersSnapshot(symbol=None, orders=[], received_us=received_us)
    return unnumbered(event, received_us)


def test_where_the_account_stands_is_written_by_the_one_that_publishes() -> None:
    line = following()
    line.put(account_as_it_stands(NOW_US))
    line.put(order("after", NOW_US + 1))
    later_us = NOW_US + TURN_US + 1
    line.read_tail(tail("5-0", []))

    assert [fields(item)["type"] for item in line.take(later_us, 100)] == ["orderAccepted"]


def test_where_the_account_stood_is_dropped_with_the_deafness_that_was_none() -> None:
    line = UnnumberedLine(ORDERS, Company())
    hear_of(line, "z", **{ORDERS.name: NOW_US})
    deaf(line)
    line.put(account_as_it_stands(NOW_US + 1))

    assert [fields(item)["type"] for item in line.take(NOW_US, 100)] == ["orderAccepted"]


def test_all_is_in_the_stream_up_to_shortly_before_what_waits() -> None:
    line = UnnumberedLine(ORDERS)
    assert line.settled_until_us(NOW_US) == NOW_US

    line.put(order("a", NOW_US - 5_000_000))
    assert line.settled_until_us(NOW_US) == NOW_US - 6_000_000

    deaf(line)
    assert line.settled_until_us(NOW_US) == 0


def fill(trade_id: int, engine_us: int = NOW_US, *, source: str | None = None) -> Item:
    event = OrderUpdate.model_validate(
        {"e": "orderFill", "s": "SOL_USDC", "i": "9", "S": "Bid", "o": "LIMIT", "X": "Filled",
         "t": trade_id, "L": "98.97", "l": "1", "m": False, "n": "0.1", "N": "USDC",
         "source": source, "E": engine_us, "T": engine_us, "received_us": engine_us}
    )  # fmt: skip
    return fill_from_history(event) if source else unnumbered(event, engine_us)


def test_a_fill_of_history_that_the_stream_has_is_not_put_in_again() -> None:
    line = UnnumberedLine(ORDERS)
    line.read_tail(tail("9-0", []))
    hour_ago_us = NOW_US - 3_600_000_000 - 1

    line.put_missing([fill(1, hour_ago_us, source="rest"), fill(2, hour_ago_us, source="rest")])

    assert line.take(NOW_US, 10) == ()
    assert line.tail_wanted(NOW_US) == (hour_ago_us // 1000 - 10_000, None)
    line.read_tail(tail("9-0", [("9-0", fields(fill(1, hour_ago_us)))]))
    assert [fields(item)["trade_id"] for item in line.take(NOW_US, 10)] == ["2"]


def test_a_fill_that_waits_already_is_not_put_in_again() -> None:
    line = UnnumberedLine(ORDERS)
    line.put(fill(1))

    line.put_missing([fill(1, source="rest")])

    assert len(line.pending) == 1


def test_a_fill_that_history_told_first_is_one_when_it_is_heard() -> None:
    line = UnnumberedLine(ORDERS)
    line.put_missing([fill(1, source="rest")])

    line.put(fill(1))

    assert [fields(item)["source"] for item in line.pending] == ["rest"]
    assert line.counters.duplicates == 1


def test_fills_that_come_while_the_tail_is_read_are_looked_for_too() -> None:
    line = UnnumberedLine(ORDERS)
    line.put(fill(5))
    assert line.tail_wanted(NOW_US) is not None

    line.put_missing([fill(1, NOW_US - 60_000_000, source="rest")])
    line.read_tail(tail("9-0", []))

    assert line.take(NOW_US, 10) == ()
    assert line.tail_wanted(NOW_US) == ((NOW_US - 60_000_000) // 1000 - 10_000, None)
