"""Many shards of a Cluster: moving slots, an unavailable node, an added node.

A bridge, consumers of both modes and dead letters run meanwhile; the verdict is from the exchange's
ledger.
"""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from bridge.runtime.keyspace import KeySpace
from tests.support.bridge_run import running_bridge
from tests.support.command import run_bridge
from tests.support.eventually import eventually_async
from tests.support.redis_sets import Cluster, running_cluster
from tests.support.set_run import (
    KEPT,
    OF_FOUR_SHARDS,
    SetRun,
    running_clients,
    running_on,
    streams_of,
)
from tests.support.simulator_process import running_simulator

LIMIT_S = 400
QUICK = 2000  # messages a second
RATE = 500
AWAY_S = 60.0
KEYS_AT_ONCE = 2
SPACE = KeySpace("{bridge}:", 4)
UNAVAILABLE = 2  # the shard whose node becomes unavailable


@pytest.mark.timeout(LIMIT_S)
async def test_nothing_is_lost_or_duplicated_while_slots_move_to_a_node_that_is_added(
    tmp_path: Path,
) -> None:
    with running_cluster(primaries=3, replicas=0, prefix=SPACE.prefix_of(UNAVAILABLE)) as cluster:
        async with running_on(cluster, tmp_path, QUICK, space=SPACE, markets=OF_FOUR_SHARDS) as run:
            added = await asyncio.to_thread(cluster.add_node)
            for _ in range(2):
                source, target = await asyncio.to_thread(cluster.begin_move, added)
                while await asyncio.to_thread(cluster.move_keys, source, target, KEYS_AT_ONCE):
                    await asyncio.sleep(0.05)
                await asyncio.to_thread(cluster.end_move, source, target)
                await run.grows(2000)
                added = source
            assert await run.flaws() == []


@pytest.mark.timeout(LIMIT_S)
@pytest.mark.parametrize(("away", "bridges"), [(0, 2), (UNAVAILABLE, 1)])
async def test_streams_of_other_shards_continue_while_a_node_is_unavailable(
    away: int, bridges: int, tmp_path: Path
) -> None:
    with running_cluster(primaries=4, replicas=0, prefix=SPACE.prefix_of(away)) as cluster:
        async with running_on(
            cluster, tmp_path, QUICK, bridges, space=SPACE, markets=OF_FOUR_SHARDS
        ) as run:
            others = [market for n, market in enumerate(OF_FOUR_SHARDS) if n != away]
            owner = cluster.owner()
            owner.pause()
            over_s = asyncio.get_running_loop().time() + AWAY_S
            while asyncio.get_running_loop().time() < over_s:
                await run.grows(2000, others)
            owner.resume()
            await run.grows(2000, [OF_FOUR_SHARDS[away]])
            assert await run.flaws() == []


@pytest.mark.timeout(LIMIT_S)
async def test_bridges_that_start_while_the_first_shard_is_unavailable_publish_to_the_others(
    tmp_path: Path,
) -> None:
    ledger = tmp_path / "ledger.jsonl"
    listed = [word for name in OF_FOUR_SHARDS for word in ("--market", name)]
    others = OF_FOUR_SHARDS[1:]
    # content streams: one bridge publishes each
    tickers = [f"bookTicker.{market}" for market in others]
    with running_cluster(primaries=4, replicas=0, prefix=SPACE.prefix_of(0)) as cluster:
        owner = cluster.owner()
        redis = {"url": cluster.url, "shards": 4, "connect_timeout_s": 1, "command_timeout_s": 3}
        async with (
            running_simulator("--rate", str(RATE), *listed, ledger=ledger) as exchange,
            AsyncExitStack() as stack,
        ):
            owner.pause()
            bridges = [
                await stack.enter_async_context(
                    running_bridge(
                        tmp_path / name,
                        exchange.ws_url,
                        cluster.url,
                        [*streams_of(OF_FOUR_SHARDS), *tickers],
                        instance=name,
                        status_url=owner.url,
                        redis=redis,
                        retention={"trade": KEPT, "depth": KEPT},
                        slow_groups={"wait_for": ["shared"]},
                    )
                )
                for name in ("a", "b")
            ]
            run = SetRun(cluster, SPACE, OF_FOUR_SHARDS, exchange, bridges, [], ledger)
            await run.grows(2000, others)
            there = [await asyncio.to_thread(run.length, [name]) for name in tickers]
            owner.resume()
            await run.grows(500)
            assert min(there) > 0
            await eventually_async(
                lambda: _is_at_all(cluster, "bridge:a:trimming"),
                "the trimming connection reaches every node",
            )
            # Each stream begins where the first bridge that published it began to receive.
            assert await run.flaws(had_stopped=True) == []
            assert "other_bridges_unknown" in bridges[0].log()


def _is_at_all(cluster: Cluster, name: str) -> bool:
    """Whether a client of this name is connected to every node."""
    for server in cluster.servers:
        with server.client() as client:
            if name not in {each["name"] for each in client.client_list()}:
                return False
    return True


@pytest.mark.timeout(LIMIT_S)
async def test_another_number_of_shards_loses_and_duplicates_nothing(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.jsonl"
    listed = [word for name in OF_FOUR_SHARDS for word in ("--market", name)]
    with running_cluster(primaries=4, replicas=0) as cluster:
        async with running_simulator("--rate", str(RATE), *listed, ledger=ledger) as exchange:
            for before, shards in ((0, 1), (1, 4), (4, 8)):
                if before:
                    await asyncio.to_thread(_reshard, tmp_path, cluster.url, before, shards)
                space = KeySpace("{bridge}:", shards)
                async with running_clients(
                    cluster, exchange, ledger, tmp_path, space=space, markets=OF_FOUR_SHARDS
                ) as run:
                    await run.grows(2000)
                    if shards < 8:
                        await run.stop()
                    else:
                        assert await run.flaws(had_stopped=True) == []


def _reshard(folder: Path, url: str, before: int, shards: int) -> None:
    for more in ((), ("--delete-old",)):
        done = run_bridge(
            folder, url, "reshard", "--from", str(before), *more, BRIDGE_REDIS__SHARDS=str(shards)
        )
        assert done.returncode == 0, done.stderr
