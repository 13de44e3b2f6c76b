"""The views of several shards while one of them is unavailable.

The shards are clients of one server, which has all their keys, and of an address without a server.
"""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from bridge.console.hub import HEAD, Hub
from bridge.console.levers import NoLevers
from bridge.console.watcher import Watched, Watcher
from bridge.contract import keys
from bridge.runtime.keyspace import KeySpace
from bridge.runtime.redis_client import connect
from bridge.runtime.redis_shards import ShardedRedis
from bridge.view import follow
from bridge.view.history import History
from bridge.view.reader import read_everything, read_sample
from bridge.view.verdict import Level, judge
from bridge.view.view_model import draw
from tests.support.set_run import OF_FOUR_SHARDS

SPACE = KeySpace("{b}:", 4)
STREAMS = [f"trade.{market}" for market in OF_FOUR_SHARDS]  # of shards 0, 1, 2, 3
NOWHERE = "redis://127.0.0.1:1/0"
FIELDS: dict[str | bytes, str | bytes] = {"type": "trade"}


def client(url: str) -> Redis:
    return connect(url, name="test", decode_responses=True, connect_timeout_s=2)


@asynccontextmanager
async def without(redis_url: str, *unavailable: int) -> AsyncIterator[tuple[ShardedRedis, Redis]]:
    """A client for which these shards are unavailable, and a client for all shards."""
    async with client(redis_url) as whole:
        for name in STREAMS:
            await whole.hset(SPACE.key(keys.STREAMS), name, "{}")
            await whole.xadd(SPACE.key(name), FIELDS, "5-1")
        # other keys that a shard may have
        await whole.xadd(SPACE.prefix_of(1) + "consumers:trade.ETH_USDC:g:dead", FIELDS, "5-1")
        await whole.set(SPACE.prefix_of(1) + "trade.X_USDC", "no stream")
        clients = [client(NOWHERE if n in unavailable else redis_url) for n in range(SPACE.shards)]
        async with ShardedRedis(clients, [f"b.{n}" for n in range(SPACE.shards)]) as sharded:
            yield sharded, whole


@pytest.mark.parametrize("known", [(), STREAMS])
async def test_without_the_first_shard_streams_of_the_others_are_shown_and_no_bridges(
    known: list[str], redis_url: str
) -> None:
    async with without(redis_url, 0) as (sharded, _):
        sample = await read_sample(sharded, SPACE, known)

    there = {name for name, facts in sample.streams.items() if not facts.is_unavailable}
    assert there == set(STREAMS[1:])
    assert sample.streams["trade.ETH_USDC"].last_id == "5-1"
    assert set(sample.streams) - there == {*STREAMS[:1]} & {*known}
    assert sample.now_us > 1_000_000_000_000_000
    assert list(sample.unavailable) == [0]
    assert sample.unavailable[0].startswith(
        "shard 0 does not answer: Error 111 connecting to 127.0.0.1:1"
    )
    history = History()
    history.add(sample)
    verdict = judge(draw(history))
    assert verdict.level is Level.BAD
    assert "; the other shards have 3 streams, the newest entry" in verdict.text


async def test_a_read_for_a_decision_fails_without_the_first_shard(
    redis_url: str,
) -> None:
    async with without(redis_url, 0) as (sharded, _):
        with pytest.raises(RedisConnectionError, match=r"^shard 0 does not answer: "):
            await read_everything(sharded, SPACE)


async def test_views_without_any_shard_show_nothing(redis_url: str) -> None:
    async with without(redis_url, 0, 1, 2, 3) as (sharded, _):
        with pytest.raises(RedisConnectionError, match=r"^shard 0 does not answer: "):
            await read_sample(sharded, SPACE)


async def test_full_first_shard_is_reported_as_it_holds_the_statuses(
    redis_url: str,
) -> None:
    async with without(redis_url) as (sharded, whole):
        before = await whole.config_get("maxmemory")
        await whole.config_set("maxmemory", 1)
        try:
            sample = await read_everything(sharded, SPACE)
        finally:
            await whole.config_set("maxmemory", before["maxmemory"] or "0")

    assert sample.redis_full.startswith("shard 0 is full (OOM): it uses ")


async def test_views_without_another_shard_omit_only_its_streams(redis_url: str) -> None:
    async with without(redis_url, 2) as (sharded, whole):
        await whole.hset(SPACE.key(keys.STATUS), "a", '{"instance": "a", "updated_us": 1}')
        sample = await read_sample(sharded, SPACE)

    history = History()
    history.add(sample)
    view_model = draw(history)
    assert [bridge.status.instance for bridge in view_model.bridges] == ["a"]
    assert {row.name: row.entries_text for row in view_model.streams} == {
        "trade.JUP_USDC": "1", "trade.ETH_USDC": "1", "trade.BONK_USDC": "?", "trade.SOL_USDC": "1",
    }  # fmt: skip
    reasons = [why for why in judge(view_model).reasons if "shard" in why or "unavailable" in why]
    assert [why.partition(": ")[0] for why in reasons] == ["shard 2 does not answer"]


@pytest.mark.parametrize("unavailable", [0, 2])
async def test_tap_follows_available_shards_and_a_returning_one(
    unavailable: int, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "_REGISTRY_EVERY_S", 0.05)
    monkeypatch.setattr(follow, "_UNAVAILABLE_EVERY_S", 0.05)
    monkeypatch.setattr(follow, "_RETRY_S", 0.05)
    notices: list[str] = []
    given: dict[str, list[str]] = {name: [] for name in STREAMS}
    others = {name for number, name in enumerate(STREAMS) if number != unavailable}
    async with without(redis_url, unavailable) as (sharded, whole), asyncio.TaskGroup() as tasks:
        follower = follow.Follower(sharded, SPACE, ["trade.*"], "$", notices.append, tasks)

        async def read() -> None:
            async for batch in follower.entries():
                for entry in batch:
                    given[entry.stream].append(entry.entry_id)

        reading = tasks.create_task(read())
        numbers = itertools.count(6)
        async with asyncio.timeout(10):
            while not others <= {name for name, some in given.items() if some}:
                await _add_to_all(whole, next(numbers))
        dead, clients = sharded.shards[unavailable], list(sharded.shards)
        clients[unavailable] = client(redis_url)
        sharded.shards = clients
        back_from = next(numbers)
        async with asyncio.timeout(10):
            while not given[STREAMS[unavailable]]:
                await _add_to_all(whole, next(numbers))
        reading.cancel()
        follower.stop()
        await dead.aclose()

    assert int(given[STREAMS[unavailable]][0].partition("-")[0]) > back_from
    assert notices[0].startswith(f"shard {unavailable} does not answer: Error 111 connecting")
    assert notices[-1] == f"shard {unavailable} is back"


async def _add_to_all(whole: Redis, number: int) -> None:
    for name in STREAMS:
        await whole.xadd(SPACE.key(name), FIELDS, f"{number}-1")
    await asyncio.sleep(0.02)


@pytest.mark.parametrize("unavailable", [0, 2])
async def test_console_consumers_page_shows_available_shards_and_the_unavailable_one(
    unavailable: int, redis_url: str
) -> None:
    async with without(redis_url, unavailable) as (sharded, whole):
        for name in STREAMS:
            await whole.xgroup_create(SPACE.key(name), "mine", id="0")
        watcher = Watcher(Watched(sharded, SPACE, "here"), hub := Hub(), NoLevers())
        client = hub.join("consumers")
        running = asyncio.create_task(watcher.run())
        async with asyncio.timeout(10):
            events = (one async for one in client.messages() if one.event != HEAD)
            first = await anext(events)
        running.cancel()

    assert first.event == "more"
    document = json.loads(first.data)
    [group] = document["groups"]
    others = {name for number, name in enumerate(STREAMS) if number != unavailable}
    assert {one["stream"] for one in group["streams"]} == others
    assert [why.partition(":")[0] for why in document["unavailable"]] == [
        f"shard {unavailable} does not answer"
    ]
    assert document["knows_workers"] is (unavailable != 0)
