import asyncio
import random
from collections.abc import Sequence
from typing import cast

import pytest

from bridge.core.peers import Peers
from bridge.core.queue import Owner, QueueTable, StreamQueue
from bridge.redis import publisher as publisher_module
from bridge.redis.append import Retention
from bridge.redis.connection import ConnectionLost, RedisConnection, Target
from bridge.redis.outbox import Change, Outbox, OutboxSettings
from bridge.redis.publisher import Publisher
from bridge.redis.shards import Publishers
from bridge.runtime.backoff import Backoff
from bridge.runtime.clock import SystemClock
from tests.support.queues import sequenced


class Pumped:
    """A publisher that counts its calls of `pump`."""

    def __init__(self) -> None:
        self.times = 0

    def pump(self) -> None:
        self.times += 1


def test_publishers_of_all_shards_send_at_once() -> None:
    each = [Pumped(), Pumped(), Pumped()]
    Publishers([cast("Publisher", one) for one in each]).pump()
    assert [one.times for one in each] == [1, 1, 1]


class Recovering:
    """A recovery that may wait for a shard's streams."""

    def __init__(self, *, waits: bool) -> None:
        self.suspended = asyncio.Event()
        self._waits = waits

    def before_publishing(self) -> None:
        pass

    def redis_changed(self, change: Change, queue: StreamQueue) -> None:
        pass

    def behind_bytes(self) -> int:
        return 0

    def waits_for(self, queues: Sequence[StreamQueue]) -> bool:
        return self._waits

    def suspend(self, queues: Sequence[StreamQueue], reason: str) -> int:
        self.suspended.set()
        return len(queues)


@pytest.mark.parametrize("waits", [True, False])
async def test_publisher_of_an_unavailable_shard_suspends_streams_that_a_backfill_waits_for(
    waits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refused(target: Target, timeout_s: float) -> RedisConnection:
        raise ConnectionLost("cannot connect to Redis")

    monkeypatch.setattr(publisher_module, "connect", refused)
    table, recovery = QueueTable(), Recovering(waits=waits)
    publisher = Publisher(
        Outbox(table, Peers(), OutboxSettings("{b.1}:", 500, 5.0), Retention()),
        table,
        recovery,
        Target.from_url("redis://127.0.0.1:1"),
        connect_timeout_s=1.0,
        clock=SystemClock(),
        backoff=Backoff(0.01, 0.02, random.Random(1)),
        shard=1,
        kept_bytes=1_000_000,
    )
    table.add(sequenced(1, 2, 3), cast("Owner", None))
    task = asyncio.create_task(publisher.run())
    await asyncio.wait(
        [task, asyncio.create_task(recovery.suspended.wait())],
        timeout=0.5,
        return_when=asyncio.FIRST_COMPLETED,
    )
    task.cancel()

    assert recovery.suspended.is_set() is waits
