"""Entries of other programs in a sequenced stream are detected by content, not by their ID."""

from itertools import pairwise

import pytest

from tests.support.core_subject import NOW_US, TRADES, CoreSubject, trade
from tests.support.memory_server import MemoryServer
from tests.support.queues import HOLD_US, sequenced
from tests.support.slots import answer, fields, places

MS = NOW_US // 1000


def test_foreign_entry_with_a_clock_id_is_marked_and_the_stream_continues() -> None:
    queue = sequenced(8, confirmed="9-70")
    queue.take(NOW_US, 100)

    queue.settle(answer("mixed", f"{MS}-0"), NOW_US)

    batch = queue.take(NOW_US, 100)
    assert places(batch) == [("G", 7), ("A", 8)]
    gap = batch.slots[0]  # type: ignore[union-attr]
    assert (gap.entry.expected, fields(gap)["cause"]) == (f"{MS}-0", "foreign")


def test_foreign_entry_in_an_unknown_stream_is_marked_and_names_no_numbers() -> None:
    queue = sequenced(8)
    queue.take(NOW_US, 100)

    queue.settle(answer("mixed", f"{MS}-0"), NOW_US)

    batch = queue.take(NOW_US, 100)
    named = fields(batch.slots[0])  # type: ignore[union-attr]
    assert (named["cause"], named["from"]) == ("foreign", "")


def test_foreign_entry_does_not_make_later_numbers_count_as_old() -> None:
    """The last ID in a reply that reports a foreign entry is not used as our newest number."""
    queue = sequenced(8, confirmed="9-70")
    queue.take(NOW_US, 100)
    queue.settle(answer("mixed", f"{MS}-909"), NOW_US)
    queue.take(NOW_US, 100)
    queue.settle(answer("ok", f"{MS + 1}-80", "++"), NOW_US)

    queue.put(sequenced(10).slots[0])
    queue.take(NOW_US, 100)
    queue.settle(answer("gap", f"{MS + 1}-80"), NOW_US)

    assert places(queue.take(NOW_US + HOLD_US, 100)) == [("G", 9), ("A", 10)]


@pytest.mark.parametrize("count", [1, 2, 9, 10, 11, 25, 120])
@pytest.mark.parametrize("ahead_ms", [0, 2_000])
def test_foreign_entries_in_a_row_lose_no_trade_and_leave_no_unmarked_gap(
    count: int, ahead_ms: int
) -> None:
    """`XADD *` increments the sequence when the last entry's time is ahead of Redis' clock."""
    core = CoreSubject(TRADES)
    for number in range(100, 180):
        core.now_us += 100_000
        core.receive(trade(number, core.now_us))
        core.publish()
        if number == 130:
            for _ in range(count):
                core.redis.xadd(TRADES, {"by": "hand"}, core.now_us // 1000 - ahead_ms)

    numbers = [each for each in core.redis.numbers(TRADES) if each != "foreign"]
    assert numbers == [
        "gap - start",
        *map(str, range(100, 131)),
        "gap - foreign",
        *map(str, range(131, 180)),
    ]
    assert core.queue(TRADES).counters.duplicates == 0


@pytest.mark.parametrize("count", [1, 10, 25])
def test_foreign_entries_between_two_bridges_leave_each_trade_once_and_in_order(count: int) -> None:
    redis = MemoryServer()
    bridges = [CoreSubject(TRADES, redis=redis) for _ in range(2)]
    for number in range(100, 180):
        for bridge in bridges:
            bridge.now_us += 100_000
            bridge.receive(trade(number, bridge.now_us))
            if number % 3 == 0:
                bridge.publish()
        if number % 20 == 0:
            for _ in range(count):
                redis.xadd(TRADES, {"by": "hand"}, bridges[0].now_us // 1000 - 60_000)
    for bridge in bridges:
        bridge.publish()

    numbers = [int(each) for each in redis.numbers(TRADES) if each.isdecimal()]
    assert numbers == list(range(100, 180))


def test_foreign_entries_with_fields_like_ours_are_recognised_by_their_place() -> None:
    core = CoreSubject(TRADES)
    for number in range(100, 140):
        core.now_us += 100_000
        core.receive(trade(number, core.now_us))
        core.publish()
        core.redis.xadd(TRADES, {"type": "trade", "price": "1"}, 0)

    ours = [each for each in core.redis.numbers(TRADES) if each.isdecimal()]
    assert len([1 for one, other in pairwise(sorted(set(map(int, ours)))) if other > one + 1]) == 0
    assert set(map(int, ours)) >= set(range(100, 140))


def test_foreign_entry_that_was_deleted_is_recognised_by_its_sequence() -> None:
    core = CoreSubject(TRADES)
    core.receive(trade(100))
    core.publish()
    core.redis.xadd(TRADES, {"by": "hand"}, MS + 5)
    core.redis.delete_newest(TRADES)

    core.receive(trade(101))
    core.publish()

    assert core.redis.numbers(TRADES) == ["gap - start", "100", "gap - foreign", "101"]
