"""Trimming that waits for named groups: what they have not settled stays, in bounds of memory."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from redis.asyncio import Redis

from bridge.contract.streams import parse_stream
from bridge.publish.append import Limits
from bridge.publish.trimming import Trimming
from bridge.runtime.redis_client import connect
from tests.support.bridge_run import running_bridge
from tests.support.eventually import eventually_async
from tests.support.simulator_process import running_simulator

STREAM = "trade.SOL_USDC"
GIB = 1024**3


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[Redis]:
    async with connect(redis_url, name="test") as redis:
        async with redis.pipeline(transaction=False) as pipeline:
            for number in range(1, 5001):
                pipeline.xadd(STREAM, {"a": "b" * 20}, id=f"{number}-0")
            await pipeline.execute()
        yield redis


@contextlib.asynccontextmanager
async def trimming(
    client: Redis,
    *groups: str,
    until_bytes: int = GIB,
    age_ms: bytes = b"",
    entries: bytes = b"500",
) -> AsyncIterator[None]:
    one = Trimming(
        client,
        "",
        lambda: [parse_stream(STREAM)],
        lambda _: Limits(max_entries=entries, max_age_ms=age_ms),
        groups,
        until_bytes,
    )
    task = asyncio.create_task(one.run())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def at_most(client: Redis, length: int) -> Callable[[], object]:
    async def fact() -> bool:
        return int(await client.xlen(STREAM)) <= length

    return fact


async def first(client: Redis) -> int:
    [(entry_id, _)] = await client.xrange(STREAM, count=1)
    return int(entry_id.split(b"-")[0])


async def test_without_such_a_group_retention_is_kept(client: Redis) -> None:
    await client.xgroup_create(STREAM, "other", "0")
    async with trimming(client, "archive"):
        await eventually_async(at_most(client, 600), "trimmed to about 500")


async def test_what_a_named_group_has_not_read_stays(client: Redis) -> None:
    await client.xgroup_create(STREAM, "archive", "3000-0")
    async with trimming(client, "archive"):
        await eventually_async(at_most(client, 2200), "trimmed to where the group is")
        assert 2800 < await first(client) <= 3000
        await client.xgroup_setid(STREAM, "archive", "5000-0")
        await eventually_async(at_most(client, 600), "the group has read on")


async def test_what_is_in_hand_stays_too(client: Redis) -> None:
    await client.xgroup_create(STREAM, "archive", "999-0")
    await client.xreadgroup("archive", "one", {STREAM: ">"}, count=4000)
    async with trimming(client, "archive"):
        await eventually_async(at_most(client, 4200), "trimmed to the oldest one in hand")
        assert await first(client) <= 1000


async def test_an_age_waits_as_well(client: Redis) -> None:
    await client.xgroup_create(STREAM, "archive", "3000-0")
    async with trimming(client, "archive", entries=b"", age_ms=b"100"):
        await eventually_async(at_most(client, 2200), "trimmed to where the group is")
        assert await first(client) <= 3000


async def test_beyond_the_memory_given_retention_alone_counts(client: Redis) -> None:
    await client.xgroup_create(STREAM, "archive", "0")
    async with trimming(client, "archive", until_bytes=1):
        await eventually_async(at_most(client, 600), "trimmed without waiting")


@pytest.mark.timeout(200)
async def test_a_bridge_keeps_what_a_named_group_has_not_read(
    redis_url: str, tmp_path: Path
) -> None:
    async with (
        running_simulator("--rate", "500") as simulator,
        connect(redis_url, name="test", decode_responses=True) as client,
        running_bridge(
            tmp_path,
            simulator.ws_url,
            redis_url,
            [STREAM],
            retention={"trade": {"max_entries": 50}},
            slow_groups={"wait_for": ["archive"]},
        ) as bridge,
    ):
        await eventually_async(lambda: client.exists(STREAM), "the stream is there")
        await client.xgroup_create(STREAM, "archive", "0")
        await eventually_async(lambda: "retention_waits" in bridge.log(), "it waits", 60)
        length = int(await client.xlen(STREAM))

        async def grown() -> bool:
            return int(await client.xlen(STREAM)) > length + 200

        async def oldest() -> str:
            [(entry_id, _)] = await client.xrange(STREAM, count=1)
            return str(entry_id)

        await eventually_async(grown, "far more is kept than retention says", 60)
        kept = await oldest()
        await client.xgroup_setid(STREAM, "archive", "$")

        async def gone() -> bool:
            return await oldest() != kept

        await eventually_async(gone, "and goes when the group has read it", 60)
