"""A full memory gives up the oldest, again and again: all that went is named, and counted once."""

from hypothesis import given
from hypothesis import strategies as st

from bridge.contract.events import DepthSnapshot
from bridge.contract.streams import parse_stream
from bridge.pipeline.intake import DROP_SHARE, Intake
from bridge.pipeline.items import Item, snapshot
from bridge.pipeline.numbered import NumberedLine
from bridge.pipeline.tail import Tail
from bridge.pipeline.unnumbered import UnnumberedLine
from tests.support.items import (
    NOW_US,
    ORDERS,
    TRADES,
    answer,
    fields,
    order_event,
    trade,
    unnumbered,
)

SECOND_US = 1_000_000


def heard(number: int, engine_us: int, heard_us: int) -> Item:
    item = unnumbered(order_event(str(number), engine_us), heard_us)
    item.offset = number
    return item


def intervals(line: UnnumberedLine) -> list[tuple[int, int]]:
    named = [fields(item) for item in line.pending]
    return [(int(gap["from_us"] or 0), int(gap["to_us"])) for gap in named if gap["type"] == "gap"]


def test_what_went_first_is_still_named_when_more_goes() -> None:
    line = UnnumberedLine(ORDERS)
    for second in range(40):
        line.put(heard(second, NOW_US + second * SECOND_US, NOW_US + second * SECOND_US))

    for _ in range(5):
        line.drop_oldest(10)

    (interval,) = intervals(line)
    left = len(line.pending) - 1
    assert interval == (NOW_US, NOW_US + (39 - left) * SECOND_US)
    assert line.counters.overflowed == 40 - left


steps = st.lists(
    st.one_of(
        st.tuples(st.just("event"), st.integers(-90, 90)),  # its engine's time, beside ours, s
        st.tuples(st.just("deaf"), st.integers(1, 60)),
        st.tuples(st.just("full"), st.sampled_from([1, 2, 10])),
        st.tuples(st.just("sent"), st.integers(1, 3)),
    ),
    max_size=60,
)


@given(steps)
def test_an_event_waits_or_a_gap_names_it_and_no_deafness_is_forgotten(
    steps: list[tuple[str, int]],
) -> None:
    line = UnnumberedLine(ORDERS)
    line.put(heard(1, NOW_US, NOW_US))
    made, deaf = {"1": NOW_US}, []
    now_us = NOW_US
    for number, (what, much) in enumerate(steps, 2):
        now_us += SECOND_US
        if what == "event":
            made[str(number)] = now_us + much * SECOND_US
            line.put(heard(number, made[str(number)], now_us))
        elif what == "deaf":
            deaf.append((now_us - much * SECOND_US, now_us))
            line.put_gap(
                from_us=deaf[-1][0], to_us=now_us, cause="lost", heard_us=now_us, offset=number
            )
        elif what == "full":
            before = line.pending_bytes
            assert line.drop_oldest(much) == before - line.pending_bytes >= 0
        else:
            line.unanswered()
            line.read_tail(Tail("9-0", []))
            line.take(now_us, much)

    waiting = {fields(item)["order_id"] for item in line.pending if item.values[0] != "gap"}
    named = intervals(line)
    given_up = made.keys() - waiting
    assert all(any(a <= made[one] <= b for a, b in named) for one in given_up)
    assert all(any(a <= from_us and to_us <= b for a, b in named) for from_us, to_us in deaf)
    assert line.counters.overflowed == len(given_up)
    assert line.oldest_offset() == 1, "a restart does not hear again what was given up"
    assert line.pending_bytes == sum(item.size for item in line.pending)


def test_a_gap_that_begins_with_the_stream_still_does() -> None:
    line = UnnumberedLine(ORDERS)
    line.lost_at, line.confirmed = "0-0", f"{NOW_US // 1000}-0"
    line.accept_loss()
    for second in range(20):
        line.put(heard(second, NOW_US + second * SECOND_US, NOW_US + second * SECOND_US))

    line.drop_oldest(2)

    assert fields(line.pending[0])["from_us"] == ""


def test_nothing_goes_where_nothing_would_be_freed() -> None:
    line = UnnumberedLine(ORDERS)
    line.put_gap(from_us=NOW_US, to_us=NOW_US + 1, cause="lost", heard_us=NOW_US + 1)
    (gap,) = line.pending

    assert line.drop_oldest(10) == 0

    assert list(line.pending) == [gap]


# ---- streams with numbers ------------------------------------------------------------------------


def book(update_id: int) -> Item:
    event = DepthSnapshot(
        symbol="SOL_USDC", update_id=update_id, bids=[], asks=[], received_us=NOW_US
    )
    return snapshot(event, NOW_US // 1000)


def test_a_snapshot_never_goes_alone_since_no_number_would_tell() -> None:
    line = NumberedLine(TRADES, 0)
    line.confirmed = "9-50"
    line.put(book(5))
    assert line.drop_oldest(DROP_SHARE) == 0

    line.put(trade(6))
    line.put(trade(7))
    line.drop_oldest(DROP_SHARE)

    assert [(item.op.value, item.position, item.cause) for item in line.pending] == [
        ("A", 7, "buffer full")
    ]
    assert line.counters.overflowed == 1


def test_the_cause_is_told_of_the_message_after_the_hole_not_of_a_snapshot() -> None:
    line = NumberedLine(TRADES, 0)
    for item in (trade(6), book(6), trade(7)):
        line.put(item)

    line.drop_oldest(DROP_SHARE)

    assert [(item.op.value, item.cause) for item in line.pending] == [
        ("S", ""),
        ("A", "buffer full"),
    ]


def test_a_gap_that_may_be_there_already_is_sent_again_and_noted() -> None:
    line = NumberedLine(TRADES, 0)
    line.put(trade(8))
    line.confirmed = "9-50"
    line.take(NOW_US, 9)
    line.settle(answer("hole", "9-50"), NOW_US)
    line.take(NOW_US, 9)
    line.unanswered()
    for number in range(9, 20):
        line.put(trade(number))

    line.drop_oldest(DROP_SHARE)

    assert [(item.op.value, item.position) for item in line.pending][:2] == [("G", 7), ("A", 9)]
    line.take(NOW_US, 1)
    line.settle(answer("ok", "9-80", "~"), NOW_US)
    assert [gap.position for gap in line.written_gaps] == [7]


# ---- all of them ---------------------------------------------------------------------------------


def intake(*names: str) -> Intake:
    streams = [parse_stream(name) for name in names]
    return Intake(streams, hold_us=0, snapshot_every=0, ask=lambda _: None)


def test_a_public_line_with_nothing_to_give_leaves_it_to_the_account() -> None:
    subject = intake("liquidation", ORDERS.name)
    subject.lines["liquidation"].put_gap(  # type: ignore[union-attr]
        from_us=NOW_US, to_us=NOW_US + 1, cause="lost", heard_us=NOW_US + 1
    )
    orders = subject.lines[ORDERS.name]
    for number in range(300):
        orders.put(heard(number, NOW_US + number, NOW_US + number))

    subject.bound(100_000)

    assert subject.pending_bytes() <= 100_000
    assert orders.counters.overflowed > 0


def test_a_single_frame_that_was_given_up_is_marked() -> None:
    subject = intake("liquidation")

    subject.overflowed(NOW_US, NOW_US, 7)

    (gap,) = subject.lines["liquidation"].pending
    assert (fields(gap)["from_us"], fields(gap)["to_us"]) == (str(NOW_US), str(NOW_US))
