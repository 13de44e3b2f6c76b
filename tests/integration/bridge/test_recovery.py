"""Gaps and a book that does not change, recovered over REST through real sockets."""

import asyncio
import json
import subprocess
from pathlib import Path

import redis

from tests.integration.bridge.test_connections import (
    address,
    causes,
    client_of,
    goes_on_without_an_unnamed_gap,
    levels,
    own,
    passed,
    statistics,
)
from tests.support import frames, truth
from tests.support.bridge_process import run_bridge
from tests.support.bridge_run import DEMO_KEYS, entries, running_bridge
from tests.support.eventually import eventually_async
from tests.support.proxy import running_proxy
from tests.support.simulator_process import running_simulator

TRADES, DEPTH = "trade.SOL_USDC_PERP", "depth.SOL_USDC_PERP"
BTC_TRADES = "trade.BTC_USDC"
QUIET = "depth.SOL_USDC"
ORDERS = "account.orderUpdate"


def fetched(client: redis.Redis, stream: str) -> list[int]:
    return [int(f["trade_id"]) for f in own(client, stream, "trade") if f["source"] == "rest"]


def without_ids(stored: list[tuple[str, dict[str, str]]]) -> list[dict[str, str]]:
    return [fields for _, fields in stored]


def quiet_replies(folder: Path) -> int:
    """The number of replies about the quiet book in the journal."""
    segments = (folder / "data" / "journal").glob("*.journal")
    return sum(segment.read_bytes().count(f" R 0 {QUIET} ".encode()) for segment in segments)


async def test_replay_recovers_the_same_and_requests_nothing(
    tmp_path: Path, redis_url: str
) -> None:
    client = client_of(redis_url)
    streams = [TRADES, DEPTH, BTC_TRADES]
    async with (
        running_simulator("--rate", "500") as exchange,
        running_proxy(*address(exchange.ws_url)) as proxy,
        running_bridge(tmp_path, f"ws://127.0.0.1:{proxy.port}", redis_url, streams) as bridge,
    ):
        await eventually_async(
            lambda: own(client, DEPTH, "depth_snapshot"), "the stream has a snapshot"
        )
        for stream in (TRADES, BTC_TRADES):
            await eventually_async(lambda stream=stream: own(client, stream, "trade"), stream)
        for _ in range(2):
            before = {stream: len(fetched(client, stream)) for stream in (TRADES, BTC_TRADES)}
            proxy.refuses = True
            proxy.cut()
            await passed(exchange, {TRADES: 20, BTC_TRADES: 3})
            proxy.refuses = False
            for stream in (TRADES, BTC_TRADES):
                await eventually_async(
                    lambda stream=stream, least=before[stream]: (
                        len(fetched(client, stream)) > least
                    ),
                    f"trades of {stream} are fetched",
                    45,
                )
        assert await bridge.stop() == 0
    live = {stream: entries(client, stream) for stream in streams}
    logged = entries(client, "bridge:gaps")

    done = await asyncio.to_thread(
        run_bridge, tmp_path, "replay", "data/journal",
        BRIDGE_REDIS__URL=redis_url, BRIDGE_REDIS__KEY_PREFIX="again:",
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    for stream in streams:
        assert entries(client, f"again:{stream}") == live[stream]
        assert goes_on_without_an_unnamed_gap(live[stream])
        assert causes(client, stream)[0] == "start"
    assert {json.dumps(x) for x in without_ids(entries(client, "again:bridge:gaps"))} == {
        json.dumps(x) for x in without_ids(logged)
    }
    recovered = [f for f in without_ids(logged) if f["stream"].startswith("trade.")]
    assert {(f["recovered"], f["how"]) for f in recovered} == {("true", "history")}


async def test_book_without_changes_gets_a_snapshot(tmp_path: Path, redis_url: str) -> None:
    client = client_of(redis_url)
    async with (
        running_simulator("--events", "0") as exchange,
        running_bridge(tmp_path, exchange.ws_url, redis_url, [QUIET]) as bridge,
    ):
        await eventually_async(
            lambda: own(client, QUIET, "depth_snapshot"), "the quiet stream has a snapshot"
        )
        truth = await statistics(exchange, "book", symbol="SOL_USDC")
        assert await bridge.stop() == 0
        async with running_bridge(tmp_path, exchange.ws_url, redis_url, [QUIET]) as bridge:
            await eventually_async(
                lambda: quiet_replies(tmp_path) == 4, "the bridge has requested the book twice more"
            )
            assert await bridge.stop() == 0

    start, snapshot = entries(client, QUIET)
    assert start[1]["cause"] == "start"
    assert int(snapshot[1]["update_id"]) == int(truth["u"])
    for side in ("bids", "asks"):
        assert levels(json.loads(snapshot[1][side])) == levels(truth[side])
    assert client.xlen("bridge:gaps") == 0


async def test_missed_fills_are_fetched_from_history_once(tmp_path: Path, redis_url: str) -> None:
    client = client_of(redis_url)
    ledger = tmp_path / "ledger.jsonl"
    async with (
        running_simulator("--rate", "500", ledger=ledger) as exchange,
        running_proxy(*address(exchange.ws_url)) as proxy,
        running_bridge(
            tmp_path, f"ws://127.0.0.1:{proxy.port}", redis_url, [ORDERS]
        ) as bridge,
    ):  # fmt: skip
        await eventually_async(
            lambda: own(client, ORDERS, "orders_snapshot"), "the stream has its first snapshot"
        )
        await eventually_async(lambda: fills(client), "a fill is received")
        for turn in (1, 2):
            proxy.refuses = True
            proxy.cut()
            await eventually_async(lambda: missed_fills(ledger, client) > 2, "fills are missed", 40)
            proxy.refuses = False
            await eventually_async(
                lambda turn=turn: len(own(client, ORDERS, "orders_snapshot")) > turn,
                "a snapshot follows the reconnect",
            )
        received = len(fills(client))
        await eventually_async(lambda: len(fills(client)) > received, "more fills are published")
        exchange.stop()
        await eventually_async(lambda: missed_fills(ledger, client) == 0, "no fill is missing")
        assert await bridge.stop() == 0

    recovered = fills(client)
    assert len(recovered) == len({(f["symbol"], f["trade_id"], f["order_id"]) for f in recovered})
    assert {f["source"] for f in recovered} == {"", "rest"}
    types = [fields["type"] for _, fields in entries(client, ORDERS)]
    fetched_at = [n for n, f in enumerate(entries(client, ORDERS)) if f[1].get("source") == "rest"]
    assert "gap" in types[: fetched_at[0]]
    assert "orders_snapshot" in types[fetched_at[-1] :]


async def test_deleted_key_is_backfilled_while_other_streams_continue(
    tmp_path: Path, redis_url: str
) -> None:
    client = client_of(redis_url)
    async with (
        running_simulator("--rate", "500") as exchange,
        running_bridge(tmp_path, exchange.ws_url, redis_url, [TRADES, DEPTH]) as bridge,
    ):
        await eventually_async(lambda: client.xlen(TRADES) > 30, "trades are published")
        before = entries(client, TRADES)
        client.delete(TRADES)
        await eventually_async(
            lambda: "streams_backfilled" in bridge.log(), "the log has streams_backfilled"
        )
        await eventually_async(
            lambda: client.xlen(TRADES) > len(before), "more trades are published"
        )
        assert await bridge.stop() == 0
        assert "journal_caught_up" not in bridge.log().partition("redis_lost_entries")[2]

    stored = entries(client, TRADES)
    assert stored[: len(before)][1:] == before[1:]
    assert causes(client, TRADES) == ["redis lost entries"]
    assert goes_on_without_an_unnamed_gap(stored)
    assert set(causes(client, DEPTH)) == {"start"}


def fills(client: redis.Redis) -> list[dict[str, str]]:
    return own(client, ORDERS, "orderFill")


def missed_fills(ledger: Path, client: redis.Redis) -> int:
    """The number of the account's fills since the first received one that the stream lacks."""
    stored = fills(client)
    there = {(f["symbol"], int(f["trade_id"]), f["order_id"]) for f in stored}
    datas = [
        line["frame"]["data"]
        for line in truth.read_ledger(ledger)
        if line.get("account") == DEMO_KEYS["PUBLIC_KEY"]
    ]
    since_us = int(stored[0]["engine_us"])
    made = {
        (d["s"], d["t"], d["i"]) for d in datas if d.get("e") == "orderFill" and d["T"] >= since_us
    }
    return len(made - there)


def journal_of(folder: Path, *lines: str) -> Path:
    """Write a journal of these lines, an account, and four trades, one per second from 03:12:11."""
    names = json.dumps(["trade.BTC_USDC_PERP", ORDERS, QUIET])
    head = f'1790910730000000 O 1 {{"name":"public-1","streams":{names}}}'
    trades = [
        f"{1790910731000000 + n * 1_000_000} F 1 "
        + frames.TRADE.replace("99419870", str(99419870 + n)).replace(
            "1790915531025000", str(1790910731000000 + n * 1_000_000)
        )
        for n in range(4)
    ]
    folder.mkdir(parents=True)
    (folder / "00000000000000000000.journal").write_text("\n".join([head, *lines, *trades, ""]))
    owner = {"exchange": "wss://ws.backpack.exchange", "account": "somebody"}
    (folder / "owner.json").write_text(json.dumps(owner))
    return folder


def replayed(folder: Path, redis_url: str, *options: str) -> subprocess.CompletedProcess[str]:
    return run_bridge(folder.parent, "replay", str(folder), *options, BRIDGE_REDIS__URL=redis_url)


def test_replay_of_an_interval_publishes_nothing_else(tmp_path: Path, redis_url: str) -> None:
    client = client_of(redis_url)
    before = "1790910730500000 R 0 account.orderUpdate []"
    folder = journal_of(tmp_path / "journal", before)

    done = replayed(
        folder, redis_url, "--from", "2026-10-02T03:12:12", "--to", "2026-10-02T03:12:14"
    )

    assert done.returncode == 0, done.stderr
    stored = [f for _, f in entries(client, "trade.BTC_USDC_PERP")]
    assert [f.get("trade_id") for f in stored if f["type"] == "trade"] == ["99419871", "99419872"]
    assert client.exists(ORDERS) == 0
    whole = replayed(folder, redis_url)
    assert whole.returncode == 0
    assert client.xlen(ORDERS) == 1


def test_a_replay_that_could_not_write_a_stream_reports_it(tmp_path: Path, redis_url: str) -> None:
    client = client_of(redis_url)
    client.set("trade.BTC_USDC_PERP", "somebody else's")
    folder = journal_of(tmp_path / "journal")

    done = replayed(folder, redis_url)

    assert done.returncode == 1
    assert "trade.BTC_USDC_PERP could not be written: WRONGTYPE" in done.stderr
