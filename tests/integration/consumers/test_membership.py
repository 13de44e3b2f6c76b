"""The streams that a worker keeps while the registry is lost and written again."""

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from bridge.runtime.redis_client import connect
from consumers.kit.membership import Membership
from consumers.kit.redis.keys import Keys

BOTH = ("trade.BTC_USDC", "trade.SOL_USDC")
BTC, SOL = BOTH
BEAT_S, LEASE_MS = 10.0, 60_000  # seven beats are longer than a lease


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[Redis]:
    async with connect(redis_url, name="test", decode_responses=True) as redis:
        yield redis


async def register(client: Redis, *streams: str) -> None:
    await client.hset("bridge:streams", mapping=dict.fromkeys(streams, "{}"))


@pytest.fixture
async def worker(client: Redis) -> Membership:
    """A membership that has read both streams from the registry."""
    await register(client, *BOTH)
    made = Membership(
        client, Keys(), "volume", "w0",
        mode="ordered", patterns=("trade.*",), beat_s=BEAT_S, lease_ms=LEASE_MS,
    )  # fmt: skip
    await made.beat("{}")
    assert made.streams == BOTH
    return made


async def test_stream_whose_bridge_registers_later_in_an_emptied_redis_is_kept(
    client: Redis, worker: Membership
) -> None:
    await client.flushall()
    await register(client, BTC)

    for _ in range(3):
        await worker.beat("{}")
        assert worker.streams == BOTH

    await register(client, SOL)
    for _ in range(10):  # longer than a lease
        await worker.beat("{}")
        assert worker.streams == BOTH


async def test_stream_that_is_not_registered_again_in_an_emptied_redis_is_removed_after_a_lease(
    client: Redis, worker: Membership
) -> None:
    await client.flushall()
    await register(client, BTC)

    for _ in range(10):
        await worker.beat("{}")

    assert worker.streams == (BTC,)


async def test_registry_that_was_lost_alone_and_is_written_in_two_parts_loses_no_stream(
    client: Redis, worker: Membership
) -> None:
    await client.delete("bridge:streams")
    await worker.beat("{}")
    assert worker.streams == BOTH
    await register(client, BTC)
    await worker.beat("{}")
    assert worker.streams == BOTH

    await register(client, SOL)
    await worker.beat("{}")
    assert worker.streams == BOTH


async def test_stream_that_is_taken_from_the_registry_is_removed_at_the_second_poll(
    client: Redis, worker: Membership
) -> None:
    await client.hdel("bridge:streams", SOL)

    await worker.beat("{}")
    assert worker.streams == BOTH
    await worker.beat("{}")
    assert worker.streams == (BTC,)
