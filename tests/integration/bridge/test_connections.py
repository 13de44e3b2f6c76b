"""The gaps that follow when connections end, are refused or open late."""

import asyncio
import json
import signal
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import redis

from tests.support import plain_http
from tests.support.bridge_run import ACCOUNT_STREAMS, BridgeRun, entries, running_bridge
from tests.support.eventually import eventually_async
from tests.support.proxy import running_proxy
from tests.support.redis_server import free_port
from tests.support.simulator_process import RunningSimulator, running_simulator

PERP_STREAMS = [
    f"{kind}.SOL_USDC_PERP" for kind in ("trade", "depth", "bookTicker", "markPrice", "ticker")
]


DEPTH = "depth.SOL_USDC_PERP"


def address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return str(parts.hostname), int(parts.port or 0)


def client_of(url: str) -> redis.Redis:
    return redis.Redis.from_url(url, decode_responses=True)


def causes(client: redis.Redis, stream: str) -> list[str]:
    return [fields["cause"] for fields in own(client, stream, "gap")]


def own(client: redis.Redis, stream: str, kind: str) -> list[dict[str, str]]:
    return [fields for _, fields in entries(client, stream) if fields["type"] == kind]


def from_history(client: redis.Redis) -> list[dict[str, str]]:
    return [f for f in own(client, PERP_STREAMS[0], "trade") if f["source"] == "rest"]


async def test_an_exchange_that_is_unavailable_at_the_start_is_waited_for(
    tmp_path: Path, redis_url: str
) -> None:
    port = free_port()
    client = client_of(redis_url)
    async with running_bridge(
        tmp_path, f"ws://127.0.0.1:{port}", redis_url, PERP_STREAMS
    ) as bridge:
        await eventually_async(
            lambda: "feed_lost" in bridge.log(), "the bridge reports the lost connection"
        )
        async with running_simulator("--port", str(port)):
            await eventually_async(
                lambda: client.xlen("trade.SOL_USDC_PERP") > 3, "trades are published"
            )
        assert "Traceback" not in bridge.log()


async def test_lost_connection_leaves_a_gap_and_the_book_is_complete_again(
    tmp_path: Path, redis_url: str
) -> None:
    client = client_of(redis_url)
    async with (
        running_simulator("--rate", "500") as exchange,
        running_proxy(*address(exchange.ws_url)) as proxy,
        running_bridge(tmp_path, f"ws://127.0.0.1:{proxy.port}", redis_url, PERP_STREAMS) as bridge,
    ):
        await eventually_async(lambda: bridge.is_confirmed(5), "all streams have a message")
        await eventually_async(
            lambda: own(client, DEPTH, "depth_snapshot"), "the stream has a snapshot"
        )
        proxy.refuses = True
        proxy.cut()
        await passed(exchange, {"trade.SOL_USDC_PERP": 20, "markPrice.SOL_USDC_PERP": 2})
        proxy.refuses = False
        for stream in PERP_STREAMS[1:]:
            await eventually_async(
                lambda stream=stream: "connection lost" in causes(client, stream),
                f"{stream} has a gap for the lost connection",
            )
        await eventually_async(lambda: from_history(client), "the missed trades are fetched")
        await eventually_async(
            lambda: len(own(client, DEPTH, "depth_snapshot")) > 1, "a snapshot follows the gap"
        )
        assert await is_the_exchanges_book(exchange, client)

    for stream in PERP_STREAMS:
        assert set(causes(client, stream)) <= {"start", "connection lost"}
    assert goes_on_without_an_unnamed_gap(entries(client, DEPTH))
    assert goes_on_without_an_unnamed_gap(entries(client, PERP_STREAMS[0]))
    assert causes(client, PERP_STREAMS[0]) == ["start"]
    ledger = [fields for _, fields in entries(client, "bridge:gaps")]
    assert {record["stream"] for record in ledger} == set(PERP_STREAMS)
    (trades,) = [record for record in ledger if record["stream"] == PERP_STREAMS[0]]
    missed = from_history(client)
    assert (trades["from"], trades["to"]) == (missed[0]["trade_id"], missed[-1]["trade_id"])
    assert (trades["cause"], trades["recovered"], trades["how"]) == (
        "connection lost", "true", "history",
    )  # fmt: skip
    (book,) = [record for record in ledger if record["stream"] == DEPTH]
    assert (book["recovered"], book["how"]) == ("false", "snapshot")


async def test_a_restarted_bridge_marks_what_it_could_not_receive(
    tmp_path: Path, redis_url: str
) -> None:
    client = client_of(redis_url)
    async with running_simulator("--rate", "500") as exchange:
        for turn in (1, 2):
            async with running_bridge(
                tmp_path / str(turn), exchange.ws_url, redis_url, PERP_STREAMS
            ) as bridge:
                await eventually_async(lambda: bridge.is_confirmed(5), "all streams have a message")
                await grown(client, PERP_STREAMS[0], 20)
                await grown(client, DEPTH, 20)  # 20 entries: the stream's gap is among them
                await eventually_async(
                    lambda: client.hlen("bridge:watermarks") == 3, "the watermarks are in Redis"
                )
                bridge.process.kill()
            await passed(exchange, {"trade.SOL_USDC_PERP": 20})

    assert causes(client, PERP_STREAMS[0]) == ["start"]
    assert from_history(client)
    assert causes(client, DEPTH) == ["start", "skipped"]
    for stream in (PERP_STREAMS[0], DEPTH):
        assert goes_on_without_an_unnamed_gap(entries(client, stream))
    for stream in ("bookTicker.SOL_USDC_PERP", "markPrice.SOL_USDC_PERP", "ticker.SOL_USDC_PERP"):
        assert causes(client, stream) == ["bridge was not running"]


async def is_the_exchanges_book(exchange: RunningSimulator, client: redis.Redis) -> bool:
    """Whether the book rebuilt from Redis equals the exchange's at an equal update ID."""
    for _ in range(200):
        truth_now = await statistics(exchange, "book", symbol="SOL_USDC_PERP")
        position, sides = book_at(entries(client, DEPTH))
        if position == int(truth_now["u"]):
            return sides == [levels(truth_now["bids"]), levels(truth_now["asks"])]
    return False


async def grown(client: redis.Redis, stream: str, more: int) -> None:
    """Wait until the stream has `more` entries more than at the call."""
    wanted = client.xlen(stream) + more
    await eventually_async(
        lambda: client.xlen(stream) >= wanted, f"{stream} has {more} more entries"
    )


async def passed(exchange: RunningSimulator, more: dict[str, int]) -> None:
    """Wait until the exchange has sent `more` further frames of each of these streams."""
    before = await statistics(exchange, "stats")

    async def is_past() -> bool:
        now = await statistics(exchange, "stats")
        return all(
            now["streams"].get(stream, 0) >= before["streams"].get(stream, 0) + count
            for stream, count in more.items()
        )

    await eventually_async(is_past, f"the exchange has sent {more}")


async def statistics(exchange: RunningSimulator, path: str, **params: str) -> dict[str, Any]:
    """The decoded reply of GET /simulator/PATH."""
    async with plain_http.client(exchange.rest_url) as client:
        answer = await client.get(f"/simulator/{path}", params=params)
    return dict(answer.json())


def levels(rows: list[list[str]]) -> dict[Decimal, Decimal]:
    return {Decimal(price): Decimal(quantity) for price, quantity in rows}


def book_at(stored: list[tuple[str, dict[str, str]]]) -> tuple[int, list[dict[Decimal, Decimal]]]:
    """Rebuild the book from the stream alone, as a reader does; return its update ID, and its
    sides.
    """
    position, sides = 0, [levels([]), levels([])]
    for _, fields in stored:
        if fields["type"] == "depth_snapshot":
            position = int(fields["update_id"])
            sides = [levels(json.loads(fields[side])) for side in ("bids", "asks")]
        elif fields["type"] == "gap":
            position = 0
        elif position and int(fields["first_update_id"]) <= position + 1:
            position = int(fields["last_update_id"])
            for side, name in zip(sides, ("bids", "asks"), strict=True):
                side |= levels(json.loads(fields[name]))
    return position, [{p: q for p, q in side.items() if q} for side in sides]


def goes_on_without_an_unnamed_gap(stored: list[tuple[str, dict[str, str]]]) -> bool:
    """Whether positions are consecutive except where a gap names what is missing."""
    position = None
    for _, fields in stored:
        if fields["type"] == "gap":
            position = int(fields["to"]) if fields["to"] else position
            continue
        if fields["type"] == "depth_snapshot":
            continue
        first = int(fields.get("first_update_id") or fields["trade_id"])
        if position is not None and first != position + 1:
            return False
        position = int(fields.get("last_update_id") or fields["trade_id"])
    return position is not None


async def test_a_key_that_the_exchange_does_not_know_is_reported_by_stream(
    tmp_path: Path, redis_url: str
) -> None:
    other_key = "iojj3XQJ8ZX9UtstPLpdcspnCb8dlBIb83SIAbQPb1w="  # of the seed 01010101…
    client = client_of(redis_url)
    async with running_simulator("--accept-key", other_key) as exchange:
        streams = ["trade.SOL_USDC", *ACCOUNT_STREAMS]
        async with running_bridge(tmp_path, exchange.ws_url, redis_url, streams) as bridge:
            await eventually_async(
                lambda: client.xlen("trade.SOL_USDC") > 1, "the public stream is published"
            )
            await eventually_async(
                lambda: set(refused_streams(bridge)) == set(ACCOUNT_STREAMS),
                "the refusals are in the status",
            )
            refused = refused_streams(bridge)
            log = bridge.log()

    assert all("signature" in reason for reason in refused.values())
    assert '"code": 4003' in log


def refused_streams(bridge: BridgeRun) -> dict[str, str]:
    connections = bridge.status().get("connections", [])
    return {name: why for each in connections for name, why in each["refused"].items()}


async def test_account_is_published_with_its_state_and_its_changes(
    tmp_path: Path, redis_url: str
) -> None:
    client = client_of(redis_url)
    async with (
        running_simulator("--rate", "300") as exchange,
        running_bridge(tmp_path, exchange.ws_url, redis_url, list(ACCOUNT_STREAMS)) as bridge,
    ):
        for stream, kind in (
            ("account.orderUpdate", "orders_snapshot"),
            ("account.positionUpdate", "positions_snapshot"),
            ("account.balanceUpdate", "balances_snapshot"),
        ):
            await eventually_async(
                lambda stream=stream, kind=kind: own(client, stream, kind), f"{stream} has a {kind}"
            )
        await eventually_async(
            lambda: own(client, "account.orderUpdate", "orderAccepted"), "an order is accepted"
        )
        assert await bridge.stop() == 0

    balances = own(client, "account.balanceUpdate", "balances_snapshot")[0]
    rows = json.loads(balances["balances"])
    assert {"asset", "available", "locked", "staked"} <= set(rows[0])
    assert client.get("bridge:account") is not None


async def test_several_connections_share_the_streams(tmp_path: Path, redis_url: str) -> None:
    client = client_of(redis_url)
    markets = ("SOL_USDC", "BTC_USDC", "ETH_USDC")
    streams = [f"{kind}.{market}" for market in markets for kind in ("trade", "depth")]
    async with running_simulator("--rate", "500") as exchange, running_bridge(
        tmp_path, exchange.ws_url, redis_url, streams, exchange={
            "ws_url": exchange.ws_url, "rest_url": exchange.rest_url, "connections": 3,
        },
    ) as bridge:  # fmt: skip
        await eventually_async(lambda: bridge.is_confirmed(6), "all streams have a message")
        names = [each["name"] for each in bridge.status()["connections"]]
        await eventually_async(lambda: all(map(client.xlen, streams)), "all streams are in Redis")

    assert names == ["public-1", "public-2", "public-3"]


async def test_bridge_interrupted_twice_ends_at_once(tmp_path: Path, redis_url: str) -> None:
    async with (
        running_simulator() as exchange,
        running_bridge(tmp_path, exchange.ws_url, redis_url, ["trade.SOL_USDC"]) as bridge,
    ):
        await eventually_async(lambda: bridge.is_confirmed(1), "the bridge receives")
        bridge.process.send_signal(signal.SIGINT)
        await asyncio.sleep(0)
        bridge.process.send_signal(signal.SIGINT)
        await eventually_async(lambda: bridge.process.poll() is not None, "the bridge has ended", 5)

    assert bridge.process.returncode == 130
    assert "Traceback" not in bridge.log()


async def test_with_a_long_linger_messages_that_come_singly_are_sent_together(
    tmp_path: Path, redis_url: str
) -> None:
    client = client_of(redis_url)
    streams = [f"bookTicker.{market}" for market in ("SOL_USDC", "BTC_USDC", "ETH_USDC")]
    async with (
        running_simulator("--rate", "1000") as exchange,
        running_bridge(
            tmp_path, exchange.ws_url, redis_url, streams, publish={"linger_ms": 100}
        ) as bridge,
    ):
        await eventually_async(lambda: bridge.is_confirmed(3), "all streams have a message")
        entries_before, calls_before = sum(map(client.xlen, streams)), script_calls(client)
        await eventually_async(
            lambda: sum(map(client.xlen, streams)) >= entries_before + 100, "100 more entries"
        )
        published, calls = (
            sum(map(client.xlen, streams)) - entries_before,
            script_calls(client) - calls_before,
        )

    assert calls < published / 3


def script_calls(client: redis.Redis) -> int:
    about: Any = client.info("commandstats")
    return int(about["cmdstat_evalsha"]["calls"])
