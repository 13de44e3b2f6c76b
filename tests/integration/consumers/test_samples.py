"""The samples as a user runs them: their results in Redis, also after a takeover."""

import json
import signal
from typing import Any

import pyarrow.parquet as parquet
import pytest

from tests.support.consumer_entries import (
    MINUTE_US,
    START_US,
    Fields,
    balance_update,
    depth,
    depth_snapshot,
    entry_id,
    gap,
    order_update,
    orders_snapshot,
    position_update,
    trade,
)
from tests.support.consumer_worker import Bench

pytestmark = pytest.mark.timeout(120)  # several processes start, on a machine that may be busy

TRADES, DEPTH = "trade.SOL_USDC", "depth.SOL_USDC"


def minutes_of_trades(first: int, last: int) -> dict[str, Fields]:
    """One trade per second whose price is its number plus 0.50, by entry ID."""
    found = {}
    for n in range(first, last + 1):
        at_us = START_US + n * 1_000_000
        found[entry_id(at_us, n)] = trade(n, at_us, price=f"{n}.50", quantity="0.1")
    return found


def test_candles_are_exact_through_kills_and_read_as_a_table(bench: Bench) -> None:
    bench.register(TRADES)
    bench.add(TRADES, {entry_id(START_US, 0, 1): gap(0)} | minutes_of_trades(1, 3000))
    run = ("candles", "--lease", "1", "--option", "intervals=1m,5m")
    victim = bench.start(*run)
    bench.until(lambda: bench.group(TRADES, "candles"))
    victim.kill()
    bench.start(*run)
    bench.add(TRADES, minutes_of_trades(3001, 3700))
    bench.await_group(TRADES, "candles", next(iter(minutes_of_trades(3700, 3700))))

    key = "consumers:{trade.SOL_USDC}:candles"
    assert bench.redis.hgetall(f"{key}:1m") == {
        "symbol": "SOL_USDC",
        "interval": "1m",
        "start_utc": "2026-09-02T17:45:00",
        "end_utc": "2026-09-02T17:46:00",
        "open": "3660.50",
        "high": "3700.50",
        "low": "3660.50",
        "close": "3700.50",
        "volume": "4.1",
        "quote_volume": "15090.050",
        "trades": "41",
        "first_trade_id": "3660",
        "last_trade_id": "3700",
        "complete": "true",
        "closed": "false",
        "revision": "0",
        "too_late": "0",
    }
    closed: Any = bench.redis.xrange(f"{key}:1m:closed")
    spans = [(int(c["first_trade_id"]), int(c["last_trade_id"])) for _, c in closed]
    assert spans == [(1, 59), *((n * 60, n * 60 + 59) for n in range(1, 61))]
    assert [c["complete"] for _, c in closed] == ["false", *["true"] * 60]
    fives: Any = bench.redis.xrange(f"{key}:5m:closed")
    assert [int(c["trades"]) for _, c in fives] == [59, *[300] * 12]


def test_a_late_trade_amends_its_candle_in_redis(bench: Bench) -> None:
    bench.register(TRADES)
    late_us = START_US + MINUTE_US - 1
    bench.add(
        TRADES,
        {
            entry_id(START_US, 1): trade(1, START_US, price="10"),
            entry_id(START_US + MINUTE_US, 2): trade(2, START_US + MINUTE_US),
            entry_id(START_US + MINUTE_US, 3): trade(3, late_us, price="11"),
        },
    )
    bench.start("candles")
    bench.await_group(TRADES, "candles", entry_id(START_US + MINUTE_US, 3))
    closed: Any = bench.redis.xrange("consumers:{trade.SOL_USDC}:candles:1m:closed")
    assert [(c["close"], c["trades"], c["revision"]) for _, c in closed] == [
        ("10", "1", "0"),
        ("11", "2", "1"),
    ]


def book_entries(first: int, last: int) -> dict[str, Fields]:
    """Deltas over 20 prices a side; every fifth deletes a level."""
    found = {}
    for n in range(first, last + 1):
        quantity = "0" if n % 5 == 0 else str(n)
        bid, ask = f"{100 - n % 20}", f"{200 + n % 20}.0"
        found[entry_id(START_US + n * 1000, n)] = depth(n, n, [(bid, quantity)], [(ask, quantity)])
    return found


def test_the_book_is_exact_through_a_kill_and_a_long_stop(bench: Bench) -> None:
    bench.register(DEPTH)
    start = {
        entry_id(START_US, 9, 1): gap(9),
        entry_id(START_US, 10): depth(10, 10, [("1", "1")], []),
        entry_id(START_US, 10, 2): depth_snapshot(
            10, [("99.0", "5"), ("90.00", "1")], [("201", "7")]
        ),
    }
    bench.add(DEPTH, start | book_entries(11, 4000))
    run = ("book", "--lease", "1", "--option", "levels=3")
    victim = bench.start(*run)
    bench.until(lambda: bench.group(DEPTH, "book"))
    victim.kill()
    sleeper = bench.start(*run)
    bench.until(lambda: bench.owner(DEPTH, "book") == sleeper.name)
    sleeper.signal(signal.SIGSTOP)
    heir = bench.start(*run)
    bench.until(lambda: bench.owner(DEPTH, "book") == heir.name)
    sleeper.signal(signal.SIGCONT)
    bench.add(DEPTH, book_entries(4001, 4321))
    bench.await_group(DEPTH, "book", entry_id(START_US + 4321 * 1000, 4321))

    sides: list[dict[float, str]] = [{99.0: "5", 90.0: "1"}, {201.0: "7"}]
    for n in range(11, 4322):
        for side, price in zip(sides, (100 - n % 20, 200 + n % 20), strict=True):
            side[float(price)] = str(n)
            if n % 5 == 0:
                del side[float(price)]
    shown: Any = bench.redis.hgetall("consumers:{depth.SOL_USDC}:book")
    top = [sorted(sides[0], reverse=True)[:3], sorted(sides[1])[:3]]
    assert [[float(p) for p, _ in json.loads(shown[side])] for side in ("bids", "asks")] == top
    assert (float(shown["bid_price"]), shown["bid_quantity"]) == (top[0][0], sides[0][top[0][0]])
    assert (float(shown["ask_price"]), shown["ask_quantity"]) == (top[1][0], sides[1][top[1][0]])
    assert (shown["known"], shown["update_id"], shown["symbol"]) == ("true", "4321", "SOL_USDC")


def test_a_gap_makes_the_book_unknown_and_a_snapshot_known_again(bench: Bench) -> None:
    bench.register(DEPTH)
    bench.add(
        DEPTH,
        {
            entry_id(START_US, 10, 2): depth_snapshot(10, [("99", "5")], []),
            entry_id(START_US, 15, 1): gap(15, first=11),
            entry_id(START_US, 16): depth(16, 16, [("98", "1")], []),
        },
    )
    worker = bench.start("book")
    bench.await_group(DEPTH, "book", entry_id(START_US, 16))
    key = "consumers:{depth.SOL_USDC}:book"
    assert bench.redis.hmget(key, "known", "bid_price") == ["false", ""]
    bench.add(
        DEPTH, {entry_id(START_US, 16, 2): depth_snapshot(16, [("97.5", "2")], [("98", "1")])}
    )
    bench.await_group(DEPTH, "book", entry_id(START_US, 16, 2))
    assert bench.redis.hmget(key, "known", "bid_price", "update_id") == ["true", "97.5", "16"]
    bench.until(lambda: bench.status("book", worker)["made"] == "SOL_USDC 97.5/98")


def book_ticker(update_id: int, bid: str, ask: str) -> Fields:
    at_us = START_US + update_id * 1000
    return {
        "type": "bookTicker",
        "symbol": "SOL_USDC",
        "bid_price": bid,
        "bid_quantity": "5.00",
        "ask_price": ask,
        "ask_quantity": "7",
        "update_id": str(update_id),
        "event_us": str(at_us + 1500),
        "engine_us": str(at_us),
        "received_us": str(at_us + 90_000),
        "extra": "",
    }


def test_the_book_checks_itself_against_the_ticker_and_states_what_differs(bench: Bench) -> None:
    """The ticker may be behind or ahead of the book; the consumer reads each of its entries
    once.
    """
    bench.register(DEPTH)
    run = ("book", "--option", "check_s=1")
    worker = bench.start(*run)
    key = "consumers:{depth.SOL_USDC}:book"

    def change(n: int) -> None:
        """Add an update that makes `n` the best bid."""
        moved = depth(n, n, [(f"{n}", "5"), (f"{n - 1}", "0")], [], START_US + n * 1000)
        bench.add(DEPTH, {entry_id(START_US + n * 1000, n): moved})

    at_us = START_US + 10_000
    bench.add(
        DEPTH, {entry_id(at_us, 10, 2): depth_snapshot(10, [("10", "5")], [("900", "7")], at_us)}
    )
    for n in range(11, 20):
        change(n)
    bench.until(lambda: bench.redis.hget(key, "update_id") == "19")
    bench.register("bookTicker.SOL_USDC")
    for n in (10, 15, 19, 20):
        bid = "77.0" if n == 19 else f"{n}.000"
        bench.add(
            "bookTicker.SOL_USDC",
            {f"{(START_US + n * 1000) // 1000}-0": book_ticker(n, bid, "900.0")},
        )
    last = 19

    def checked(count: str) -> bool:
        """Whether `count` checks were made; an update triggers one check at most, so add the
        next.
        """
        nonlocal last
        if bench.redis.hget(key, "update_id") == str(last):
            last += 1
            change(last)
        return bench.redis.hget(key, "checked") == count

    bench.until(lambda: checked("4"))
    assert bench.redis.hmget(key, "checked", "differing") == ["4", "1"]
    [line] = [line for line in worker.err.splitlines() if "book_differs" in line]
    reported = json.loads(line)
    assert reported["update_id"] == 19
    assert (reported["book"][0], reported["ticker"][0]) == (["19", "5"], ["77.0", "5.00"])


PEEK = """
from bridge.contract.events import BookTicker, Trade
from consumers import Consumer, Delivery, read


class Peek(Consumer):
    name = "peek"
    streams = ("trade.*",)

    async def on_trade(self, delivery: Delivery[Trade]) -> None:
        stream = f"bookTicker.{delivery.event.symbol}"
        seen = [one.event.update_id async for one in read(stream, of=BookTicker)]
        print(seen, flush=True)
"""


def test_a_handler_reads_other_streams_from_its_workers_own_redis(bench: Bench) -> None:
    """The worker's configuration counts, not the one in the current folder."""
    (bench.folder / "peek.py").write_text(PEEK)
    (bench.folder / "other.yaml").write_text("redis: {key_prefix: 'replay:'}")
    for stream in (TRADES, "bookTicker.SOL_USDC"):
        bench.redis.hset("replay:bridge:streams", stream, "{}")
    bench.add("replay:bookTicker.SOL_USDC", {"1-0": book_ticker(7, "1", "2")})
    bench.add(f"replay:{TRADES}", {"1-10": trade(1, START_US)})
    worker = bench.start("peek:Peek", "--config", "other.yaml")
    bench.until(lambda: worker.out == "[7]\n")


@pytest.mark.parametrize(("seconds", "stops"), [("0.2", False), ("3600", True)])
def test_archive_writes_rows_in_bounded_time_and_at_its_end(
    bench: Bench, seconds: str, stops: bool
) -> None:
    bench.register(TRADES)
    bench.add(TRADES, minutes_of_trades(1, 30))
    worker = bench.start("archive", "--option", f"seconds={seconds}")
    bench.await_group(TRADES, "archive", next(iter(minutes_of_trades(30, 30))))
    folder = bench.folder / "archive"
    if stops:
        assert list(folder.rglob("*.parquet")) == []
        assert worker.stop() == 0
    bench.until(lambda: list(folder.rglob("*.parquet")))
    [path] = folder.rglob("*.parquet")
    assert parquet.read_table(path)["trade_id"].to_pylist() == list(range(1, 31))


def test_orders_positions_and_balances_stand_in_redis(bench: Bench) -> None:
    streams = ("account.orderUpdate", "account.positionUpdate", "account.balanceUpdate")
    bench.register(*streams, "account.rfqUpdate")
    row = {"order_id": "5", "symbol": "SOL_USDC", "side": "Bid", "status": "New", "quantity": "1"}
    bench.add(
        "account.orderUpdate",
        {
            "1-0": orders_snapshot([row]),
            "2-0": order_update("orderAccepted", "7", "New"),
            "3-0": order_update("orderCancelled", "5", "Cancelled", symbol="SOL_USDC"),
        },
    )
    bench.add(
        "account.positionUpdate", {"1-0": position_update("positionOpened", "ETH_USDC_PERP", "-2")}
    )
    bench.add("account.balanceUpdate", {"1-0": balance_update("USDT", "10", "20")})
    bench.start("orders")
    for stream, at in zip(streams, ("3-0", "1-0", "1-0"), strict=True):
        bench.await_group(stream, "orders", at)

    def rows(key: str) -> dict[str, Any]:
        found: Any = bench.redis.hgetall(key)
        return {name: json.loads(text) for name, text in found.items()}

    orders = rows("consumers:{account.orderUpdate}:orders:open")
    assert {k: (r["symbol"], r["price"]) for k, r in orders.items()} == {
        "7": ("USDT_USDC", "1.0076")
    }
    positions = rows("consumers:{account.positionUpdate}:orders:positions")
    assert positions["ETH_USDC_PERP"]["net_quantity"] == "-2"
    balances = rows("consumers:{account.balanceUpdate}:orders:balances")
    assert (balances["USDT"]["available"], balances["USDT"]["locked"]) == ("10", "20")
    about = bench.redis.hgetall("consumers:{account.orderUpdate}:orders")
    assert about == {"open": "1", "sure": "true"}
    assert bench.group("account.rfqUpdate", "orders") == {}
