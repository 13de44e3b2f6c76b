"""The append script on a real server: each kind of answer, literally."""

from collections.abc import Sequence
from typing import Any

import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.contract.streams import parse_stream
from bridge.pipeline.items import Answer, Item
from bridge.pipeline.numbered import NumberedLine
from bridge.publish.append import SCRIPT
from tests.support.items import NOW_US, trade

KEY = "trade.SOL_USDC"


@pytest.fixture
def server(redis_url: str) -> redis.Redis:
    return redis.Redis.from_url(redis_url, decode_responses=True)


def call(server: redis.Redis, *items: Sequence[object], limits: Sequence[object] = ("", "")) -> Any:
    shapes: list[Any] = []
    entries: list[Any] = []
    for number, (op, expected, position, ms, *fields) in enumerate(items, 1):
        shapes += [len(fields) // 2, *fields[::2]]
        entries += [op, expected, position, ms, number, *fields[1::2]]
    return server.eval(SCRIPT.decode(), 1, KEY, *limits, len(items), *shapes, *entries)


def ids(server: redis.Redis) -> list[str]:
    return [entry_id for entry_id, _ in server.xrange(KEY)]


def started(server: redis.Redis, after: int = 4, ms: int = 100) -> None:
    assert call(server, ("G", "0-0", after, ms, "type", "gap")) == ["ok", 1, f"{ms}-{after}1", "+"]


def test_an_empty_stream_refuses_a_message_since_beginning_is_an_explicit_act(
    server: redis.Redis,
) -> None:
    assert call(server, ("A", 4, 5, 100, "a", 1)) == ["empty", 0, "0-0", ""]
    assert not server.exists(KEY)


def test_a_start_makes_room_for_the_first_message(server: redis.Redis) -> None:
    started(server)

    assert call(server, ("A", 4, 5, 101, "a", 1), ("A", 5, 6, 101, "a", 2)) == [
        "ok",
        2,
        "101-60",
        "++",
    ]
    assert ids(server) == ["100-41", "101-50", "101-60"]


def test_sending_again_changes_nothing(server: redis.Redis) -> None:
    started(server)
    for _ in range(3):
        call(server, ("A", 4, 5, 101, "a", 1))

    assert call(server, ("A", 4, 5, 101, "a", 1)) == ["ok", 1, "101-50", "="]
    assert ids(server) == ["100-41", "101-50"]


def test_a_missing_predecessor_is_refused_and_what_came_before_it_is_kept(
    server: redis.Redis,
) -> None:
    started(server)

    answer = call(
        server, ("A", 4, 5, 101, "a", 1), ("A", 6, 7, 101, "a", 3), ("A", 7, 8, 101, "a", 4)
    )

    assert answer == ["hole", 1, "101-50", "+"]
    assert ids(server) == ["100-41", "101-50"]


def test_an_overlapping_range_is_appended(server: redis.Redis) -> None:
    started(server)
    call(server, ("A", 4, 6, 101, "a", 1))

    assert call(server, ("A", 5, 8, 102, "a", 2)) == ["ok", 1, "102-80", "+"]


def test_engine_time_that_steps_back_does_not_refuse_a_message(server: redis.Redis) -> None:
    started(server)
    call(server, ("A", 4, 5, 200, "a", 1))

    assert call(server, ("A", 5, 6, 197, "a", 2)) == ["ok", 1, "200-60", "+"]


def test_a_message_without_believable_time_takes_the_streams(server: redis.Redis) -> None:
    started(server)

    assert call(server, ("A", 4, 5, 0, "a", 1)) == ["ok", 1, "100-50", "+"]


def test_a_lower_number_with_a_newer_time_is_told_apart(server: redis.Redis) -> None:
    started(server)
    call(server, ("A", 4, 5, 101, "a", 1))

    assert call(server, ("A", 0, 1, 999, "a", 1)) == ["ok", 1, "101-50", "!"]


def test_a_renumbered_stream_goes_on_under_rising_ids(server: redis.Redis) -> None:
    started(server, after=1000)
    call(server, ("A", 1000, 1001, 101, "a", 1))

    answer = call(server, ("G", "101-10010", 0, 101, "type", "gap"), ("A", 0, 1, 101, "a", 1))

    assert answer == ["ok", 2, "102-10", "++"]


def test_a_snapshot_stands_at_its_position_or_not_at_all(server: redis.Redis) -> None:
    started(server)
    call(server, ("A", 4, 5, 101, "a", 1))

    assert call(server, ("S", "", 5, 101, "s", 1)) == ["ok", 1, "101-52", "+"]
    assert call(server, ("S", "", 5, 101, "s", 1)) == ["ok", 1, "101-52", "~"]
    call(server, ("A", 5, 6, 102, "a", 1))
    assert call(server, ("S", "", 5, 101, "s", 1)) == ["ok", 1, "102-60", "~"]


def test_a_snapshot_that_another_bridge_has_placed_there_or_later_is_told_apart(
    server: redis.Redis,
) -> None:
    started(server)
    book = ("type", "depth_snapshot")
    call(server, ("A", 4, 5, 101, "type", "depth"), ("S", "", 5, 101, *book))

    assert call(server, ("S", "", 5, 101, *book)) == ["ok", 1, "101-52", "="]
    call(server, ("A", 5, 6, 102, "type", "depth"))
    assert call(server, ("S", "", 5, 101, *book)) == ["ok", 1, "102-60", "="]
    call(server, ("A", 6, 7, 103, "type", "depth"))
    assert call(server, ("S", "", 6, 102, *book)) == ["ok", 1, "103-70", "~"]
    call(server, ("G", "103-70", 9, 103, "type", "gap"))
    assert call(server, ("S", "", 4, 102, *book)) == ["ok", 1, "103-91", "~"]


def test_a_gap_is_written_only_on_the_id_it_was_reasoned_on(server: redis.Redis) -> None:
    started(server)
    call(server, ("A", 4, 5, 101, "a", 1))

    assert call(server, ("G", "100-41", 8, 101, "type", "gap")) == ["ok", 1, "101-50", "~"]
    assert call(server, ("G", "101-50", 8, 101, "type", "gap"), ("A", 8, 9, 101, "a", 1)) == [
        "ok",
        2,
        "101-90",
        "++",
    ]


def test_unnumbered_entries_are_appended_only_where_they_were_expected(
    server: redis.Redis,
) -> None:
    assert call(server, ("C", "0-0", 985000, 100, "a", 1), ("C", "", 985000, 100, "a", 2)) == [
        "ok",
        2,
        "100-985001",
        "++",
    ]
    assert call(server, ("C", "0-0", 1000, 101, "a", 3)) == ["moved", 0, "100-985001", ""]
    assert call(server, ("C", "100-985001", 1000, 99, "a", 3)) == ["ok", 1, "100-985002", "+"]


def test_what_was_trimmed_or_deleted_is_still_known(server: redis.Redis) -> None:
    started(server)
    call(server, ("A", 4, 5, 101, "a", 1))
    server.xtrim(KEY, maxlen=0, approximate=False)

    assert call(server, ("A", 4, 5, 101, "a", 1)) == ["ok", 1, "101-50", "="]


def test_an_id_beyond_two_to_the_fifty_three_is_foreign(server: redis.Redis) -> None:
    server.xadd(KEY, {"a": "1"}, id=f"{2**53}-0")

    assert call(server, ("A", 4, 5, 101, "a", 1)) == ["foreign", 0, f"{2**53}-0", ""]


def test_positions_up_to_the_limit_keep_every_digit(server: redis.Redis) -> None:
    position = 9 * 10**14 - 1
    started(server, after=position - 1)

    assert call(server, ("A", position - 1, position, 1790915531025, "a", 1)) == [
        "ok",
        1,
        f"1790915531025-{position}0",
        "+",
    ]


def test_a_key_of_another_type_fails_alone(server: redis.Redis) -> None:
    server.set(KEY, "x")

    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        call(server, ("A", 4, 5, 101, "a", 1))


def test_retention_by_length_and_by_age(server: redis.Redis) -> None:
    started(server, after=1, ms=1000)
    for number in range(2, 1001):
        call(server, ("A", number - 1, number, 1000 + number, "a", 1), limits=(200, ""))
    assert 200 <= server.xlen(KEY) < 320

    call(server, ("A", 1000, 1001, 10_000, "a", 1), limits=("", 500))
    assert server.xlen(KEY) < 120


def run_line(server: redis.Redis, line: NumberedLine, now_us: int) -> None:
    """Send what the line gives until it has nothing to send at this time."""
    for _ in range(1000):
        items: Sequence[Item] = line.take(now_us, 7)
        if not items:
            return
        arguments = [
            (item.op.value, item.expected, item.position, item.ms, *_pairs(item)) for item in items
        ]
        status, settled, last, signs = call(server, *arguments)
        line.settle(Answer(status, settled, last, signs), now_us)
    raise AssertionError("the line did not come to rest")


def _pairs(item: Item) -> list[str]:
    return [part for pair in zip(item.names, item.values, strict=True) for part in pair]


hearings = st.lists(st.sets(st.integers(1, 40)), min_size=1, max_size=3)


@settings(max_examples=40)
@given(hearings, st.randoms(use_true_random=False))
def test_whatever_each_bridge_missed_the_stream_is_complete_or_says_where_it_is_not(
    server: redis.Redis, heard: list[set[int]], chance: Any
) -> None:
    """Laws: IDs rise, nothing twice, all that anybody heard behind the start is there in order,
    and a gap names only what nobody had brought by then.
    """
    server.flushall()
    lines = [NumberedLine(parse_stream(KEY), hold_us=1000) for _ in heard]
    for number in range(1, 41):
        for line, numbers in zip(lines, heard, strict=True):
            if number in numbers:
                line.put(trade(number, NOW_US + number))
        run_line(server, chance.choice(lines), NOW_US + number)
    for line in lines * 2:
        run_line(server, line, NOW_US + 1_000_000)

    entries = server.xrange(KEY)
    order = [tuple(map(int, entry_id.split("-"))) for entry_id, _ in entries]
    assert order == sorted(set(order))
    trades = [int(f["trade_id"]) for _, f in entries if f["type"] == "trade"]
    assert trades == sorted(set(trades))
    missing: set[int] = set()
    for _, fields in entries:
        if fields["type"] == "gap" and fields["from"]:
            missing |= set(range(int(fields["from"]), int(fields["to"]) + 1))
    assert not missing & set(trades)
    if trades:
        assert missing | set(trades) == set(range(trades[0], trades[-1] + 1))
