"""What was heard reaches Redis once and in order, whatever is killed in between."""

import signal
from pathlib import Path
from typing import Any

import pytest

from tests.support import truth
from tests.support.bridge_run import ACCOUNT_STREAMS, entries, running_bridge
from tests.support.eventually import eventually_async
from tests.support.redis_server import RedisServer, running_redis
from tests.support.simulator_process import RunningSimulator, running_simulator

STREAMS = [
    *(f"{kind}.SOL_USDC_PERP" for kind in ("trade", "depth", "bookTicker", "markPrice", "ticker")),
    *(f"{kind}.BTC_USDC" for kind in ("trade", "depth", "depth.200ms", "kline.1m")),
    *ACCOUNT_STREAMS,
]
NUMBERED = ("trade.", "depth.")


@pytest.fixture
def server() -> Any:
    with running_redis(appendonly=True) as running_server:
        yield running_server


def count(server: RedisServer, stream: str) -> int:
    with server.client() as client:
        return int(client.xlen(stream))


def faults(server: RedisServer, exchange: RunningSimulator, *, allow: str = "start") -> list[str]:
    """How Redis differs from what the exchange sent."""
    assert exchange.ledger is not None
    sent = truth.sent_by_stream(truth.read_ledger(exchange.ledger))
    found = []
    with server.client(decode_responses=True) as client:
        for stream, frames in sent.items():
            stored = entries(client, stream)
            found += truth.compare(stream, frames, stored)
            found += [
                f"{stream}: a gap: {fields}"
                for _, fields in stored
                if fields["type"] == "gap" and fields["cause"] != allow
            ]
    return found


async def complete(server: RedisServer, exchange: RunningSimulator) -> None:
    sent = truth.sent_by_stream(truth.read_ledger(exchange.ledger or Path()))

    def is_complete() -> bool:
        with server.client(decode_responses=True) as client:
            return all(
                len(truth.messages(entries(client, stream))) >= len(frames)
                for stream, frames in sent.items()
            )

    await eventually_async(is_complete, "all that was sent is in Redis", 30)


async def test_redis_killed_and_restarted_while_all_flows(
    server: RedisServer, tmp_path: Path
) -> None:
    ledger = tmp_path / "ledger.jsonl"
    async with (
        running_simulator("--rate", "1000", ledger=ledger) as exchange,
        running_bridge(tmp_path, exchange.ws_url, server.url, STREAMS) as bridge,
    ):
        await eventually_async(lambda: count(server, "trade.BTC_USDC") > 20, "trades flow")
        for _ in range(3):
            server.kill()
            await eventually_async(lambda: lost_redis(bridge.log()), "it says so")
            server.start()
            before = count(server, "trade.BTC_USDC")
            await eventually_async(
                lambda before=before: count(server, "trade.BTC_USDC") > before + 10, "it goes on"
            )
        exchange.stop()
        await complete(server, exchange)
        assert await bridge.stop() == 0

    assert faults(server, exchange) == []


def lost_redis(log: str) -> bool:
    return log.rfind("redis_unavailable") > log.rfind("redis_connected")


async def test_more_is_heard_than_memory_may_hold_while_redis_is_away(
    server: RedisServer, tmp_path: Path
) -> None:
    ledger = tmp_path / "ledger.jsonl"
    small = {"buffer_bytes": 1024 * 1024}
    async with (
        running_simulator("--rate", "3000", ledger=ledger) as exchange,
        running_bridge(
            tmp_path, exchange.ws_url, server.url, STREAMS, publish=small
        ) as bridge,
    ):  # fmt: skip
        await eventually_async(lambda: count(server, "trade.BTC_USDC") > 20, "trades flow")
        server.pause()
        await eventually_async(lambda: "journal_takes_over" in bridge.log(), "memory is full")
        server.resume()
        await eventually_async(lambda: "journal_caught_up" in after(bridge.log()), "caught up", 40)
        exchange.stop()
        await complete(server, exchange)
        assert await bridge.stop() == 0

    assert faults(server, exchange) == []


def after(log: str) -> str:
    return log[log.rfind("journal_takes_over") :]


async def test_a_bridge_killed_while_redis_is_away_loses_nothing_it_had_heard(
    server: RedisServer, tmp_path: Path
) -> None:
    ledger = tmp_path / "ledger.jsonl"
    async with running_simulator("--rate", "1000", ledger=ledger) as exchange:
        async with running_bridge(tmp_path, exchange.ws_url, server.url, STREAMS) as bridge:
            await eventually_async(lambda: count(server, "trade.BTC_USDC") > 20, "trades flow")
            server.kill()
            await eventually_async(lambda: lost_redis(bridge.log()), "Redis is away")
            size = journal_bytes(tmp_path)
            await eventually_async(
                lambda: journal_bytes(tmp_path) > size + 100_000, "it goes on hearing"
            )
            exchange.stop()
            size = journal_bytes(tmp_path)
            await eventually_async(lambda: "feed_lost" in bridge.log(), "the exchange is gone")
            await eventually_async(lambda: journal_bytes(tmp_path) >= size, "all is on disk")
            bridge.process.send_signal(signal.SIGKILL)
        server.start()
        async with running_bridge(tmp_path, exchange.ws_url, server.url, STREAMS) as again:
            await complete(server, exchange)
            assert await again.stop() == 0

    assert faults(server, exchange) == []


def journal_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in (folder / "data" / "journal").glob("*.journal*"))


@pytest.mark.parametrize("lost", ["everything", "one stream"])
async def test_what_redis_has_lost_is_refilled_from_the_journal(
    lost: str, server: RedisServer, tmp_path: Path
) -> None:
    ledger = tmp_path / "ledger.jsonl"
    async with (
        running_simulator("--rate", "500", ledger=ledger) as exchange,
        running_bridge(tmp_path, exchange.ws_url, server.url, STREAMS) as bridge,
    ):
        await eventually_async(lambda: count(server, "trade.BTC_USDC") > 50, "trades flow")
        with server.client() as client:
            if lost == "everything":
                client.flushall()
            else:
                client.delete("trade.BTC_USDC")
        await eventually_async(lambda: "redis_lost_entries" in bridge.log(), "it is noticed")
        await eventually_async(lambda: count(server, "trade.BTC_USDC") > 100, "it is refilled")
        exchange.stop()
        await complete(server, exchange)
        assert await bridge.stop() == 0

    found = faults(server, exchange)
    numbered = [fault for fault in found if fault.startswith(NUMBERED)]
    assert [fault for fault in numbered if "redis lost entries" not in fault] == []
    assert [fault for fault in found if "a gap" not in fault] == []
