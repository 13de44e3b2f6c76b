"""A worker's health pages: alive during outages, ready only while it handles entries."""

import json
from dataclasses import dataclass, field
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from consumers.kit.membership import Membership
from consumers.kit.redis.keys import Keys
from consumers.kit.redis_health import RedisHealth
from consumers.kit.stats import Stats
from consumers.kit.stop import Stop
from consumers.kit.worker.health import WorkerPages
from consumers.kit.worker.watchdog import Watchdog


def membership(*streams: str, beats: int = 1) -> Membership:
    made = Membership(
        Redis.from_url("redis://127.0.0.1:1/0"), Keys(), "g", "w",
        mode="shared", patterns=("trade.*",), beat_s=1.0, lease_ms=10_000,
    )  # fmt: skip
    made.streams, made.beats = streams, beats
    return made


@dataclass
class Worker:
    """The parts of a worker that its pages report on; healthy by default."""

    membership: Membership = field(default_factory=lambda: membership("trade.A_B"))
    redis: RedisHealth = field(default_factory=lambda: RedisHealth("redis://here"))
    watchdog: Watchdog = field(default_factory=lambda: Watchdog(1, 1, Stats(lambda: 0)))

    async def ask(self, path: str) -> tuple[int, Any]:
        page = await WorkerPages(self.membership, [self.redis], self.watchdog).page(path)
        return page.status.value, json.loads(page.body)

    async def reasons(self) -> list[str]:
        code, reported = await self.ask("/readyz")
        assert code == (503 if reported["reasons"] else 200)
        assert reported["ready"] is not bool(reported["reasons"])
        return [each["reason"] for each in reported["reasons"]]


async def test_a_worker_that_reads_its_streams_is_ready() -> None:
    assert await Worker().reasons() == []


@pytest.mark.parametrize(
    ("its", "reason"),
    [
        (membership("trade.A_B", beats=0), "starting"),
        (membership(), "no_streams"),
    ],
)
async def test_a_worker_that_has_nothing_to_read_yet_states_the_reason(
    its: Membership, reason: str
) -> None:
    assert await Worker(membership=its).reasons() == [reason]


async def test_without_redis_a_worker_is_alive_but_not_ready_and_masks_the_password() -> None:
    worker, stop = Worker(), Stop()
    stop.set()
    error = RedisConnectionError("redis://u:hunter2@here refuses")
    await worker.redis.down("main", error, stop)

    reported = (await worker.ask("/readyz"))[1]["reasons"]
    assert [each["reason"] for each in reported] == ["redis_unavailable"]
    assert "hunter2" not in reported[0]["text"]
    assert await worker.ask("/healthz") == (200, {"alive": True})
    worker.redis.up("main")
    assert await worker.reasons() == []


async def test_a_handler_beyond_its_limit_is_a_reason_until_it_ends() -> None:
    worker = Worker()
    worker.watchdog.hangs = True
    assert await worker.reasons() == ["handler_hangs"]
    assert (await worker.ask("/healthz"))[0] == 200
