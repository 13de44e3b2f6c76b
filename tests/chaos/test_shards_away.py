"""Many shards of a Cluster with one node unavailable: its streams wait, all others continue."""

import asyncio
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from bridge.contract.streams import parse_stream
from bridge.errors import Fatal
from bridge.journal.log import Log
from bridge.journal.segments import SegmentWriter
from bridge.redis.registry import describe
from bridge.redis.resharding import Resharding
from bridge.runtime.keyspace import KeySpace
from bridge.runtime.redis_client import connect, connect_blocking
from bridge.runtime.redis_url import with_tag
from tests.support.command import run_bridge
from tests.support.eventually import eventually_async
from tests.support.publisher_rig import Rig, all_trades, running
from tests.support.redis_sets import Cluster, running_cluster
from tests.support.set_run import OF_FOUR_SHARDS

NAMES = [f"trade.{market}" for market in OF_FOUR_SHARDS]
BUFFER_BYTES = 1_000_000


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with running_cluster(primaries=4, replicas=0) as nodes:
        yield nodes


@pytest.mark.parametrize("away", [0, 2])
async def test_a_shard_whose_node_is_unavailable_waits_in_the_journal_and_the_others_continue(
    away: int, cluster: Cluster, tmp_path: Path
) -> None:
    space = KeySpace(f"{{away{away}}}:", 4)  # a prefix that no other test uses
    owner = cluster.at(space.prefix_of(away)).owner()
    others = [name for number, name in enumerate(NAMES) if number != away]
    writer = SegmentWriter(tmp_path, 10_000_000)
    log = Log(writer, tail_limit_bytes=1_000_000, clock_us=lambda: time.time_ns() // 1000)
    rig = Rig(
        cluster.url,
        names=NAMES,
        prefix=space.prefix,
        shards=space.shards,
        timeout_s=1,
        journal=log,
        buffer_bytes=BUFFER_BYTES,
    )
    async with running(rig):
        rig.trades_of(OF_FOUR_SHARDS, 50)
        await rig.settled()
        owner.pause()
        with capture_logs() as lines:
            while "shard_left_to_the_journal" not in {line["event"] for line in lines}:
                rig.trades_of(OF_FOUR_SHARDS, 10)
                await _until(others, rig)
                assert rig.table.pending_bytes() < BUFFER_BYTES
        assert {line["shard"] for line in lines if line["event"] == "redis_unavailable"} == {away}
        assert f"shard {away} at 127.0.0.1:{owner.port}" in rig.shards.trouble
        owner.resume()
        rig.trades_of(OF_FOUR_SHARDS, 50)
        while min(map(len, await asyncio.to_thread(_trades, cluster, space))) < rig.sent:
            await _until(NAMES, rig)  # also backfilled trades, once they are in a queue
    writer.close()
    assert _trades(cluster, space) == [all_trades(rig.sent)] * len(NAMES)


async def _until(names: Sequence[str], rig: Rig) -> None:
    """Wait until Redis has all trades of these streams."""

    def are_there() -> bool:
        rig.read_journal()
        rig.publisher.pump()
        queues = [rig.queue(name) for name in names]
        return rig.ingest.is_live and not any(queue.slots or queue.is_suspended for queue in queues)

    await eventually_async(are_there, "all trades are in Redis")


def _trades(cluster: Cluster, space: KeySpace) -> list[list[int]]:
    url = with_tag(cluster.url, space.prefix, space.shards)
    with connect_blocking(url, name="judge") as client:
        return [
            [int(fields["trade_id"]) for _, fields in entries if fields["type"] == "trade"]
            for entries in (client.xrange(space.key(name)) for name in NAMES)  # type: ignore[union-attr]
        ]


async def test_resharding_copies_whole_streams_and_refuses_those_that_have_changed_since(
    cluster: Cluster,
) -> None:
    before, after = KeySpace("{re}:", 1), KeySpace("{re}:", 4)
    name, beside = "trade.SOL_USDC", "consumers:trade.SOL_USDC:g:dead"
    joined = "consumers:joined.SOL_USDC:g:state"
    place = "consumers:trade.SOL_USDC:g:position"
    async with (
        connect(with_tag(cluster.url, before.prefix, 1), name="x") as old,
        connect(with_tag(cluster.url, after.prefix, 4), name="x") as new,
    ):
        await old.xadd(before.key(name), {"a": "b"}, "5-1")
        await old.xgroup_create(before.key(name), "g", "0")
        await old.xreadgroup("g", "c", {before.key(name): ">"})
        await old.xadd(before.key(beside), {"a": "b"}, "7-1")
        for key in (joined, place):
            await old.hset(before.key(key), "id", "5-1")
        await old.hset(before.key("bridge:streams"), name, describe(parse_stream(name), "old"))
        resharding = Resharding(old, before, new, after)
        moves = await resharding.plan()
        assert {move.new for move in moves} == {
            "{re.0}:bridge:streams",
            *(f"{{re.3}}:{one}" for one in (name, beside, joined, place)),
        }
        with pytest.raises(Fatal, match="copy it first"):
            await resharding.delete_old(moves)
        assert await resharding.copy(moves) == await resharding.copy(moves) == 5
        assert await new.xrange(after.key(name)) == [(b"5-1", {b"a": b"b"})]
        assert (await new.xpending(after.key(name), "g"))["pending"] == 1
        line = await new.hget(after.key("bridge:streams"), name)
        assert json.loads(line)["key"] == after.key(name)
        await new.xadd(after.key(name), {"a": "c"}, "6-1")
        with pytest.raises(Fatal, match=r"ends at 6-1, behind .* a bridge has published there"):
            await resharding.copy(moves)
        assert await new.xlen(after.key(name)) == 2
        assert await resharding.delete_old(moves) == 5
        assert await resharding.plan() == []


async def test_resharding_refuses_while_a_bridge_or_a_worker_runs(
    cluster: Cluster, tmp_path: Path
) -> None:
    after = KeySpace("{busy}:", 4)

    def reshard() -> tuple[int, str]:
        variables = {"BRIDGE_REDIS__SHARDS": "4", "BRIDGE_REDIS__KEY_PREFIX": after.prefix}
        done = run_bridge(tmp_path, cluster.url, "reshard", "--from", "1", **variables)
        return done.returncode, done.stderr

    async with connect(with_tag(cluster.url, "{busy}:", 1), name="x") as old:
        seconds, micros = await old.time()
        now_us = seconds * 1_000_000 + micros
        bridge = {"instance": "still", "updated_us": now_us, "redis_us": now_us}
        await old.hset("{busy}:bridge:status", "still", json.dumps(bridge))
        code, output = await asyncio.to_thread(reshard)
        assert (code, "stop these first" in output, "'still'" in output) == (1, True, True)
        stopped = {**bridge, "stopped_us": now_us}
        await old.hset("{busy}:bridge:status", "still", json.dumps(stopped))
        worker = {"group": "g", "consumer": "busy", "updated_us": now_us}
        await old.hset("{busy}:consumers:status", "g/busy", json.dumps(worker))
        await old.zadd("{busy}:consumers:workers:g", {"busy": now_us // 1000})
        code, output = await asyncio.to_thread(reshard)
        assert (code, "'g/busy'" in output, "'still'" in output) == (1, True, False)
        await old.delete("{busy}:consumers:workers:g", "{busy}:consumers:status")
        assert await asyncio.to_thread(reshard) == (0, "")
        assert await old.exists("{busy}:bridge:status")  # the old keys are kept


async def test_resharding_refuses_joined_streams_that_would_be_apart(cluster: Cluster) -> None:
    before, after = KeySpace("{joined}:", 1), KeySpace("{joined}:", 4)
    async with (
        connect(with_tag(cluster.url, before.prefix, 1), name="x") as old,
        connect(with_tag(cluster.url, after.prefix, 4), name="x") as new,
    ):
        for market in OF_FOUR_SHARDS:
            await old.hset(before.key(f"consumers:trade.{market}:g:position"), "id", "5-1")
        await old.hset(before.key("consumers:joined.all:g:state"), "a", "1")
        with pytest.raises(Fatal, match="group g joins as 'all' streams that would be in 4 shards"):
            await Resharding(old, before, new, after).plan()
