"""State that is written as changes, and results in the same slot as their stream."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.runtime.keyspace import KeySpace
from consumers.kit.api.results import Results, State, Write
from consumers.kit.redis.keys import Keys
from consumers.kit.redis.registry import choose, near_misses

values = st.one_of(
    st.none(), st.integers(), st.text(max_size=3), st.lists(st.integers(), max_size=2)
)
changes = st.lists(
    st.tuples(
        st.sampled_from(["set", "delete", "send", "fail", "lose"]), st.sampled_from("abc"), values
    )
)


def applied(redis: dict[str, str], writes: list[Write]) -> dict[str, str]:
    for command, _, arguments in writes:
        if command == "HSET":
            redis = redis | dict(zip(arguments[::2], arguments[1::2], strict=True))
        else:
            redis = {field: text for field, text in redis.items() if field not in arguments}
    return redis


@given(changes)
def test_state_read_back_from_its_writes_is_the_same(steps: list[Any]) -> None:
    state, redis = State(), dict[str, str]()
    for what, field, value in [*steps, ("send", "a", None)]:
        if what == "set":
            state[field] = value
        elif what == "delete":
            state.pop(field, None)
        elif what == "lose":
            redis = applied({}, state.saved_writes("state"))
        elif what == "fail":  # a retry begins with a new object from the state in Redis
            state.take_writes("state")
            state.discard()
            assert applied({}, state.saved_writes("state")) == redis
            state = State(redis)
        else:
            redis = applied(redis, state.take_writes("state"))
            state.confirm()
    again = State(redis)
    assert dict(again) == dict(state)
    assert (len(again), sorted(again)) == (len(state), sorted(state))


def test_state_sends_only_changes() -> None:
    state = State({"a": "1", "b": "[2]"})
    state["a"] = 3
    del state["b"]
    assert state.take_writes("state") == [
        Write("HDEL", "state", ("b",)),
        Write("HSET", "state", ("a", "3")),
    ]
    assert state.take_writes("state") == []


def test_results_are_commands_in_their_order() -> None:
    results = Results()
    results.replace_hash("", {"a": "1"})
    results.set("note", "x")
    results.hdel("", ["a"])
    results.xadd("out", "5-0", {"b": "2"}, keep_entries=10)
    assert results.writes == [
        Write("DEL", "", ()),
        Write("HSET", "", ("a", "1")),
        Write("SET", "note", ("x",)),
        Write("HDEL", "", ("a",)),
        Write("XADD", "out", ("MAXLEN", "~", "10", "5-0", "b", "2")),
    ]


def test_a_large_hash_is_split_without_tearing_pairs_apart() -> None:
    results = Results()
    results.hset("", {f"f{n}": f"v{n}" for n in range(2500)})
    assert max(len(write.arguments) for write in results.writes) <= 1000
    flat = [text for write in results.writes for text in write.arguments]
    assert dict(zip(flat[::2], flat[1::2], strict=True))["f2499"] == "v2499"
    assert all(len(write.arguments) % 2 == 0 for write in results.writes)


@pytest.mark.parametrize("part", ["lease", "position", "state"])
def test_results_refuse_the_kits_own_keys(part: str) -> None:
    for write in (
        lambda: Results().set(part, "x"),
        lambda: Results().hset(part, {"a": "b"}),
        lambda: Results().hdel(part, ["a"]),
    ):
        with pytest.raises(ValueError, match="the kit's"):
            write()


def test_keys_lie_in_the_streams_slot_behind_the_prefix() -> None:
    keys = Keys(KeySpace("mine:"))
    assert keys.stream("trade.SOL_USDC") == "mine:trade.SOL_USDC"
    assert keys.name("mine:trade.SOL_USDC") == "trade.SOL_USDC"
    assert keys.registry == "mine:bridge:streams"
    assert keys.status == "mine:consumers:status"
    assert keys.workers("candles") == "mine:consumers:workers:candles"
    beside = keys.beside("trade.SOL_USDC", "candles", "lease")
    assert beside == "mine:consumers:{mine:trade.SOL_USDC}:candles:lease"
    assert Keys().beside("depth.SOL_USDC", "book") == "consumers:{depth.SOL_USDC}:book"
    assert keys.all_beside("a[1]*") == [r"mine:consumers:{*}:a\[1\]\**"]


def test_streams_are_chosen_by_pattern() -> None:
    names = ["trade.SOL_USDC", "depth.SOL_USDC", "trade.BTC_USDC", "account.orderUpdate"]
    assert choose(names, ["trade.*"]) == ("trade.BTC_USDC", "trade.SOL_USDC")
    assert choose(names, ["*.SOL_USDC", "trade.SOL*"]) == ("depth.SOL_USDC", "trade.SOL_USDC")
    assert choose(names, ["TRADE.*"]) == ()


@pytest.mark.parametrize(
    "mistake",
    [
        lambda r: r.hincrby("", "volume", 1.5),
        lambda r: r.hincrby("", "volume", "1.5"),
        lambda r: r.incrby("n", 10**15),
        lambda r: r.incrby("n", True),
        lambda r: r.set("price", Decimal("1.5")),
        lambda r: r.set("price", None),
        lambda r: r.hset("", {"known": True}),
        lambda r: r.hset("", {b"known": "true"}),
        lambda r: r.hdel("", [None]),
        lambda r: r.set(7, "a"),
        lambda r: r.xadd("out", "5-0", {}, keep_entries=10),
        lambda r: r.xadd("out", "5", {"a": "b"}, keep_entries=10),
        lambda r: r.xadd("out", "5-0", {"a": "b"}, keep_entries=1.5),
        lambda r: r.xadd("out", "0-0", {"a": "b"}, keep_entries=10),
        lambda r: r.xadd("out", "00-0", {"a": "b"}, keep_entries=10),
        lambda r: r.xadd("out", f"5-{2**64}", {"a": "b"}, keep_entries=10),
    ],
)
def test_results_refuse_commands_in_the_handler_that_redis_would_refuse(mistake: Any) -> None:
    results = Results()
    with pytest.raises((TypeError, ValueError)):
        mistake(results)
    assert results.writes == []


def test_an_entry_of_more_fields_than_a_script_can_pass_on_is_refused_in_the_handler() -> None:
    fields, results = {f"f{n}": "v" for n in range(1000)}, Results()
    results.xadd("out", "5-0", fields, keep_entries=10)
    with pytest.raises(ValueError, match=r"1001 fields.*at most 1000.*hset"):
        results.xadd("out", "6-0", fields | {"one": "more"}, keep_entries=10)
    assert len(results.writes) == 1


def test_whole_numbers_are_taken_as_text() -> None:
    results = Results()
    results.hset("", {"trades": 5})  # type: ignore[dict-item]
    assert [tuple(write) for write in results.writes] == [("HSET", "", ("trades", "5"))]


def test_patterns_without_a_match_get_suggestions() -> None:
    names = ["trade.SOL_USDC", "trade.BTC_USDC", "account.orderUpdate"]
    assert near_misses(names, ["trde.*", "acount.*"]) == ["trade.*", "account.*"]
    assert near_misses(names, ["trade.SOL_USD"]) == ["trade.SOL_USDC"]
    assert near_misses(names, ["xyz.*"]) == near_misses([], ["trade.*"]) == []
