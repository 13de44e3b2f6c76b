"""Redis holds every message that the exchange sent; each entry is compared with the ledger."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import redis

from tests.support import plain_http, truth
from tests.support.bridge_run import ACCOUNT_STREAMS, entries, running_bridge
from tests.support.eventually import eventually_async
from tests.support.redis_server import free_port
from tests.support.simulator_process import RunningSimulator, running_simulator

MARKETS = ("SOL_USDC", "BTC_USDC", "SOL_USDC_PERP")
INTERVALS = (
    "1s", "1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "8h", "12h", "1d", "3d", "1w",
    "1month",
)  # fmt: skip
STREAMS: Sequence[object] = (
    {
        "types": [
            "trade", "depth", "depth.200ms", "depth.600ms", "depth.1000ms", "bookTicker", "ticker",
            *(f"kline.{interval}" for interval in INTERVALS),
        ],
        "markets": list(MARKETS),
    },
    {"types": ["markPrice", "openInterest", "liquidation"], "markets": ["SOL_USDC_PERP"]},
    "liquidation",
    "externalTicker.AAPL.US_USDC_PERP",
    "stockPrice.NVDA",
    "stockIndicativeQuote.BRK.B",
    *ACCOUNT_STREAMS,
    "account.orderUpdate.SOL_USDC",
)  # fmt: skip
EVENTS = 8_000
RATE = 800  # so that it lasts until open interest (5 s) and a liquidation (8 s)


def is_complete(client: redis.Redis, sent: Mapping[str, Sequence[Any]]) -> bool:
    return all(
        client.xlen(stream) >= len(frames)
        and len(truth.messages(entries(client, stream))) >= len(frames)
        for stream, frames in sent.items()
    )


async def finished(exchange: RunningSimulator) -> None:
    """Wait until the exchange has sent all messages of the run."""
    async with plain_http.client(exchange.rest_url) as client:

        async def is_finished() -> bool:
            return bool((await client.get("/simulator/stats")).json()["finished"])

        await eventually_async(is_finished, "the exchange has sent everything", 90)


async def test_redis_equals_the_ledger_for_every_stream(tmp_path: Path, redis_url: str) -> None:
    client = redis.Redis.from_url(redis_url, decode_responses=True)
    ledger = tmp_path / "ledger.jsonl"
    port = free_port()
    arguments = ["--rate", str(RATE), "--events", str(EVENTS), "--seed", "11", "--port", str(port)]

    async with running_bridge(tmp_path, f"ws://127.0.0.1:{port}", redis_url, STREAMS) as bridge:
        await eventually_async(bridge.status, "the bridge has written a status")
        async with running_simulator(*arguments, ledger=ledger) as exchange:
            await finished(exchange)
        sent = truth.sent_by_stream(truth.read_ledger(ledger))
        await eventually_async(lambda: is_complete(client, sent), "all sent messages are in Redis")
        assert await bridge.stop() == 0
        status = bridge.status()

    faults = [
        fault
        for stream, frames in sent.items()
        for fault in truth.compare(stream, frames, entries(client, stream))
    ]
    assert faults == []
    assert client.xlen("bridge:quarantine") == 0
    public = {"trade.SOL_USDC", "depth.600ms.SOL_USDC", "kline.1s.SOL_USDC", "stockPrice.NVDA"}
    assert public <= set(sent)
    of_accounts = {kind for kind in truth.LETTERS if kind.startswith("account.")}
    assert {truth.kind(stream) for stream in sent} >= truth.LETTERS.keys() - of_accounts
    # The account has about ten updates in all; some kinds may have none after the subscription.
    assert any(stream.startswith("account.") for stream in sent)
    assert causes(client, sent) == {"start"}
    assert status["left"] == 0


def causes(client: redis.Redis, streams: Mapping[str, object]) -> set[str]:
    return {
        fields["cause"]
        for stream in streams
        for _, fields in entries(client, stream)
        if fields["type"] == "gap"
    }
