"""The scripts of ordered mode on a real Redis: fencing of commits, and their effects."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from bridge.runtime.redis_client import connect
from consumers.kit.api.results import Results, State, Write
from consumers.kit.ordered.lease import Answer, Commit, Lease, Leases
from consumers.kit.redis.keys import Keys
from consumers.kit.redis.scripts import Call, script

STREAM = "trade.SOL_USDC"
GROUP = "candles"
BESIDE = "consumers:{trade.SOL_USDC}:candles"
LEASE_MS = 60_000


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[Redis]:
    async with connect(redis_url, name="test", decode_responses=True) as redis:
        yield redis


def leases(client: Redis, worker: str, lease_ms: int = LEASE_MS) -> Leases:
    return Leases(client, Keys(), GROUP, worker, lease_ms)


async def fill(client: Redis, *ids: str) -> None:
    for one in ids:
        await client.xadd(STREAM, {"a": "b"}, id=one)


async def acquired(by: Leases, start: str = "0-0") -> Lease:
    lease = await by.acquire(STREAM, start)
    assert lease is not None
    return lease


async def commit(
    by: Leases, lease: Lease, expected: str, to: str, writes: Sequence[Write] = (), handled: int = 1
) -> Any:
    [answer] = await by.commit([Commit(lease, expected, to, handled, writes)])
    return answer.status if isinstance(answer, Answer) else answer


async def expire(client: Redis) -> None:
    """Delete the lease, as if it had expired."""
    await client.delete(f"{BESIDE}:lease")


async def test_a_stream_has_one_owner_at_a_time_each_with_a_larger_token(client: Redis) -> None:
    a, b = leases(client, "a/1"), leases(client, "b/2")
    first = await acquired(a)
    assert await b.acquire(STREAM, "0-0") is None
    assert await a.free([STREAM]) == [STREAM]
    assert await b.free([STREAM]) == []
    await a.release([first])
    second = await acquired(b)
    assert second.token > first.token
    assert await client.get(f"{BESIDE}:lease") == f"b/2 {second.token}"


async def test_key_of_another_kind_delays_no_other_stream(client: Redis) -> None:
    a, other = leases(client, "a/1"), "trade.OTHER"
    mine, theirs = await acquired(a), await a.acquire(other, "0-0")
    assert theirs is not None
    await client.delete(f"{BESIDE}:lease", f"{BESIDE}:position")
    await client.rpush(f"{BESIDE}:lease", "x")
    await client.rpush(f"{BESIDE}:position", "x")
    assert await a.free([STREAM, other]) == [STREAM, other]
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        await a.acquire(STREAM, "0-0")
    assert await a.renew(client, [mine, theirs]) == [mine]
    await a.release([mine, theirs])
    assert await client.exists("consumers:{trade.OTHER}:candles:lease") == 0


async def test_a_start_in_the_far_future_is_refused_and_not_kept(client: Redis) -> None:
    await fill(client, "5-0")
    a, to_come = leases(client, "a/1"), "99999999999999-0"
    with pytest.raises(ResponseError, match="a time to come: begin at another place"):
        await a.acquire(STREAM, to_come)
    joined = await a.acquire("joined.all", "0-0", is_stream=False)
    assert joined is not None
    with pytest.raises(ResponseError, match="a time to come: begin at another place"):
        await a.join_streams(joined, {STREAM: to_come})
    shared = Call((STREAM, Keys().settled(STREAM, GROUP)), (GROUP, to_come, ""))
    with pytest.raises(ResponseError, match="a time to come: begin at another place"):
        await script("join").run_one(client, shared)
    assert not await client.exists(f"{BESIDE}:position")
    assert await client.xinfo_groups(STREAM) == []
    assert (await acquired(a)).position == "0-0"


@pytest.mark.parametrize("before", [2**53, 2**53 + 1, 2**62])
async def test_huge_token_of_another_program_is_kept_unchanged(client: Redis, before: int) -> None:
    a = leases(client, "a/1")
    await client.hset(f"{BESIDE}:position", "token", str(before))
    lease = await acquired(a)
    assert lease.token == before + 1
    assert await a.renew(client, [lease]) == []


@pytest.mark.parametrize("tries", ["many", "-1", "1" * 30])
async def test_attempts_counted_by_another_program_start_again(client: Redis, tries: str) -> None:
    a = leases(client, "a/1")
    lease = await acquired(a)
    await client.hset(f"{BESIDE}:position", mapping={"trying": "5-0", "tries": tries})
    assert await a.begin_attempt(lease, "5-0") == 1
    assert await a.begin_attempt(lease, "5-0") == 2


async def test_a_commit_moves_position_state_and_results_together(client: Redis) -> None:
    await fill(client, "5-0", "6-0")
    a = leases(client, "a/1")
    lease = await acquired(a)
    state, results = State(), Results()
    state["sum"] = 3
    results.hset("", {"best": "1"})
    results.xadd("out", "6-0", {"c": "d"}, keep_entries=10)
    writes = [*results.writes, *state.take_writes("state")]
    assert await commit(a, lease, "0-0", "6-0", writes, handled=2) == "ok"
    assert await client.hgetall(BESIDE) == {"best": "1"}
    assert await client.xrange(f"{BESIDE}:out") == [("6-0", {"c": "d"})]
    assert await a.state(STREAM) == {"sum": "3"}
    assert await client.hget(f"{BESIDE}:position", "id") == "6-0"
    [group] = await client.xinfo_groups(STREAM)
    assert (group["last-delivered-id"], group["entries-read"], group["lag"]) == ("6-0", 2, 0)


async def test_a_stale_owner_can_neither_write_nor_move(client: Redis) -> None:
    await fill(client, "5-0", "6-0")
    a, b = leases(client, "a/1"), leases(client, "b/2")
    old = await acquired(a)
    await expire(client)
    new = await acquired(b)
    results = Results()
    results.set("note", "from the stale one")
    assert await commit(a, old, "0-0", "6-0", results.writes) == "stale"
    assert await client.get(f"{BESIDE}:note") is None
    assert await client.hget(f"{BESIDE}:position", "id") == "0-0"
    assert await a.renew(client, [old]) == [old]
    await a.release([old])
    assert await client.get(f"{BESIDE}:lease") == f"b/2 {new.token}"
    assert await commit(b, new, "0-0", "5-0") == "ok"


async def test_the_same_commit_again_is_refused(client: Redis) -> None:
    await fill(client, "5-0")
    a = leases(client, "a/1")
    lease = await acquired(a)
    results = Results()
    results.writes.append(Write("HSET", "", ("n", "1")))
    assert await commit(a, lease, "0-0", "5-0", results.writes) == "ok"
    assert await commit(a, lease, "0-0", "5-0", results.writes) == "stale"


async def test_expired_lease_still_commits_until_another_worker_takes_it(
    client: Redis,
) -> None:
    await fill(client, "5-0", "6-0")
    a, b = leases(client, "a/1"), leases(client, "b/2")
    lease = await acquired(a)
    await expire(client)
    assert await commit(a, lease, "0-0", "5-0") == "ok"
    await expire(client)
    assert await a.renew(client, [lease]) == []
    await expire(client)
    await acquired(b)
    await expire(client)  # b's lease expired too, but b's token is newer
    assert await a.renew(client, [lease]) == [lease]
    assert await commit(a, lease, "5-0", "6-0") == "stale"


async def test_a_late_renewal_does_not_bring_back_a_released_lease(client: Redis) -> None:
    a = leases(client, "a/1")
    lease = await acquired(a)
    await a.release([lease])
    assert await a.renew(client, [lease]) == [lease]
    assert await client.get(f"{BESIDE}:lease") is None


async def test_a_lease_runs_out_by_itself(client: Redis) -> None:
    await acquired(leases(client, "a/1", lease_ms=500))
    assert 0 < await client.pttl(f"{BESIDE}:lease") <= 500


async def test_a_commit_to_an_emptied_redis_is_lost(client: Redis) -> None:
    await fill(client, "5-0")
    a = leases(client, "a/1")
    lease = await acquired(a)
    await client.flushall()
    assert await commit(a, lease, "0-0", "5-0") == "lost"
    again = await acquired(a, "4-0")
    assert again.position == "4-0"


async def test_a_commit_that_does_not_move_the_position_is_applied_once(client: Redis) -> None:
    a = leases(client, "a/1")
    lease = await acquired(a)
    results = Results()
    results.hincrby("", "n", 1)
    assert await commit(a, lease, "0-0", "0-0", results.writes, handled=0) == "ok"
    lease.commits -= 1  # as if the reply was lost
    assert await commit(a, lease, "0-0", "0-0", results.writes, handled=0) == "stale"
    assert await client.hgetall(BESIDE) == {"n": "1"}


async def test_tokens_continue_growing_in_an_emptied_redis(client: Redis) -> None:
    a, b = leases(client, "a/1"), leases(client, "b/2")
    old = await acquired(a)
    await client.flushall()
    now_ms = 0
    while now_ms <= old.token:  # an owner holds a lease for more than 1 ms
        seconds, micros = await client.time()
        now_ms = seconds * 1000 + micros // 1000
    assert (await acquired(b)).token > old.token


async def test_restarted_tokens_in_an_emptied_redis_still_fence(
    client: Redis,
) -> None:
    await fill(client, "5-0")
    a, b = leases(client, "a/1"), leases(client, "b/2")
    old = await acquired(a)
    await client.flushall()
    await client.hset(f"{BESIDE}:position", mapping={"token": old.token - 1, "id": "0-0"})
    new = await acquired(b)
    assert old.token == new.token  # as after the server's clock was set back
    assert await commit(a, old, "0-0", "5-0") == "stale"
    await expire(client)
    assert await commit(a, old, "0-0", "5-0") == "stale"
    assert await a.renew(client, [old]) == [old]
    await a.release([old])
    assert await commit(b, new, "0-0", "5-0") == "ok"


async def test_an_older_token_is_stale_even_under_the_same_name(client: Redis) -> None:
    await fill(client, "5-0")
    a = leases(client, "a/1")
    old, new = await acquired(a), await acquired(a)
    assert await commit(a, old, "0-0", "5-0") == "stale"
    assert await a.renew(client, [old]) == [old]
    assert await commit(a, new, "0-0", "5-0") == "ok"


async def test_released_stream_refuses_later_commits(client: Redis) -> None:
    a = leases(client, "a/1")
    lease = await acquired(a)
    await a.release([lease])
    assert await commit(a, lease, "0-0", "5-0") == "stale"


async def test_a_result_key_of_another_kind_refuses_the_whole_commit(client: Redis) -> None:
    await fill(client, "5-0")
    await client.set(f"{BESIDE}:second", "not a hash")
    a = leases(client, "a/1")
    lease = await acquired(a)
    results = Results()
    results.hset("first", {"a": "b"})
    results.hset("second", {"a": "b"})
    answer = await commit(a, lease, "0-0", "5-0", results.writes)
    assert "WRONGTYPE" in str(answer)
    assert await client.exists(f"{BESIDE}:first") == 0
    assert await client.hget(f"{BESIDE}:position", "id") == "0-0"


async def test_derived_entry_written_several_times_is_stored_once(client: Redis) -> None:
    await fill(client, "5-0", "6-0")
    a = leases(client, "a/1")
    lease = await acquired(a)
    results = Results()
    results.xadd("out", "5-0", {"c": "d"}, keep_entries=10)
    assert await commit(a, lease, "0-0", "5-0", results.writes) == "ok"
    results.hset("", {"after": "it"})
    assert await commit(a, lease, "5-0", "6-0", results.writes) == "ok"
    assert await client.xlen(f"{BESIDE}:out") == 1
    assert await client.hgetall(BESIDE) == {"after": "it"}


async def test_the_start_position_is_stored_with_the_first_lease(client: Redis) -> None:
    await fill(client, "5-0", "6-0")
    a, b = leases(client, "a/1"), leases(client, "b/2")
    lease = await acquired(a, "$")
    assert lease.position == "6-0"
    await a.release([lease])
    await fill(client, "7-0")
    assert (await acquired(b, "$")).position == "6-0"


async def test_lag_is_right_while_reading_and_after_a_trim(client: Redis) -> None:
    await fill(client, *(f"{n}-0" for n in range(1, 11)))
    await client.xtrim(STREAM, minid="4-0", approximate=False)
    a = leases(client, "a/1")
    lease = await acquired(a)
    assert await commit(a, lease, "0-0", "6-0", handled=3) == "ok"
    [group] = await client.xinfo_groups(STREAM)
    assert (group["entries-read"], group["lag"]) == (6, 4)
    await client.xtrim(STREAM, minid="9-0", approximate=False)  # two unread are lost
    assert await commit(a, lease, "6-0", "10-0", handled=2) == "ok"
    [group] = await client.xinfo_groups(STREAM)
    assert (group["entries-read"], group["lag"]) == (10, 0)


async def test_destroyed_group_is_created_again_at_the_position(client: Redis) -> None:
    await fill(client, "5-0", "6-0")
    a = leases(client, "a/1")
    lease = await acquired(a)
    await client.xgroup_destroy(STREAM, GROUP)
    assert await commit(a, lease, "0-0", "5-0") == "ok"
    [group] = await client.xinfo_groups(STREAM)
    assert (group["last-delivered-id"], group["lag"]) == ("5-0", 1)


async def test_a_large_commit_fits_into_a_script(client: Redis) -> None:
    await fill(client, "5-0")
    a = leases(client, "a/1")
    lease = await acquired(a)
    results = Results()
    results.replace_hash("", {f"field{n}": "value" for n in range(40_000)})
    assert await commit(a, lease, "0-0", "5-0", results.writes) == "ok"
    assert await client.hlen(BESIDE) == 40_000


async def test_script_removed_from_the_server_is_sent_again(client: Redis) -> None:
    call = Call(["consumers:workers:candles"], ("a", 60_000))
    is_new, alive, _ = await script("heartbeat").run_one(client, call)
    assert (is_new, alive) == (1, ["a"])
    await client.script_flush()
    second = Call(call.keys, ("b", 60_000))
    assert (await script("heartbeat").run_one(client, second))[:2] == [1, ["a", "b"]]


async def test_worker_without_a_heartbeat_for_the_limit_counts_as_dead(client: Redis) -> None:
    await client.zadd("consumers:workers:candles", {"dead": 1, "of the future": 10**15})
    call = Call(["consumers:workers:candles"], ("a", 60_000))
    is_new, alive, _ = await script("heartbeat").run_one(client, call)
    assert (is_new, alive) == (1, ["a"])
    assert (await script("heartbeat").run_one(client, call))[:2] == [0, ["a"]]
