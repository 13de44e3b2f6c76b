"""Another program writes into a sequenced stream, on a real server: no loss, no duplicate."""

import time
from pathlib import Path

import pytest
import redis

from tests.support.core_subject import TRADES, trade
from tests.support.stepped_bridge import RedisSocket, SteppedBridge

FIRST = 100


@pytest.mark.parametrize("ahead_s", [-3_600, 2, 3_600])
@pytest.mark.parametrize("count", [1, 10, 25])
def test_bridge_with_foreign_entries_in_its_stream_marks_them_and_loses_no_trade(
    tmp_path: Path, redis_url: str, count: int, ahead_s: int
) -> None:
    """`ahead_s`: by how many seconds the exchange's clock is ahead of the clock of Redis."""
    client = redis.Redis.from_url(redis_url, decode_responses=True)
    bridge = SteppedBridge(tmp_path, RedisSocket(client), [TRADES])
    bridge.now_us = int((time.time() + ahead_s) * 1_000_000)
    bridge.ingest.step(1_000)
    connection = bridge.connect()
    for number in range(FIRST, FIRST + 60):
        bridge.now_us += 1_000
        bridge.receive(trade(number, bridge.now_us), connection)
        while bridge.publish(1_000):
            pass
        if number == FIRST + 30:
            for _ in range(count):
                client.xadd(TRADES, {"by": "hand"})
    written = [entry.get("trade_id") or entry["cause"] for entry in bridge.entries(TRADES)]
    bridge.end()

    assert written == [
        "start",
        *map(str, range(FIRST, FIRST + 31)),
        "foreign",
        *map(str, range(FIRST + 31, FIRST + 60)),
    ]
    client.close()
