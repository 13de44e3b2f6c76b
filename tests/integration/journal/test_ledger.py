"""Gap and ledger are two keys, and a bridge may be killed between them."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from tests.support import frames
from tests.support.stepped_bridge import SteppedBridge

DEPTH, TRADES, LEDGER = "depth.SOL_USDC", "trade.BTC_USDC_PERP", "bridge:gaps"
MINUTE_US = 60_000_000


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as connected:
        connected.flushall()
        yield connected


def hear(bridge: SteppedBridge, connection: int, number: int) -> None:
    """The same number of both streams."""
    for frame, numbers in (
        (frames.TRADE, {"t": number}),
        (frames.DEPTH, dict.fromkeys("Uu", number)),
    ):
        message = json.loads(frame)
        message["data"] |= {"E": bridge.now_us, "T": bridge.now_us, **numbers}
        bridge.hearing.hear(json.dumps(message), bridge.now_us, connection)


def all_is_published(bridge: SteppedBridge) -> None:
    while bridge.hearing.catch_up(100) or bridge.publish(100):
        pass


def gaps(bridge: SteppedBridge) -> list[tuple[str, str, str]]:
    return [
        (name, entry["from"], entry["to"])
        for name in (DEPTH, TRADES)
        for entry in bridge.entries(name)
        if entry["type"] == "gap" and entry["cause"] != "start"
    ]


def noted(bridge: SteppedBridge) -> list[tuple[str, str, str]]:
    return sorted((e["stream"], e["from"], e["to"]) for e in bridge.entries(LEDGER))


@pytest.mark.parametrize("limit", [1, 100])  # entries in a batch: killed behind the gap, or later
def test_a_gap_that_was_written_and_not_noted_is_noted_after_the_restart(
    limit: int, client: redis.Redis, tmp_path: Path
) -> None:
    bridge = SteppedBridge(tmp_path, client, [TRADES, DEPTH])
    connection = bridge.connect()
    hear(bridge, connection, 1000)
    all_is_published(bridge)
    bridge.save_checkpoint()
    hear(bridge, connection, 1003)
    while len(gaps(bridge)) < 2:
        bridge.now_us += MINUTE_US
        bridge.publish(limit)
    bridge.kill()
    assert noted(bridge) == []

    bridge.start()
    hear(bridge, bridge.connect(), 1004)
    all_is_published(bridge)

    assert noted(bridge) == gaps(bridge) == [(DEPTH, "1001", "1002"), (TRADES, "1001", "1002")]
    bridge.end()
