"""Holes and books that do not move, through real sockets: mended over REST, noted in the ledger."""

import asyncio
import json
from pathlib import Path

import redis

from tests.integration.bridge.test_connections import (
    address,
    causes,
    client_of,
    goes_on_without_an_unnamed_hole,
    levels,
    own,
    passed,
    told,
)
from tests.support.bridge_process import run_bridge
from tests.support.bridge_run import entries, running_bridge
from tests.support.eventually import eventually_async
from tests.support.proxy import running_proxy
from tests.support.simulator_process import running_simulator

TRADES, DEPTH = "trade.SOL_USDC_PERP", "depth.SOL_USDC_PERP"
QUIET = "depth.SOL_USDC"


def fetched(client: redis.Redis, stream: str) -> list[int]:
    return [int(f["trade_id"]) for f in own(client, stream, "trade") if f["source"] == "rest"]


def without_ids(stored: list[tuple[str, dict[str, str]]]) -> list[dict[str, str]]:
    return [fields for _, fields in stored]


def asked(folder: Path) -> int:
    """How many replies about the quiet book are in the journal."""
    segments = (folder / "data" / "journal").glob("*.journal")
    return sum(segment.read_bytes().count(f" R 0 {QUIET} ".encode()) for segment in segments)


async def test_a_replay_mends_the_same_and_asks_nobody(tmp_path: Path, redis_url: str) -> None:
    client = client_of(redis_url)
    streams = [TRADES, DEPTH, "trade.BTC_USDC"]
    async with (
        running_simulator("--rate", "500") as exchange,
        running_proxy(*address(exchange.ws_url)) as proxy,
        running_bridge(tmp_path, f"ws://127.0.0.1:{proxy.port}", redis_url, streams) as bridge,
    ):
        await eventually_async(lambda: own(client, DEPTH, "depth_snapshot"), "a book")
        for _ in range(2):
            before = len(fetched(client, TRADES)) + len(fetched(client, "trade.BTC_USDC"))
            proxy.cut()
            await passed(exchange, {TRADES: 20, "trade.BTC_USDC": 3})
            await eventually_async(
                lambda before=before: (
                    len(fetched(client, TRADES)) + len(fetched(client, "trade.BTC_USDC")) > before
                ),
                "trades are fetched",
            )
        assert await bridge.stop() == 0
    live = {stream: entries(client, stream) for stream in streams}
    ledger = entries(client, "bridge:gaps")

    done = await asyncio.to_thread(
        run_bridge, tmp_path, "replay", "data/journal",
        BRIDGE_REDIS__URL=redis_url, BRIDGE_REDIS__KEY_PREFIX="again:",
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    for stream in streams:
        assert entries(client, f"again:{stream}") == live[stream]
        assert goes_on_without_an_unnamed_hole(live[stream])
        assert causes(client, stream)[0] == "start"
    assert {json.dumps(x) for x in without_ids(entries(client, "again:bridge:gaps"))} == {
        json.dumps(x) for x in without_ids(ledger)
    }
    assert {f["repaired"] for f in without_ids(ledger) if f["stream"] == TRADES} == {"true"}


async def test_a_book_that_never_moves_is_known_all_the_same(
    tmp_path: Path, redis_url: str
) -> None:
    client = client_of(redis_url)
    async with (
        running_simulator("--events", "0") as exchange,
        running_bridge(tmp_path, exchange.ws_url, redis_url, [QUIET]) as bridge,
    ):
        await eventually_async(lambda: own(client, QUIET, "depth_snapshot"), "its book")
        truth = await told(exchange, "book", symbol="SOL_USDC")
        assert await bridge.stop() == 0
        async with running_bridge(tmp_path, exchange.ws_url, redis_url, [QUIET]) as bridge:
            await eventually_async(lambda: asked(tmp_path) == 4, "it has asked twice again")
            assert await bridge.stop() == 0

    start, snapshot = entries(client, QUIET)
    assert start[1]["cause"] == "start"
    assert int(snapshot[1]["update_id"]) == int(truth["u"])
    for side in ("bids", "asks"):
        assert levels(json.loads(snapshot[1][side])) == levels(truth[side])
    assert client.xlen("bridge:gaps") == 0
