"""The gap log after a bridge was killed between the writes to the stream's key and to the gap
log's.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from tests.support import frames
from tests.support.stepped_bridge import RedisSocket, SteppedBridge

DEPTH, TRADES, GAP_LOG = "depth.SOL_USDC", "trade.BTC_USDC_PERP", "bridge:gaps"
MINUTE_US = 60_000_000


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as connected:
        connected.flushall()
        yield connected


@pytest.fixture
def bridge(client: redis.Redis, tmp_path: Path) -> Iterator[SteppedBridge]:
    stepped = SteppedBridge(tmp_path, RedisSocket(client), [TRADES, DEPTH])
    yield stepped
    stepped.end()


def receive(bridge: SteppedBridge, connection: int, number: int) -> None:
    """Receive one trade and one depth message of this number."""
    for frame, numbers in (
        (frames.TRADE, {"t": number}),
        (frames.DEPTH, dict.fromkeys("Uu", number)),
    ):
        message = json.loads(frame)
        message["data"] |= {"E": bridge.now_us, "T": bridge.now_us, **numbers}
        bridge.receive(json.dumps(message), connection)


def gaps(bridge: SteppedBridge) -> list[tuple[str, str, str]]:
    return [
        (name, entry["from"], entry["to"])
        for name in (DEPTH, TRADES)
        for entry in bridge.entries(name)
        if entry["type"] == "gap" and entry["cause"] != "start"
    ]


def logged(bridge: SteppedBridge) -> list[tuple[str, str, str]]:
    return sorted((e["stream"], e["from"], e["to"]) for e in bridge.entries(GAP_LOG))


# entries in a batch: the kill comes directly after the gap, or later
@pytest.mark.parametrize("limit", [1, 100])
def test_gap_log_bridge_killed_before_it_logged_a_gap_logs_it_after_the_restart(
    limit: int, bridge: SteppedBridge
) -> None:
    connection = bridge.connect()
    receive(bridge, connection, 1000)
    bridge.come_to_rest()
    bridge.save_checkpoint()
    receive(bridge, connection, 1003)
    while len(gaps(bridge)) < 2:
        bridge.now_us += MINUTE_US
        bridge.publish(limit)
    bridge.kill()
    assert logged(bridge) == []

    bridge.start()
    receive(bridge, bridge.connect(), 1004)
    bridge.come_to_rest()

    assert logged(bridge) == gaps(bridge) == [(DEPTH, "1001", "1002"), (TRADES, "1001", "1002")]


def test_gap_log_deleted_has_the_gap_again_once_the_journal_is_read_again(
    bridge: SteppedBridge, client: redis.Redis
) -> None:
    connection = bridge.connect()
    receive(bridge, connection, 1000)
    receive(bridge, connection, 1003)
    bridge.come_to_rest()
    bridge.now_us += MINUTE_US
    bridge.come_to_rest()
    expected = [(DEPTH, "1001", "1002"), (TRADES, "1001", "1002")]
    assert logged(bridge) == expected
    client.delete(GAP_LOG)
    bridge.kill()

    bridge.start()  # without a checkpoint the bridge reads the whole journal
    bridge.come_to_rest()

    assert logged(bridge) == gaps(bridge) == expected
