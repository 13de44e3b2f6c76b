"""The append script on a real server: the literal reply of each kind."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from bridge.contract.events import Trade
from bridge.contract.streams import parse_stream
from bridge.core.entries import Answer, Slot, sequenced_entry, slot_of
from bridge.core.peers import Peers
from bridge.core.queue import Resume
from bridge.core.sequenced import Sequenced
from bridge.redis.append import SCRIPT, UNLIMITED, pack, pack_append, read_answers
from bridge.runtime.refusals import Refusal, meaning
from tests.support.examples import examples
from tests.support.memory_server import MemoryServer
from tests.support.stepped_bridge import NOW_US, RedisSocket

KEY = "trade.SOL_USDC"


@pytest.fixture
def server(redis_url: str) -> redis.Redis:
    return redis.Redis.from_url(redis_url, decode_responses=True)


@pytest.fixture
def wire(server: redis.Redis) -> Iterator[RedisSocket]:
    socket = RedisSocket(server)
    yield socket
    socket.close()


def call(
    server: redis.Redis,
    *items: Sequence[object],
    limits: Sequence[object] = ("", ""),
    key: str = KEY,
) -> Any:
    """Call the script for one stream; its answer."""
    [answer] = call_all(server, {key: items}, limits)
    return answer


def call_all(
    server: redis.Redis,
    streams: Mapping[str, Sequence[Sequence[object]]],
    limits: Sequence[object] = ("", ""),
) -> Any:
    shapes: list[list[Any]] = []  # one per entry
    arguments: list[Any] = []
    for items in streams.values():
        entries: list[Any] = []
        for op, expected, position, ms, *fields in items:
            shapes.append([len(fields) // 2, *fields[::2]])
            entries += [op, expected, position, ms, len(shapes), *fields[1::2]]
        arguments += [*limits, len(entries), *entries]
    head = [len(shapes), *itertools.chain.from_iterable(shapes)]
    return server.eval(SCRIPT.decode(), len(streams), *streams, *head, *arguments)


def ids(server: redis.Redis) -> list[str]:
    return [entry_id for entry_id, _ in server.xrange(KEY)]


def started(server: redis.Redis, after: int = 4, ms: int = 100) -> None:
    assert call(server, ("G", "0-0", after, ms, "type", "gap")) == ["ok", 1, f"{ms}-{after}1", "+"]


def test_append_message_to_an_empty_stream_is_refused(
    server: redis.Redis,
) -> None:
    assert call(server, ("A", 4, 5, 100, "type", "trade")) == ["empty", 0, "0-0", ""]
    assert not server.exists(KEY)


def test_append_behind_a_start_is_placed(server: redis.Redis) -> None:
    started(server)

    assert call(server, ("A", 4, 5, 101, "type", "trade"), ("A", 5, 6, 101, "type", "trade")) == [
        "ok",
        2,
        "101-60",
        "++",
    ]
    assert ids(server) == ["100-41", "101-50", "101-60"]


def test_append_sent_again_changes_nothing(server: redis.Redis) -> None:
    started(server)
    for _ in range(3):
        call(server, ("A", 4, 5, 101, "type", "trade"))

    assert call(server, ("A", 4, 5, 101, "type", "trade")) == ["ok", 1, "101-50", "="]
    assert ids(server) == ["100-41", "101-50"]


def test_append_predecessor_missing_is_refused_and_what_came_before_is_kept(
    server: redis.Redis,
) -> None:
    started(server)

    answer = call(
        server,
        ("A", 4, 5, 101, "type", "trade"),
        ("A", 6, 7, 101, "type", "trade"),
        ("A", 7, 8, 101, "type", "trade"),
    )

    assert answer == ["gap", 1, "101-50", "+"]
    assert ids(server) == ["100-41", "101-50"]


def test_append_overlapping_range_is_placed(server: redis.Redis) -> None:
    started(server)
    call(server, ("A", 4, 6, 101, "type", "trade"))

    assert call(server, ("A", 5, 8, 102, "type", "trade")) == ["ok", 1, "102-80", "+"]


def test_append_engine_time_steps_back_is_placed(server: redis.Redis) -> None:
    started(server)
    call(server, ("A", 4, 5, 200, "type", "trade"))

    assert call(server, ("A", 5, 6, 197, "type", "trade")) == ["ok", 1, "200-60", "+"]


def test_append_implausible_time_takes_the_streams_time(server: redis.Redis) -> None:
    started(server)

    assert call(server, ("A", 4, 5, 0, "type", "trade")) == ["ok", 1, "100-50", "+"]


def test_append_lower_number_with_a_newer_time_is_distinguished(server: redis.Redis) -> None:
    started(server)
    call(server, ("A", 4, 5, 101, "type", "trade"))

    assert call(server, ("A", 0, 1, 999, "type", "trade")) == ["ok", 1, "101-50", "!"]


def test_append_renumbered_stream_continues_under_rising_ids(server: redis.Redis) -> None:
    started(server, after=1000)
    call(server, ("A", 1000, 1001, 101, "type", "trade"))

    answer = call(
        server, ("G", "101-10010", 0, 101, "type", "gap"), ("A", 0, 1, 101, "type", "trade")
    )

    assert answer == ["ok", 2, "102-10", "++"]


def test_snapshot_is_placed_at_its_position_or_not_at_all(server: redis.Redis) -> None:
    started(server)
    call(server, ("A", 4, 5, 101, "type", "trade"))

    book = ("type", "depth_snapshot")

    assert call(server, ("S", "", 6, 101, *book)) == ["ok", 1, "101-50", "~"]
    assert call(server, ("S", "", 5, 101, *book)) == ["ok", 1, "101-52", "+"]
    call(server, ("A", 5, 6, 102, "type", "depth"), ("A", 6, 7, 102, "type", "depth"))
    assert call(server, ("S", "", 6, 102, *book)) == ["ok", 1, "102-70", "~"]


def test_snapshot_of_another_bridge_at_or_after_the_position_is_distinguished(
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


def test_gap_is_placed_only_on_the_expected_id(server: redis.Redis) -> None:
    started(server)
    call(server, ("A", 4, 5, 101, "type", "trade"))

    assert call(server, ("G", "100-41", 8, 101, "type", "gap")) == ["ok", 1, "101-50", "~"]
    assert call(
        server, ("G", "101-50", 8, 101, "type", "gap"), ("A", 8, 9, 101, "type", "trade")
    ) == [
        "ok",
        2,
        "101-90",
        "++",
    ]


def test_content_is_placed_only_behind_the_expected_id(
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


def test_append_trimmed_message_sent_again_is_recognised(server: redis.Redis) -> None:
    started(server)
    call(server, ("A", 4, 5, 101, "type", "trade"))
    server.xtrim(KEY, maxlen=0, approximate=False)

    assert call(server, ("A", 4, 5, 101, "type", "trade")) == ["ok", 1, "101-50", "="]


def test_append_behind_an_id_beyond_2_to_the_53_is_foreign(server: redis.Redis) -> None:
    server.xadd(KEY, {"a": "1"}, id=f"{2**53}-0")

    assert call(server, ("A", 4, 5, 101, "type", "trade")) == ["foreign", 0, f"{2**53}-0", ""]


def test_append_behind_another_programs_entry_is_mixed_unless_already_stored(
    server: redis.Redis,
) -> None:
    """The foreign entries' IDs reach the next position: ten plain XADDs increase the sequence by
    ten.
    """
    started(server)
    call(server, ("A", 4, 5, 2**50, "type", "trade"))  # ahead of the server's clock
    for _ in range(10):
        server.xadd(KEY, {"by": "hand"})
    last = f"{2**50}-60"

    assert call(server, ("A", 4, 5, 101, "type", "trade"), ("A", 5, 6, 101, "type", "trade")) == [
        "mixed",
        1,
        last,
        "=",
    ]
    assert call(server, ("S", "", 6, 101, "type", "depth_snapshot")) == ["ok", 1, last, "~"]
    assert call(server, ("G", last, 5, 101, "type", "gap"), ("A", 5, 6, 101, "type", "trade")) == [
        "ok",
        2,
        f"{2**50 + 1}-60",
        "++",
    ]


def test_append_behind_another_programs_deleted_entry_is_mixed_unless_its_id_is_above(
    server: redis.Redis,
) -> None:
    started(server)
    server.xdel(KEY, server.xadd(KEY, {"by": "hand"}, id="200-0"))

    assert call(server, ("A", 4, 5, 199, "type", "trade")) == ["mixed", 0, "200-0", ""]
    assert call(server, ("A", 4, 5, 201, "type", "trade")) == ["ok", 1, "201-50", "+"]


@pytest.mark.parametrize("raised", ["101-60", "101-69", "500-0"])
def test_append_behind_a_last_id_that_was_raised_never_writes_below_it(
    server: redis.Redis, raised: str
) -> None:
    """The last ID is raised by XSETID, as XDEL of the newest entries leaves it."""
    started(server)
    call(server, ("A", 4, 5, 101, "type", "trade"))
    server.execute_command("XSETID", KEY, raised)

    [status, settled, last, signs] = call(server, ("A", 5, 6, 101, "type", "trade"))

    assert (last, settled, len(signs)) == (raised, int(status == "ok"), int(status == "ok"))
    assert ids(server) == ["100-41", "101-50"]
    assert call(server, ("G", "101-50", 6, 101, "type", "gap")) == ["ok", 1, raised, "~"]
    assert call(server, ("C", "101-50", 6, 101, "type", "gap")) == ["moved", 0, raised, ""]


def test_append_own_message_that_was_deleted_is_not_written_again(server: redis.Redis) -> None:
    started(server)
    call(server, ("A", 4, 5, 101, "type", "trade"), ("A", 5, 6, 102, "type", "trade"))
    server.xdel(KEY, "102-60")

    assert call(server, ("A", 5, 6, 102, "type", "trade")) == ["ok", 1, "102-60", "="]
    assert call(server, ("A", 6, 7, 102, "type", "trade")) == ["ok", 1, "102-70", "+"]


def test_append_to_several_streams_returns_a_result_or_an_error_for_each(
    server: redis.Redis,
) -> None:
    server.set("trade.OTHER", "x")
    started(server)

    answers = call_all(
        server,
        {
            "ticker.A": [("C", "0-0", 7, 100, "type", "ticker")],
            "trade.OTHER": [("A", 4, 5, 101, "type", "trade")] * 3,
            KEY: [("A", 4, 5, 101, "type", "trade"), ("A", 9, 10, 101, "type", "trade")],
            "trade.NEW": [("A", 4, 5, 101, "type", "trade")],
            "ticker.B": [],
        },
    )

    assert answers[0] == ["ok", 1, "100-7", "+"]
    assert "WRONGTYPE" in str(answers[1])
    assert answers[2:] == [
        ["gap", 1, "101-50", "+"],
        ["empty", 0, "0-0", ""],
        ["ok", 0, "0-0", ""],
    ]
    assert ids(server) == ["100-41", "101-50"]


def test_append_out_of_memory_is_reported_for_every_stream(server: redis.Redis) -> None:
    started(server)
    server.config_set("maxmemory", 1)
    try:
        answers = call_all(
            server,
            {
                KEY: [("A", 4, 5, 101, "type", "trade")],
                "ticker.A": [("C", "0-0", 7, 100, "type", "ticker")],
            },
        )
    finally:
        server.config_set("maxmemory", 0)

    assert [meaning(answer) for answer in answers] == [Refusal.UNAVAILABLE] * 2
    assert ids(server) == ["100-41"]


def test_append_position_at_the_limit_keeps_every_digit(server: redis.Redis) -> None:
    position = 9 * 10**14 - 1
    started(server, after=position - 1)

    assert call(server, ("A", position - 1, position, 1790915531025, "type", "trade")) == [
        "ok",
        1,
        f"1790915531025-{position}0",
        "+",
    ]


def test_append_to_a_key_of_another_type_is_an_error(server: redis.Redis) -> None:
    server.set(KEY, "x")

    answer = call(server, ("A", 4, 5, 101, "type", "trade"))

    assert isinstance(answer, redis.ResponseError)
    assert str(answer).startswith("WRONGTYPE")


def test_append_trims_by_length_and_by_age(server: redis.Redis) -> None:
    started(server, after=1, ms=1000)
    for number in range(2, 1001):
        call(server, ("A", number - 1, number, 1000 + number, "type", "trade"), limits=(200, ""))
    assert 200 <= server.xlen(KEY) < 320

    call(server, ("A", 1000, 1001, 10_000, "type", "trade"), limits=("", 500))
    assert server.xlen(KEY) < 120


# ---- packed, over a queue ------------------------------------------------------------------------


def publish(wire: RedisSocket, queue: Sequenced, now_us: int) -> None:
    """Send all batches that the queue gives at this time."""
    for _ in range(1000):
        batch = queue.take(now_us, 7)
        if batch is None:
            return
        [reply] = wire.call(pack_append([(KEY.encode(), UNLIMITED, batch)]), 1)
        [answer] = read_answers(reply, 1)
        assert isinstance(answer, Answer), answer
        queue.settle(answer, now_us)
    raise AssertionError("the queue never becomes empty")


def trade(number: int, at_us: int) -> Slot:
    event = Trade.model_validate(
        {"e": "trade", "s": "SOL_USDC", "p": "98.97", "q": "1", "t": number, "m": False,
         "E": at_us, "T": at_us, "received_us": at_us}
    )  # fmt: skip
    return slot_of(sequenced_entry(event, at_us, 1, at_us), 0, at_us)


messages = st.lists(st.sets(st.integers(1, 40)), min_size=1, max_size=3)


@examples(10)
@given(messages, st.randoms(use_true_random=False))
def test_append_several_bridges_with_losses_stream_is_complete_or_marked(
    server: redis.Redis, wire: RedisSocket, received: list[set[int]], chance: Any
) -> None:
    """IDs rise without duplicates, every message received by any bridge after the start is there in
    order, and a gap names only what no bridge had received by then.
    """
    server.flushall()
    server.script_load(SCRIPT.decode())
    queues = [Sequenced(parse_stream(KEY), Peers(), Resume(), hold_us=1000) for _ in received]
    for number in range(1, 41):
        for queue, numbers in zip(queues, received, strict=True):
            if number in numbers:
                queue.put(trade(number, NOW_US + number))
        publish(wire, chance.choice(queues), NOW_US + number)
    for queue in queues * 2:
        publish(wire, queue, NOW_US + 1_000_000)

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


# ---- the script in memory ------------------------------------------------------------------------

numbers = st.integers(0, 12)
times = st.integers(100, 103)
sequenced = st.one_of(
    st.tuples(st.just("A"), numbers, numbers, times, st.just("trade")),
    st.tuples(st.just("S"), st.just(""), numbers, times, st.just("depth_snapshot")),
    st.tuples(st.just("G"), st.just("last"), numbers, times, st.just("gap")),
    st.tuples(st.just("G"), st.just("0-0"), numbers, times, st.just("gap")),
)
content = st.tuples(st.just("C"), st.sampled_from(["", "last", "0-0"]), numbers, times,
                    st.just("ticker"))  # fmt: skip
calls = st.one_of(
    st.lists(st.lists(sequenced, min_size=1, max_size=4), max_size=8),
    st.lists(st.lists(content, min_size=1, max_size=4), max_size=8),
)


@examples(12)
@given(calls)
def test_append_in_memory_answers_as_the_script_does(
    server: redis.Redis, wire: RedisSocket, made: list[list[tuple[Any, ...]]]
) -> None:
    server.flushall()
    sha = server.script_load(SCRIPT.decode())
    memory = MemoryServer()
    last = "0-0"
    for entries in made:
        arguments: list[Any] = [1, 1, "type", "", "", 6 * len(entries)]
        for op, expected, number, ms, kind in entries:
            arguments += [op, last if expected == "last" else expected, number, ms, 1, kind]
        packed = pack("EVALSHA", sha, 1, KEY, *arguments)
        [answers] = wire.call(packed, 1)
        assert memory.call(packed, 1) == [answers]
        last = answers[0][2].decode()
    for packed in (
        pack("XRANGE", KEY, "-", "+"),
        pack("XRANGE", KEY, "101-5", "+", "COUNT", 2),
        pack("XREVRANGE", KEY, "+", "101", "COUNT", 3),
        pack("XREVRANGE", KEY, f"({last}" if last != "0-0" else "+", "0", "COUNT", 3),
    ):
        assert memory.call(packed, 1) == wire.call(packed, 1)
