"""Overflow of a queue: the oldest entries are dropped, covered by a gap, and counted once."""

from hypothesis import given
from hypothesis import strategies as st

from bridge.contract.causes import GapCause
from bridge.core.content import Content
from bridge.core.tail import Tail
from tests.support.queues import content, sequenced
from tests.support.slots import NOW_US, SECOND_US, answer, fields, order, places, snapshot, trade

SHARE = 10


def intervals(queue: Content) -> list[tuple[int, int]]:
    named = [fields(slot) for slot in queue.slots]
    return [(int(gap["from_us"] or 0), int(gap["to_us"])) for gap in named if gap["type"] == "gap"]


def put_outage(queue: Content, from_us: int, to_us: int, position: int = 0) -> None:
    queue.put_outage(
        from_us=from_us,
        to_us=to_us,
        cause=GapCause.STALE,
        received_us=to_us,
        position=position,
        at_us=to_us,
    )


def test_overflow_gap_also_covers_entries_dropped_before() -> None:
    queue = content()
    for second in range(40):
        queue.put(order(str(second), NOW_US + second * SECOND_US))

    for _ in range(5):
        queue.drop_oldest(SHARE)

    (interval,) = intervals(queue)
    left = len(queue.slots) - 1
    assert interval == (NOW_US, NOW_US + (39 - left) * SECOND_US)
    assert queue.counters.overflowed == 40 - left


steps = st.lists(
    st.one_of(
        st.tuples(st.just("event"), st.integers(-90, 90)),  # engine time - our time, s
        st.tuples(st.just("outage"), st.integers(1, 60)),
        st.tuples(st.just("full"), st.sampled_from([1, 2, 10])),
        st.tuples(st.just("sent"), st.integers(1, 3)),
    ),
    max_size=60,
)


@given(steps)
def test_overflow_of_events_and_outages_leaves_each_pending_or_covered_by_a_gap(
    steps: list[tuple[str, int]],
) -> None:
    queue = content()
    queue.put(order("1", NOW_US, NOW_US, position=1))
    made, outages = {"1": NOW_US}, []
    now_us = NOW_US
    for number, (what, much) in enumerate(steps, 2):
        now_us += SECOND_US
        if what == "event":
            made[str(number)] = now_us + much * SECOND_US
            queue.put(order(str(number), made[str(number)], now_us, position=number))
        elif what == "outage":
            outages.append((now_us - much * SECOND_US, now_us))
            put_outage(queue, outages[-1][0], now_us, number)
        elif what == "full":
            before = queue.bytes
            assert queue.drop_oldest(much) == before - queue.bytes >= 0
        else:
            queue.no_reply()
            queue.read_tail(Tail("9-0", []))
            queue.take(now_us, much)

    waiting = {fields(slot)["order_id"] for slot in queue.slots if not slot.entry.is_gap}
    named = intervals(queue)
    given_up = made.keys() - waiting
    assert all(any(a <= made[one] <= b for a, b in named) for one in given_up)
    assert all(any(a <= from_us and to_us <= b for a, b in named) for from_us, to_us in outages)
    assert queue.counters.overflowed == len(given_up)
    assert queue.oldest_position() == 1, "dropped entries must be read again after a restart"
    assert queue.bytes == sum(slot.size for slot in queue.slots)


def test_overflow_gap_of_a_gap_at_the_streams_start_begins_there() -> None:
    queue = content(confirmed=f"{NOW_US // 1000}-0")
    queue.check_end("0-0", None)
    queue.accept_loss()
    for second in range(20):
        queue.put(order(str(second), NOW_US + second * SECOND_US))

    queue.drop_oldest(2)

    assert fields(queue.slots[0])["from_us"] == ""


def test_overflow_drops_nothing_if_no_memory_would_be_freed() -> None:
    queue = content()
    put_outage(queue, NOW_US, NOW_US + 1)
    (gap,) = queue.slots

    assert queue.drop_oldest(SHARE) == 0

    assert list(queue.slots) == [gap]


# ---- sequenced streams ---------------------------------------------------------------------------


def test_overflow_of_a_snapshot_takes_a_message_with_it_so_that_numbers_show() -> None:
    queue = sequenced(confirmed="9-50")
    queue.put(snapshot(5))
    assert queue.drop_oldest(SHARE) == 0

    queue.put(trade(6))
    queue.put(trade(7))
    queue.drop_oldest(SHARE)

    assert [(str(s.entry.op), s.entry.number, s.cause) for s in queue.slots] == [
        ("A", 7, GapCause.OVERFLOW)
    ]
    assert queue.counters.overflowed == 1


def test_overflow_is_the_cause_of_the_message_after_the_gap_not_of_a_snapshot() -> None:
    queue = sequenced()
    for slot in (trade(6), snapshot(6), trade(7)):
        queue.put(slot)

    queue.drop_oldest(SHARE)

    assert [(str(slot.entry.op), slot.cause) for slot in queue.slots] == [
        ("S", None),
        ("A", GapCause.OVERFLOW),
    ]


def test_overflow_of_all_messages_is_the_cause_of_the_next_one() -> None:
    queue = sequenced(6)

    queue.drop_oldest(SHARE)
    queue.put(trade(7))

    assert [slot.cause for slot in queue.slots] == [GapCause.OVERFLOW]


def test_overflow_keeps_a_gap_that_may_be_in_redis_already_until_it_is_logged() -> None:
    queue = sequenced(8, confirmed="9-50")
    queue.take(NOW_US, 9)
    queue.settle(answer("gap", "9-50"), NOW_US)
    late_us = NOW_US + 60 * SECOND_US
    queue.take(late_us, 9)
    queue.no_reply()
    for number in range(9, 20):
        queue.put(trade(number))

    queue.drop_oldest(SHARE)

    assert places(queue.take(late_us, 1)) == [("G", 7)]
    assert queue.slots[1].entry.number == 9
    queue.settle(answer("ok", "9-80", "~"), late_us)
    assert [gap.entry.number for gap in queue.gaps_written()] == [7]
