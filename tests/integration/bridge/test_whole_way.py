"""Exchange, bridge, Redis and consumers, each in a process, at 2,000 messages a second.

The consumers' results are compared with the exchange's own books, candles and account.
`WHOLE_WAY_S` makes the run longer (default: a few seconds).
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from decimal import Decimal
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import pytest
import redis

from tests.support import plain_http, truth, warm
from tests.support.bridge_run import (
    ACCOUNT_STREAMS,
    DEMO_KEYS,
    ROOT,
    entries,
    running_bridge,
)
from tests.support.eventually import eventually_async
from tests.support.process_pages import ProcessPages
from tests.support.redis_server import free_port
from tests.support.simulator_process import RunningSimulator, running_simulator

SECONDS = int(os.environ.get("WHOLE_WAY_S", "5"))
RATE = 2_000
MARKETS = ("SOL_USDC", "BTC_USDC", "ETH_USDC", "SOL_USDC_PERP")
STREAMS: Sequence[object] = (
    {"types": ["trade", "depth", "bookTicker", "kline.1s"], "markets": list(MARKETS)},
    *ACCOUNT_STREAMS,
)
WORKERS = (
    ("candles", "--option", "intervals=1s"),
    ("candles", "--option", "intervals=1s"),
    ("book", "--option", "check_s=1"),
    ("book", "--option", "check_s=1"),
    ("orders",),
)
TIMEOUT_S = SECONDS + 120


@contextmanager
def workers(folder: Path, redis_url: str) -> Iterator[None]:
    """All consumers, each in its own process, until the block ends."""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    environment["BRIDGE_REDIS__URL"] = redis_url
    processes = []
    for number, (name, *options) in enumerate(WORKERS):
        with (folder / f"{name}-{number}.log").open("wb") as log:
            processes.append(
                warm.Process(
                    [sys.executable, "-m", "consumers", "run", name, *options],
                    cwd=folder,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )
            )
    try:
        yield
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(60)


async def get_json(exchange: RunningSimulator, path: str, **params: str) -> Any:
    async with plain_http.client(exchange.rest_url) as client:
        return (await client.get(path, params=params)).json()


def has_caught_up(client: redis.Redis, stream: str, group: str) -> bool:
    """Whether the group was delivered the stream's last entry."""
    last = cast("Any", client.xinfo_stream(stream))["last-generated-id"]
    groups = cast("Any", client.xinfo_groups(stream))
    return any(each["name"] == group and each["last-delivered-id"] == last for each in groups)


async def all_through(client: redis.Redis, sent: Mapping[str, Sequence[Any]]) -> None:
    await eventually_async(
        lambda: all(
            len(truth.messages(entries(client, stream))) >= len(frames)
            for stream, frames in sent.items()
        ),
        "all sent messages are in Redis",
        60,
    )
    for group, kinds in (
        ("book", ("depth.",)),
        ("candles", ("trade.",)),
        ("orders", ("account.orderUpdate", "account.positionUpdate", "account.balanceUpdate")),
    ):
        for stream in sent:
            if stream.startswith(kinds):
                await eventually_async(
                    lambda stream=stream, group=group: has_caught_up(client, stream, group),
                    f"{group} has handled all of {stream}",
                    60,
                )


@pytest.mark.timeout(TIMEOUT_S)
async def test_consumer_results_equal_the_exchanges_data(tmp_path: Path, redis_url: str) -> None:
    client = redis.Redis.from_url(redis_url, decode_responses=True)
    ledger = tmp_path / "ledger.jsonl"
    arguments = ["--rate", str(RATE), "--events", str(RATE * SECONDS), "--seed", "5"]
    arguments += ["--accept-key", DEMO_KEYS["PUBLIC_KEY"]]

    arguments += ["--port", str(port := free_port())]

    metrics = {"listen": "127.0.0.1:0", "per_stream": True}
    url = f"ws://127.0.0.1:{port}"
    async with running_bridge(tmp_path, url, redis_url, STREAMS, metrics=metrics) as bridge:
        with workers(tmp_path, redis_url):
            await eventually_async(
                lambda: client.hlen("consumers:status") == len(WORKERS) and bridge.status(),
                "bridge and consumers have written a status",
                60,
            )
            async with running_simulator(*arguments, ledger=ledger) as exchange:
                await finished(exchange)
                books = {
                    symbol: await get_json(exchange, "/simulator/book", symbol=symbol)
                    for symbol in MARKETS
                }
                account = await get_json(
                    exchange, "/simulator/account", key=DEMO_KEYS["PUBLIC_KEY"]
                )
            sent = truth.sent_by_stream(truth.read_ledger(ledger))
            await all_through(client, sent)
        await assert_pages_show_it(ProcessPages(bridge.log()), client)
        assert await bridge.stop() == 0

    faults = [
        fault
        for stream, frames in sent.items()
        for fault in truth.compare(stream, frames, entries(client, stream))
    ]
    assert faults == []
    assert client.xlen("bridge:quarantine") == 0
    for symbol in MARKETS:
        assert made_book(client, symbol) == exchanges_book(books[symbol])
        assert_candles_equal_the_klines(client, symbol, sent[f"kline.1s.{symbol}"])
    assert_books_agree_with_their_tickers(client)
    assert_account_is(client, account)


async def assert_pages_show_it(pages: ProcessPages, client: redis.Redis) -> None:
    """The pages report the lost exchange, and count each stream's published entries as Redis
    does.
    """
    await eventually_async(
        lambda: set(pages.reasons()) == {"exchange_disconnected"},
        "the pages report the lost exchange",
    )
    assert pages.is_alive()
    if find_spec("prometheus_client") is None:
        return  # the extra `metrics`
    series = pages.series()
    for symbol in MARKETS:
        labels = f'{{result="published",stream="trade.{symbol}"}}'
        published = series[f"backpack_stream_entries_total{labels}"]
        assert published == len(truth.messages(entries(client, f"trade.{symbol}")))


async def finished(exchange: RunningSimulator) -> None:
    async def is_finished() -> bool:
        return bool((await get_json(exchange, "/simulator/stats"))["finished"])

    await eventually_async(is_finished, "the exchange has sent everything", TIMEOUT_S)


def made_book(client: redis.Redis, symbol: str) -> dict[str, object]:
    made = cast("dict[str, str]", client.hgetall(f"consumers:{{depth.{symbol}}}:book"))
    return {
        "update_id": int(made["update_id"]),
        "bid": (Decimal(made["bid_price"]), Decimal(made["bid_quantity"])),
        "ask": (Decimal(made["ask_price"]), Decimal(made["ask_quantity"])),
    }


def assert_books_agree_with_their_tickers(client: redis.Redis) -> None:
    books = [cast("Any", client.hgetall(f"consumers:{{depth.{s}}}:book")) for s in MARKETS]
    assert [book["differing"] for book in books] == ["0"] * len(MARKETS)
    assert sum(int(book["checked"]) for book in books) > 0


def exchanges_book(book: Mapping[str, Any]) -> dict[str, object]:
    bid, ask = book["bids"][-1], book["asks"][0]
    return {
        "update_id": int(book["u"]),
        "bid": (Decimal(bid[0]), Decimal(bid[1])),
        "ask": (Decimal(ask[0]), Decimal(ask[1])),
    }


def assert_candles_equal_the_klines(
    client: redis.Redis, symbol: str, klines: Sequence[Mapping[str, Any]]
) -> None:
    closed = {
        kline["t"]: [kline[letter] for letter in "ohlcv"] + [kline["n"]]
        for kline in klines
        if kline["X"] and kline["n"]
    }
    made = {}
    for _, fields in entries(client, f"consumers:{{trade.{symbol}}}:candles:1s:closed"):
        if fields["complete"] == "true":
            names = ("open", "high", "low", "close", "volume", "trades")
            made[fields["start_utc"]] = [Decimal(fields[name]) for name in names]
    assert len(made) >= SECONDS - 3
    for start, candle in made.items():
        assert candle == [Decimal(value) for value in closed[start]], (symbol, start)


def assert_account_is(client: redis.Redis, account: Mapping[str, Any]) -> None:
    orders = rows(client, "account.orderUpdate", "open")
    assert set(orders) == {order["id"] for order in account["orders"]}
    for order in account["orders"]:
        executed = orders[order["id"]]["executed_quantity"]  # REST writes it without zeros
        assert Decimal(executed) == Decimal(order["executedQuantity"])
    balances = rows(client, "account.balanceUpdate", "balances")
    for asset, amounts in account["balances"].items():
        made = balances[asset]
        assert {name: Decimal(made[name]) for name in amounts} == {
            name: Decimal(amount) for name, amount in amounts.items()
        }, asset
    positions = rows(client, "account.positionUpdate", "positions")
    assert {symbol: Decimal(row["net_quantity"]) for symbol, row in positions.items()} == {
        row["symbol"]: Decimal(row["netQuantity"]) for row in account["positions"]
    }


def rows(client: redis.Redis, stream: str, part: str) -> dict[str, dict[str, Any]]:
    hash_of = cast("dict[str, str]", client.hgetall(f"consumers:{{{stream}}}:orders:{part}"))
    return {key: json.loads(text) for key, text in hash_of.items()}
