"""Replaced connections, or two for each stream, cause no loss, no duplicate and no gap."""

import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis

from tests.integration.bridge.test_connections import statistics
from tests.support import truth
from tests.support.bridge_run import BridgeRun, entries, running_bridge
from tests.support.eventually import eventually_async
from tests.support.proxy import running_proxy
from tests.support.simulator_process import RunningSimulator, running_simulator

PERP = "SOL_USDC_PERP"
STREAMS = [
    f"{kind}.{market}"
    for market in (PERP, "BTC_USDC")
    for kind in ("trade", "depth", "depth.200ms", "bookTicker", "ticker", "kline.1s")
] + [f"markPrice.{PERP}", "account.orderUpdate", "account.balanceUpdate"]


def urls(exchange: RunningSimulator, **settings: object) -> dict[str, object]:
    quick = {"reconnect_initial_s": 0.05, "reconnect_max_s": 0.5}
    return {"ws_url": exchange.ws_url, "rest_url": exchange.rest_url, **quick, **settings}


async def differences(client: redis.Redis, ledger: Path, bridge: BridgeRun) -> list[str]:
    """The differences between Redis and what the exchange has sent so far, once that has arrived.

    A state that a newer one had overtaken over another connection is not in its stream: the bridge
    has counted it.
    """
    sent = truth.sent_by_stream(truth.read_ledger(ledger))

    def counts_agree() -> bool:
        return all(
            len(truth.messages(entries(client, stream))) >= len(frames)
            for stream, frames in sent.items()
        )

    with suppress(AssertionError):  # the comparison reports missing entries
        await eventually_async(counts_agree, "all received messages are in Redis", 10)
    now_us = time.time_ns() // 1000
    await eventually_async(
        lambda: bridge.status()["updated_us"] > now_us, "the bridge has written a new status", 10
    )
    streams = bridge.status()["streams"]
    found = []
    for stream, frames in sent.items():
        stored = oldest(client, stream, len(frames))
        kept = less_overtaken(stream, frames, truth.messages(stored), streams[stream]["late"])
        found += truth.compare(stream, kept, stored[: len(kept)])
    return found


def less_overtaken(
    stream: str, frames: Sequence[Mapping[str, Any]], stored: Sequence[Mapping[str, str]], late: int
) -> list[Mapping[str, Any]]:
    """The frames without those, `late` at most, where the stream has the next one instead."""
    kept: list[Mapping[str, Any]] = []
    for data in frames:
        if late and len(kept) < len(stored) and truth.fault(stream, data, stored[len(kept)]):
            late -= 1
        else:
            kept.append(data)
    return kept


def oldest(client: redis.Redis, stream: str, count: int) -> list[truth.Entry]:
    """The first `count` messages of the exchange in the stream."""
    stored = [entry for entry in entries(client, stream) if entry[1]["type"] not in truth.OWN_TYPES]
    return list(stored[:count])


def gaps(client: redis.Redis, streams: Iterable[str]) -> list[str]:
    """Every gap in these streams except those at the streams' starts."""
    return [
        f"{stream}: {fields}"
        for stream in streams
        for _, fields in entries(client, stream)
        if fields["type"] == "gap" and fields["cause"] != "start"
    ]


async def is_put_out(exchange: RunningSimulator, seconds: int) -> None:
    async def is_there() -> bool:
        streams = (await statistics(exchange, "stats"))["streams"]
        return bool(streams.get(f"markPrice.{PERP}", 0) >= seconds)

    await eventually_async(is_there, f"{seconds} s of market data are sent")


@pytest.mark.timeout(150)
@pytest.mark.parametrize("per_stream", [1, 2])
async def test_replacing_old_connections_leaves_no_trace(
    tmp_path: Path, redis_url: str, per_stream: int
) -> None:
    client = redis.Redis.from_url(redis_url, decode_responses=True)
    ledger = tmp_path / "ledger.jsonl"
    async with running_simulator("--rate", "300", "--seed", "5", ledger=ledger) as exchange:
        settings = urls(exchange, max_connection_age_s=2, connections_per_stream=per_stream)
        async with running_bridge(
            tmp_path, exchange.ws_url, redis_url, STREAMS, exchange=settings
        ) as bridge:
            await eventually_async(
                lambda: bridge.log().count("feed_replaced") >= 6,
                "six connections were replaced",
                40,
            )
            assert await differences(client, ledger, bridge) == []
            assert "feed_not_replaced" not in bridge.log()
            assert gaps(client, STREAMS) == []


@pytest.mark.timeout(150)
async def test_with_two_connections_no_cut_makes_a_gap(tmp_path: Path, redis_url: str) -> None:
    client = redis.Redis.from_url(redis_url, decode_responses=True)
    ledger = tmp_path / "ledger.jsonl"
    async with running_simulator("--rate", "300", "--seed", "6", ledger=ledger) as exchange:
        parts = urlsplit(exchange.ws_url)
        async with running_proxy(str(parts.hostname), int(parts.port or 0)) as proxy:
            settings = urls(exchange, ws_url=f"ws://127.0.0.1:{proxy.port}",
                            connections_per_stream=2)  # fmt: skip
            async with running_bridge(
                tmp_path, exchange.ws_url, redis_url, STREAMS, exchange=settings
            ) as bridge:
                for turn in range(3):
                    await eventually_async(
                        lambda turn=turn: (
                            bridge.log().count("feed_connected") == 4 + turn
                            and all(
                                each["connected"]
                                for each in bridge.status().get(
                                    "connections", [{"connected": False}]
                                )
                            )
                        ),
                        "all four connections are open",
                        40,
                    )
                    put_out = (await statistics(exchange, "stats"))["streams"]
                    now = put_out.get(f"markPrice.{PERP}", 0)
                    await is_put_out(exchange, now + 4)
                    proxy.cut_one()
                assert await differences(client, ledger, bridge) == []
                assert gaps(client, STREAMS) == []
                streams = bridge.status()["streams"]

    assert all(streams[name]["repeated"] for name in STREAMS)
