"""The exporter's pages over a real Redis, and without one."""

import json

import pytest
from redis.asyncio import Redis

from bridge.runtime.keyspace import KeySpace
from bridge.runtime.redis_client import connect
from bridge.runtime.redis_shards import ShardedRedis
from consumers.exporter.pages import ExporterPages
from consumers.kit.redis.keys import Keys

STREAM = "trade.SOL_USDC"


def client(url: str) -> Redis:
    return connect(url, name="test", decode_responses=True, connect_timeout_s=2)


async def series(pages: ExporterPages) -> dict[str, float]:
    pytest.importorskip("prometheus_client", reason="the extra `metrics`")
    lines = (await pages.page("/metrics")).body.decode().splitlines()
    pairs = (line.rpartition(" ") for line in lines if line.startswith("backpack_"))
    return {name: float(value) for name, _, value in pairs}


async def test_page_has_groups_workers_bridges_and_memory_whatever_others_have_written(
    redis_url: str,
) -> None:
    async with client(redis_url) as redis:
        seconds, micros = await redis.time()
        now_us = seconds * 1_000_000 + micros
        await redis.hset("bridge:streams", STREAM, "{}")
        for number in (1, 2, 3):
            await redis.xadd(STREAM, {"type": "trade"}, id=f"{now_us // 1000 - 60_000}-{number}")
        await redis.xgroup_create(STREAM, "mine", id="0")
        await redis.xreadgroup("mine", "w", {STREAM: ">"}, count=1)
        await redis.hset("consumers:groups", mapping={"mine": '{"mode": "shared"}', "odd": "[1"})
        status = {
            "group": "mine", "consumer": "w", "updated_us": now_us, "handled": 5, "failed": 0,
            "retried": 0, "late": 0, "undecodable": 0, "rate": 2.5, "streams": {},
        }  # fmt: skip
        await redis.hset("consumers:status", mapping={"mine/w": json.dumps(status), "x": "{"})
        await redis.zadd("consumers:workers:mine", {"w/1": now_us // 1000})
        live, stopped = {"redis_us": now_us}, {"redis_us": now_us, "stopped_us": now_us}
        written = {"a": json.dumps(live), "b": json.dumps(stopped), "c": "no JSON", "d": "[]"}
        await redis.hset("bridge:status", mapping=written)
        pages = ExporterPages(redis, Keys(), per_stream=False)

        found = await series(pages)
        ready = await pages.page("/readyz")

    assert found["backpack_exporter_redis_up"] == 1
    assert found['backpack_group_lag_entries{group="mine"}'] == 2
    assert 55 < found['backpack_group_behind_seconds{group="mine"}'] < 600
    assert found['backpack_group_pending_entries{group="mine"}'] == 1
    assert found['backpack_group_workers{group="mine"}'] == 1
    assert found['backpack_group_handled_per_second{group="mine"}'] == 2.5
    bridges = [name for name in found if name.startswith("backpack_bridge_last_status")]
    assert bridges == ['backpack_bridge_last_status_timestamp_seconds{bridge="a"}']
    assert found["backpack_redis_memory_used_bytes"] > 0
    assert ready.status.value == 200


async def test_of_several_shards_one_that_does_not_answer_is_told_and_the_others_count(
    redis_url: str,
) -> None:
    space = KeySpace("{b}:", 2)
    async with client(redis_url) as live, client("redis://127.0.0.1:1/0") as dead:
        for name in ("trade.JUP_USDC", "trade.ETH_USDC"):  # of shard 0, and of shard 1
            await live.hset(space.key("bridge:streams"), name, "{}")
            await live.xadd(space.key(name), {"type": "trade"}, id="5-1")
            await live.xgroup_create(space.key(name), "mine", id="0")
        told = [
            await series(
                ExporterPages(ShardedRedis(both, ["b.0", "b.1"]), Keys(space), per_stream=False)
            )
            for both in ([live, live], [live, dead], [dead, live])
        ]

    lags = [each.get('backpack_group_lag_entries{group="mine"}') for each in told]
    assert lags == [2, 1, None]
    assert [each.get('backpack_exporter_shard_up{shard="1"}') for each in told] == [1, 0, None]
    assert [each["backpack_exporter_redis_up"] for each in told] == [1, 1, 0]
    assert told[1]["backpack_redis_memory_used_bytes"] > 0


async def test_without_redis_it_is_alive_says_why_it_is_not_ready_and_counts_nothing() -> None:
    async with client("redis://127.0.0.1:1/0") as redis:
        pages = ExporterPages(redis, Keys(), per_stream=False)

        ready = await pages.page("/readyz")

        assert (await pages.page("/healthz")).status.value == 200
        assert ready.status.value == 503
        assert json.loads(ready.body)["reasons"][0]["reason"] == "redis_away"
        assert await series(pages) == {"backpack_exporter_redis_up": 0}
