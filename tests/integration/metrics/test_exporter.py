"""The exporter's pages, with and without a real Redis."""

import asyncio
import json
import sys
from pathlib import Path

import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from bridge.contract.latency import BOUNDS_US
from bridge.metrics import exposition
from bridge.runtime.keyspace import KeySpace
from bridge.runtime.redis_client import connect
from bridge.runtime.redis_shards import ShardedRedis
from consumers.exporter.pages import ExporterPages
from consumers.kit.redis.keys import Keys
from tests.support import warm
from tests.support.command import environment
from tests.support.consumer_commands import run_here
from tests.support.eventually import eventually_async
from tests.support.limited_user import as_limited, without
from tests.support.process_pages import ProcessPages, serves

STREAM = "trade.SOL_USDC"


def client(url: str) -> Redis:
    return connect(url, name="test", decode_responses=True, connect_timeout_s=2)


async def series(pages: ExporterPages) -> dict[str, float]:
    pytest.importorskip("prometheus_client", reason="the extra `metrics`")
    lines = (await pages.page("/metrics")).body.decode().splitlines()
    pairs = (line.rpartition(" ") for line in lines if line.startswith("backpack_"))
    return {name: float(value) for name, _, value in pairs}


async def test_page_has_all_metrics_despite_data_of_other_programs(
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
        written["e"] = json.dumps({"redis_us": 10**400})
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


async def test_exporter_reports_an_unavailable_shard_and_counts_the_others(
    redis_url: str,
) -> None:
    space = KeySpace("{b}:", 2)
    async with client(redis_url) as live, client("redis://127.0.0.1:1/0") as dead:
        for name in ("trade.JUP_USDC", "trade.ETH_USDC"):  # of shard 0, and of shard 1
            await live.hset(space.key("bridge:streams"), name, "{}")
            await live.xadd(space.key(name), {"type": "trade"}, id="5-1")
            await live.xgroup_create(space.key(name), "mine", id="0")
        result = [
            await series(
                ExporterPages(ShardedRedis(both, ["b.0", "b.1"]), Keys(space), per_stream=False)
            )
            for both in ([live, live], [live, dead], [dead, live])
        ]

    lags = [each.get('backpack_group_lag_entries{group="mine"}') for each in result]
    assert lags == [2, 1, 1]
    for shard, up in ((0, [1, 1, 0]), (1, [1, 0, 1])):
        assert [each[f'backpack_exporter_shard_up{{shard="{shard}"}}'] for each in result] == up
    assert {each["backpack_exporter_redis_up"] for each in result} == {1}
    assert min(each["backpack_redis_memory_used_bytes"] for each in result) > 0


async def test_exporter_without_the_first_shard_omits_workers_and_counts_nothing_twice(
    redis_url: str,
) -> None:
    space = KeySpace("{b}:", 2)
    stream = "trade.ETH_USDC"  # of shard 1
    async with client(redis_url) as live, client("redis://127.0.0.1:1/0") as dead:
        seconds, _ = await live.time()
        await live.hset(space.key("bridge:streams"), stream, "{}")
        await live.xadd(space.key(stream), {"type": "trade"}, id="5-1")
        await live.xgroup_create(space.key(stream), "mine", id="0")
        await live.hset(space.key("consumers:groups"), "mine", '{"mode": "shared"}')
        status = {
            "group": "mine", "consumer": "w", "updated_us": seconds * 1_000_000, "handled": 5,
            "failed": 0, "retried": 0, "late": 0, "undecodable": 0, "rate": 2.5, "streams": {},
            "latencies": {"counts": [5] + [0] * len(BOUNDS_US), "sum_us": 50},
        }  # fmt: skip
        await live.hset(space.key("consumers:status"), "mine/w", json.dumps(status))
        await live.hset(Keys(space).settled(stream, "mine"), "base", "0")
        sharded = ShardedRedis([live, live], ["b.0", "b.1"])
        pages = ExporterPages(sharded, Keys(space), per_stream=False)
        result = [await series(pages)]
        for first in (dead, live):
            sharded.shards = [first, live]
            result.append(await series(pages))
        ready = await pages.page("/readyz")

    workers = [each.get('backpack_group_workers{group="mine"}') for each in result]
    assert workers == [0, None, 0]
    dead_letters = [each.get('backpack_group_dead_letters{group="mine"}') for each in result]
    assert dead_letters == [0, 0, 0]  # the kit's keys show the group's kind
    handled = [each.get('backpack_group_handled_seconds_count{group="mine"}') for each in result]
    assert handled == [0, 0, 0]
    assert ready.status.value == 200


async def test_a_shard_that_hangs_is_waited_for_once(redis_url: str) -> None:
    space, reached = KeySpace("{b}:", 2), 0

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal reached
        reached += 1
        await reader.read()
        writer.close()

    async with await asyncio.start_server(hang, "127.0.0.1", 0) as server:
        url = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
        hanging = connect(url, name="test", decode_responses=True, command_timeout_s=0.2)
        async with client(redis_url) as live, hanging:
            sharded = ShardedRedis([hanging, live], ["b.0", "b.1"])
            found = await series(ExporterPages(sharded, Keys(space), per_stream=False))

    assert reached == 1
    assert found['backpack_exporter_shard_up{shard="0"}'] == 0
    assert found["backpack_exporter_redis_up"] == 1


async def test_exporter_without_redis_is_alive_not_ready_and_has_no_counts() -> None:
    async with client("redis://127.0.0.1:1/0") as redis:
        pages = ExporterPages(redis, Keys(), per_stream=False)

        ready = await pages.page("/readyz")

        assert (await pages.page("/healthz")).status.value == 200
        assert ready.status.value == 503
        assert json.loads(ready.body)["reasons"][0]["reason"] == "redis_unavailable"
        assert await series(pages) == {"backpack_exporter_redis_up": 0}


@pytest.mark.parametrize("more", [(), ("--per-stream",)])
async def test_exporter_command_serves_the_pages_until_stopped(
    redis_url: str, tmp_path: Path, more: tuple[str, ...]
) -> None:
    pytest.importorskip("prometheus_client", reason="the extra `metrics`")
    async with client(redis_url) as redis:
        await redis.hset("bridge:streams", STREAM, "{}")
        await redis.xadd(STREAM, {"type": "trade"}, id="5-1")
        await redis.xgroup_create(STREAM, "mine", id="0")
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = warm.Process(
            [sys.executable, "-m", "consumers", "exporter", "--listen", "127.0.0.1:0", *more],
            cwd=tmp_path, env=environment(redis_url), stdout=output, stderr=output,
        )  # fmt: skip
    try:
        await eventually_async(lambda: serves(log.read_text()), "the exporter serves")
        pages = ProcessPages(log.read_text())
        found = pages.series()
        assert pages.is_alive()
        assert pages.is_ready()
    finally:
        process.terminate()
        assert process.wait(60) == 0
    assert found['backpack_group_lag_entries{group="mine"}'] == 1
    by_stream = 'backpack_group_stream_lag_entries{group="mine",stream="trade.SOL_USDC"}'
    assert found.get(by_stream) == (1 if more else None)


def test_exporter_without_its_extra_names_the_package(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, redis_url: str
) -> None:
    monkeypatch.setattr(exposition, "find_spec", lambda _: None)
    done = run_here(tmp_path, redis_url, "exporter")
    assert done.returncode == 2
    assert "pip install 'backpack-bridge[metrics]'" in done.stderr


@pytest.mark.parametrize("command", ["hgetall", "zrange", "evalsha", "info"])
async def test_a_command_that_the_user_may_not_run_is_named_on_the_page_and_in_the_log_once(
    command: str, redis_url: str
) -> None:
    refusal = f"no permissions to run the '{command}' command"
    async with client(redis_url) as redis:
        await redis.hset("bridge:streams", STREAM, "{}")
        await redis.xadd(STREAM, {"type": "trade"}, id="1700000000000-1")
        await redis.xgroup_create(STREAM, "mine", id="0")
        await redis.hset("consumers:groups", "mine", '{"mode": "shared"}')
        status = {
            "group": "mine", "consumer": "w", "updated_us": 1_700_000_000_000_000, "handled": 5,
            "failed": 0, "retried": 0, "late": 0, "undecodable": 0, "rate": 2.5, "streams": {},
        }  # fmt: skip
        await redis.hset("consumers:status", "mine/w", json.dumps(status))
        await redis.execute_command(*without(command))
        async with client(as_limited(redis_url)) as limited:
            pages = ExporterPages(limited, Keys(), per_stream=False)
            with capture_logs() as logs:
                for _ in range(2):
                    ready = await pages.page("/readyz")
                    assert ready.status.value == 503
                    assert refusal in ready.body.decode()
                await redis.execute_command(*without(""))
                assert (await pages.page("/readyz")).status.value == 200
    assert [one["event"] for one in logs] == ["redis_unavailable", "redis_connected"]
    assert refusal in logs[0]["error"]
