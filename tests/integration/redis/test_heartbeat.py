"""A bridge's status in Redis: when it was written, by the clock that viewers compare it with."""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from bridge.contract.streams import Stream
from bridge.core.peers import Peers, PeerStatus
from bridge.core.progress import Progress
from bridge.redis.heartbeat import Heartbeat
from bridge.runtime.clock import SystemClock
from bridge.runtime.keyspace import KeySpace
from bridge.runtime.redis_client import connect


class ShiftedClock(SystemClock):
    """A machine's clock that is off by so much."""

    def __init__(self, shift_us: int) -> None:
        super().__init__()
        self._shift_us = shift_us

    def wall_us(self) -> int:
        return super().wall_us() + self._shift_us

    def now_us(self) -> int:
        return super().now_us() + self._shift_us


class Reporter:
    """A bridge without streams."""

    async def status_in_steps(self) -> Mapping[str, Any]:
        return {"instance": "b"}

    def progress(self) -> Progress:
        return Progress()

    def streams(self) -> Mapping[str, Stream]:
        return {}

    def member(self) -> str:
        return ""

    def elsewhere(self) -> Mapping[str, str]:
        return {}


@pytest.mark.parametrize("shift_s", [-5, 5, -86_400])
async def test_a_status_says_when_it_was_written_by_the_clock_of_redis(
    redis_url: str, shift_s: int
) -> None:
    async with connect(redis_url, name="test", decode_responses=True) as client:
        clock = ShiftedClock(shift_s * 1_000_000)
        me = PeerStatus(instance="b", session="1")
        heartbeat = Heartbeat(client, KeySpace(), Reporter(), me, Peers(), clock)
        await heartbeat.begin()
        before_s, _ = await client.time()
        await heartbeat.beat()
        after_s, _ = await client.time()
        status = json.loads(await client.hget("bridge:status", "b") or "{}")

    assert before_s - 1 <= status["redis_us"] / 1_000_000 <= after_s + 1
