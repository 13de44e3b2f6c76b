"""The scripts of shared mode on a real Redis: results are applied once, a lost group continues."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis

from bridge.runtime.redis_client import connect
from consumers.kit.api.results import Results, Write
from consumers.kit.handling.dead_letters import DeadLetters
from consumers.kit.redis.keys import Keys
from consumers.kit.shared.group import Group, Unit, UnitKind

STREAM = "trade.SOL_USDC"
BESIDE = "consumers:{trade.SOL_USDC}:tally"


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[Redis]:
    async with connect(redis_url, name="test", decode_responses=True) as redis:
        yield redis


async def fill(client: Redis, *ids: str) -> None:
    for one in ids:
        await client.xadd(STREAM, {"a": "b"}, id=one)


def group(client: Redis, worker: str) -> Group:
    return Group(client, Keys(), "tally", worker)


async def join(of: Group, start: str = "0-0", mark: str = "") -> Any:
    return (await of.join({STREAM: (start, mark)}))[STREAM]


async def settle(of: Group, *units: Unit) -> Any:
    return (await of.settle({STREAM: units}))[STREAM]


async def delivered(client: Redis) -> str:
    [one] = await client.xinfo_groups(STREAM)
    return str(one["last-delivered-id"])


def count(by: int = 1) -> list[Write]:
    results = Results(in_order=False)
    results.hincrby("", "count", by)
    return results.writes


async def test_results_count_only_with_the_acknowledgement(client: Redis) -> None:
    await fill(client, "5-0")
    sleeper, other = group(client, "sleeper"), group(client, "other")
    await join(sleeper)
    assert await sleeper.read([STREAM], 10, None) == {STREAM: [("5-0", ["a", "b"])]}
    await other.claim(STREAM, ["5-0"], 0)
    assert (await settle(other, Unit(UnitKind.ACK, ["5-0"], count()))).answers == [1]
    assert (await settle(sleeper, Unit(UnitKind.ACK, ["5-0"], count()))).answers == [0]
    assert await client.hgetall(BESIDE) == {"count": "1"}


async def test_results_of_a_list_count_for_all_its_entries_or_none(client: Redis) -> None:
    await fill(client, "5-0", "6-0")
    a = group(client, "a")
    await join(a)
    await a.read([STREAM], 10, None)
    await settle(a, Unit(UnitKind.ACK, ["5-0"]))  # as if another worker had acknowledged 5-0
    assert (await settle(a, Unit(UnitKind.ACK, ["5-0", "6-0"], count(2)))).answers == [0]
    assert await client.exists(BESIDE) == 0
    assert (await settle(a, Unit(UnitKind.ACK, ["6-0"], count()))).answers == [1]


async def test_refused_results_settle_nothing_and_delay_no_other(client: Redis) -> None:
    await fill(client, "5-0", "6-0")
    await client.hset(BESIDE, "count", "many")
    a = group(client, "a")
    await join(a)
    await a.read([STREAM], 10, None)
    other = Write("SET", "fine", ("1",))
    settled = await settle(
        a, Unit(UnitKind.ACK, ["5-0"], count()), Unit(UnitKind.ACK, ["6-0"], [other])
    )
    assert "not a number" in settled.answers[0]
    assert settled.answers[1] == 1
    assert [
        one["message_id"] for one in await client.xpending_range(STREAM, "tally", "-", "+", 9)
    ] == ["5-0"]


@pytest.mark.parametrize(
    "bad",
    [
        [Write("HINCRBY", "", ("volume", "1.5"))],
        [Write("INCRBY", "n", ("9223372036854775807",))],
        [Write("INCRBY", "n", ("007",))],
        [Write("HINCRBY", "", ("volume", "-0"))],
        [Write("SET", "x", ("007",)), Write("INCRBY", "x", ("1",))],
        [Write("HSET", "", ("n", "-0")), Write("HINCRBY", "", ("n", "1"))],
        [Write("XADD", "out", ("MAXLEN", "~", "10", "*"))],
        [Write("XADD", "out", ("MAXLEN", "~", "10", "five", "a", "b"))],
        [Write("XADD", "out", ("MAXLEN", "~", "10", "0-0", "a", "b"))],
        [Write("XADD", "out", ("MAXLEN", "~", "10", "00-000", "a", "b"))],
        [Write("XADD", "out", ("MAXLEN", "~", "10", f"{2**64}-0", "a", "b"))],
        [Write("XADD", "out", ("MAXLEN", "~", "-1", "5-0", "a", "b"))],
        [Write("XADD", "out", ("MAXLEN", "~", "10", "*", *("a", "b") * 4000))],
        [Write("HSET", "", ("a",))],
        [Write("SET", "x", ("1",)), Write("HSET", "x", ("a", "b"))],
        [Write("SET", "x", ("a",)), Write("INCRBY", "x", ("1",))],
        [Write("HSET", "", ("n", "a")), Write("HINCRBY", "", ("n", "1"))],
        [Write("EVAL", "", ("a",))],
    ],
)
async def test_results_of_which_one_would_be_refused_are_not_applied(
    client: Redis, bad: list[Write]
) -> None:
    await fill(client, "5-0")
    a = group(client, "a")
    await join(a)
    await a.read([STREAM], 10, None)
    settled = await settle(a, Unit(UnitKind.ACK, ["5-0"], [*count(), *bad]))
    assert isinstance(settled.answers[0], str)
    assert await client.keys(f"{BESIDE}*") == [f"{BESIDE}:settled"]
    assert (await client.xpending(STREAM, "tally"))["pending"] == 1


async def test_a_field_that_is_deleted_first_is_counted_from_zero_whatever_it_held(
    client: Redis,
) -> None:
    await fill(client, "5-0")
    await client.hset(BESIDE, mapping={"text": "no number", "other": "1"})
    a = group(client, "a")
    await join(a)
    await a.read([STREAM], 10, None)
    results = Results(in_order=False)
    results.hdel("", ["text"])
    results.hincrby("", "text", 2)
    assert (await settle(a, Unit(UnitKind.ACK, ["5-0"], results.writes))).answers == [1]
    assert await client.hgetall(BESIDE) == {"text": "2", "other": "1"}


async def test_a_result_for_a_stream_whose_ids_are_used_up_settles_nothing(client: Redis) -> None:
    await fill(client, "5-0")
    await client.xadd(f"{BESIDE}:out", {"a": "b"}, id=f"{2**64 - 1}-{2**64 - 1}")
    a = group(client, "a")
    await join(a)
    await a.read([STREAM], 10, None)
    results = Results(in_order=False)
    results.xadd("out", "*", {"a": "b"}, keep_entries=10)
    settled = await settle(a, Unit(UnitKind.ACK, ["5-0"], results.writes))
    assert "the last there can be" in settled.answers[0]
    assert (await client.xpending(STREAM, "tally"))["pending"] == 1


async def test_counters_written_by_another_program_do_not_prevent_settling(
    client: Redis,
) -> None:
    await fill(client, "5-0", "6-0")
    a = group(client, "a")
    await join(a)
    await a.read([STREAM], 10, None)
    junk = dict.fromkeys(("acked", "skipped", "id", "counted", "missed"), "far along")
    await client.hset(f"{BESIDE}:settled", mapping=junk)
    await client.xdel(STREAM, "5-0")
    settled = await settle(a, Unit(UnitKind.GONE, ["5-0"]), Unit(UnitKind.ACK, ["6-0"], count()))
    assert settled.answers == [1, 1]
    assert await client.hgetall(BESIDE) == {"count": "1"}


async def test_nothing_is_missed_where_another_program_has_written_to_a_counter(
    client: Redis,
) -> None:
    await fill(client, "5-0", "6-0", "7-0")
    a = group(client, "a")
    await join(a)
    await a.read([STREAM], 10, None)
    assert (await settle(a, Unit(UnitKind.ACK, ["5-0"]))).missed == 0
    await client.hset(f"{BESIDE}:settled", "acked", "many")
    for entry in ("6-0", "7-0"):
        assert (await settle(a, Unit(UnitKind.ACK, [entry]))).missed == 0


async def test_numbers_at_the_limit_of_redis_integers_are_accepted(client: Redis) -> None:
    await fill(client, "5-0")
    await client.set(f"{BESIDE}:x", "0")
    a = group(client, "a")
    await join(a)
    await a.read([STREAM], 10, None)
    largest = f"{2**64 - 1}-0"
    writes = [
        Write("INCRBY", "x", ("0",)),
        Write("INCRBY", "x", ("-10",)),
        Write("XADD", "out", ("MAXLEN", "~", "10", largest, *("a", "b") * 1000)),
    ]
    assert (await settle(a, Unit(UnitKind.ACK, ["5-0"], writes))).answers == [1]
    assert await client.get(f"{BESIDE}:x") == "-10"
    assert [at for at, _ in await client.xrange(f"{BESIDE}:out")] == [largest]


async def test_earlier_writes_of_a_unit_count_for_its_later_checks(client: Redis) -> None:
    await fill(client, "5-0")
    await client.set(f"{BESIDE}:x", "text")
    a = group(client, "a")
    await join(a)
    await a.read([STREAM], 10, None)
    writes = [
        Write("DEL", "x", ()),
        Write("HINCRBY", "x", ("n", "1")),
        Write("SET", "y", ("5",)),
        Write("INCRBY", "y", ("1",)),
    ]
    assert (await settle(a, Unit(UnitKind.ACK, ["5-0"], writes))).answers == [1]
    assert await client.hgetall(f"{BESIDE}:x") == {"n": "1"}
    assert await client.get(f"{BESIDE}:y") == "6"


async def test_dead_letter_is_stored_once_and_sent_back_once(client: Redis) -> None:
    await fill(client, "5-0")
    a = group(client, "a")
    await join(a)
    await a.read([STREAM], 10, None)
    fields = {"entry_id": "5-0", "attempts": "3", "error": "ValueError: 5", "fields": "{}"}
    await client.xadd(f"{BESIDE}:again", fields, id="1-0")

    dead_letters = DeadLetters(client, Keys(), "tally")
    letter = await dead_letters.take(STREAM, ("1-0", fields), "a")
    assert letter is not None
    assert (letter.entry, letter.attempts) == (("5-0", []), 4)
    assert await dead_letters.take(STREAM, ("1-0", fields), "b") is None
    [(_, dead)] = await client.xrange(f"{BESIDE}:dead")  # it stays until the handler succeeds
    assert dead["error"].startswith("NotFinished: begun 4 times")

    unit = Unit(UnitKind.AGAIN, [letter.letter_id], count())
    assert (await settle(a, unit)).answers == [1]
    assert (await settle(a, unit)).answers == [0]
    assert await client.hgetall(BESIDE) == {"count": "1"}
    assert await client.xlen(f"{BESIDE}:dead") == 0


async def test_dead_letter_with_a_repeated_field_gets_its_last_value(
    client: Redis,
) -> None:
    dead_letters = DeadLetters(client, Keys(), "tally")
    fields = ("attempts", "many", "entry_id", "5-0", "fields", "{}", "attempts", "3")
    await client.execute_command("XADD", f"{BESIDE}:again", "*", *fields)
    [waiting] = (await dead_letters.sent_back([STREAM]))[STREAM]
    taken = await dead_letters.take(STREAM, waiting, "w")
    assert taken is not None
    assert (taken.entry, taken.attempts) == (("5-0", []), 4)
    assert await client.xlen(f"{BESIDE}:again") == 0


async def test_a_dead_letter_with_more_fields_than_a_script_can_move_delays_no_worker(
    client: Redis,
) -> None:
    dead_letters = DeadLetters(client, Keys(), "tally")
    many = {f"field-{n}": "x" for n in range(9000)}
    fields = {"attempts": "1", "entry_id": "5-0", "fields": "{}", **many}
    await client.xadd(f"{BESIDE}:again", fields)  # type: ignore[arg-type]
    await client.xadd(f"{BESIDE}:dead", fields)  # type: ignore[arg-type]
    [waiting] = (await dead_letters.sent_back([STREAM]))[STREAM]
    assert await dead_letters.take(STREAM, waiting, "w") is None
    assert await client.xlen(f"{BESIDE}:again") == 0
    found = await dead_letters.find([STREAM])
    assert (await dead_letters.send_back(found), await dead_letters.drop(found)) == (0, 1)


async def test_dead_letter_waits_while_the_ids_of_its_stream_are_used_up(client: Redis) -> None:
    dead_letters = DeadLetters(client, Keys(), "tally")
    await client.xadd(f"{BESIDE}:dead", {"a": "b"}, id=f"{2**64 - 1}-{2**64 - 1}")
    await client.xadd(f"{BESIDE}:again", {"attempts": "1", "entry_id": "5-0", "fields": "{}"})
    [waiting] = (await dead_letters.sent_back([STREAM]))[STREAM]
    assert await dead_letters.take(STREAM, waiting, "w") is None
    assert await client.xlen(f"{BESIDE}:again") == 1


async def test_dead_letters_are_found_despite_another_streams_key_of_another_kind(
    client: Redis,
) -> None:
    dead_letters = DeadLetters(client, Keys(), "tally")
    for part in ("again", "dead"):
        await client.rpush(f"{BESIDE}:{part}", "x")
        await client.xadd(f"consumers:{{trade.X}}:tally:{part}", {"a": "b"})
    both = [STREAM, "trade.X"]
    assert list(await dead_letters.sent_back(both)) == ["trade.X"]
    assert [one.stream for one in await dead_letters.find(both)] == ["trade.X"]
    assert [one.stream for one in await dead_letters.find_sent_back(both)] == ["trade.X"]


async def test_consumers_of_dead_workers_are_removed_unless_entries_are_pending(
    client: Redis,
) -> None:
    await fill(client, "5-0")
    a = group(client, "a")
    await join(a)
    for name in ("idle", "alive"):
        await client.xgroup_createconsumer(STREAM, "tally", name)
    await group(client, "holder").read([STREAM], 10, None)

    async def names() -> set[str]:
        return {one["name"] for one in await client.xinfo_consumers(STREAM, "tally")}

    await a.remove_dead_consumers([STREAM], ["alive"], idle_ms=60_000)
    assert await names() == {"idle", "alive", "holder"}  # `idle` may have joined just now
    await a.remove_dead_consumers([STREAM], ["alive"], idle_ms=-1)
    assert await names() == {"alive", "holder"}


async def test_destroyed_group_continues_after_the_settled_entries(client: Redis) -> None:
    await fill(client, "5-0", "5-7", "8-0")
    a = group(client, "a")
    assert await join(a) == 1
    assert await join(a) == 0
    await a.read([STREAM], 10, None)
    settled = await settle(a, Unit(UnitKind.ACK, ["5-0", "8-0"]))  # 5-7 is still pending
    assert settled.mark == "5-6"
    await client.xgroup_destroy(STREAM, "tally")
    assert await join(group(client, "b"), "$") == 1
    assert await delivered(client) == "5-6"


@pytest.mark.parametrize(
    ("in_hand", "mark"),
    [("8-0", "7-18446744073709551615"), ("8-5", "8-4"), ("0-1", "0-0")],
)
async def test_the_settled_mark_lies_directly_before_the_oldest_pending_entry(
    client: Redis, in_hand: str, mark: str
) -> None:
    await fill(client, in_hand, "9-0")
    a = group(client, "a")
    await join(a)
    await a.read([STREAM], 10, None)
    assert (await settle(a, Unit(UnitKind.ACK, ["9-0"]))).mark == mark


async def test_a_group_is_created_where_the_worker_remembers_after_a_flush(client: Redis) -> None:
    await fill(client, "5-0", "6-0")
    a = group(client, "a")
    await join(a)
    await a.read([STREAM], 10, None)
    mark = (await settle(a, Unit(UnitKind.ACK, ["5-0", "6-0"]))).mark
    await client.flushall()
    assert await join(a, "0-0", mark) is None  # no stream yet
    await fill(client, "5-0", "6-0", "7-0")
    assert await join(a, "0-0", mark) == 1
    assert await a.read([STREAM], 10, None) == {STREAM: [("7-0", ["a", "b"])]}


async def test_late_acknowledgement_to_a_group_created_again_applies_nothing_twice(
    client: Redis,
) -> None:
    await fill(client, "5-0")
    a, b = group(client, "a"), group(client, "b")
    await join(a)
    await a.read([STREAM], 10, None)
    await client.xgroup_destroy(STREAM, "tally")
    assert (await settle(a, Unit(UnitKind.ACK, ["5-0"], count()))).answers == [0]
    await join(b)
    await b.read([STREAM], 10, None)
    assert (await settle(b, Unit(UnitKind.ACK, ["5-0"], count()))).answers == [1]
    assert await client.hgetall(BESIDE) == {"count": "1"}


async def test_entries_trimmed_before_they_were_read_are_missed_once(client: Redis) -> None:
    await fill(client, *(f"{n}-0" for n in range(1, 11)))
    a = group(client, "a")
    await join(a)
    await a.read([STREAM], 2, None)
    assert (await settle(a, Unit(UnitKind.ACK, ["1-0", "2-0"]))).missed == 0
    await client.xtrim(STREAM, minid="6-0", approximate=False)  # 3, 4 and 5 were never read
    found = await a.read([STREAM], 2, None)
    assert [at for at, _ in found[STREAM]] == ["6-0", "7-0"]
    assert (await settle(a, Unit(UnitKind.ACK, ["6-0", "7-0"]))).missed == 3
    await a.read([STREAM], 10, None)
    assert (await settle(a, Unit(UnitKind.ACK, ["8-0", "9-0", "10-0"]))).missed == 0
    assert await client.hget(f"{BESIDE}:settled", "missed") == "3"


async def test_entries_handed_out_and_trimmed_are_counted_as_missed(client: Redis) -> None:
    await fill(client, "1-0", "2-0")
    a = group(client, "a")
    await join(a)
    await a.read([STREAM], 10, None)
    await client.xtrim(STREAM, maxlen=0, approximate=False)
    there, removed = await a.claim(STREAM, ["1-0", "2-0"], 0)
    assert there == []
    settled = await settle(a, Unit(UnitKind.GONE, removed))
    # Redis 7.0 and later remove trimmed entries from the pending list at a claim.
    assert settled.missed == 2


async def test_entries_settled_as_trimmed_are_missed_if_never_claimed(client: Redis) -> None:
    await fill(client, "1-0", "2-0")
    a = group(client, "a")
    await join(a)
    await a.read([STREAM], 10, None)
    await client.xtrim(STREAM, maxlen=0, approximate=False)
    assert (await settle(a, Unit(UnitKind.GONE, ["1-0", "2-0"]))).missed == 2


async def test_a_large_acknowledgement_fits_into_the_script(client: Redis) -> None:
    ids = [f"{n}-0" for n in range(1, 9001)]
    async with client.pipeline(transaction=False) as pipeline:
        for one in ids:
            pipeline.xadd(STREAM, {"a": "b"}, id=one)
        await pipeline.execute()
    a = group(client, "a")
    await join(a)
    await a.read([STREAM], 10_000, None)
    assert (await settle(a, Unit(UnitKind.ACK, ids))).mark == "9000-0"
    assert (await client.xpending(STREAM, "tally"))["pending"] == 0
