"""Trimming that waits for named groups: unsettled entries are kept, up to the memory limit."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from bridge.contract.streams import Stream, parse_stream
from bridge.redis.append import Limits, Retention
from bridge.redis.trimming import Trimming
from bridge.runtime.keyspace import KeySpace
from bridge.runtime.redis_client import connect
from tests.support.bridge_run import running_bridge
from tests.support.eventually import eventually_async
from tests.support.simulator_process import running_simulator

STREAM = "trade.SOL_USDC"
OTHER = "trade.JUP_USDC"  # with four shards, in another shard than STREAM
GIB = 1024**3


class Reporter:
    """Streams, and the retention of each."""

    def __init__(self, limits: Limits, names: Sequence[str] = (STREAM,)) -> None:
        self._limits = limits
        self._names = names

    def streams(self) -> dict[str, Stream]:
        return {name: parse_stream(name) for name in self._names}

    def retention(self) -> Retention:
        return Retention({"trade": self._limits}, waits_for_groups=True)


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
    age_ms: str = "",
    entries: str = "500",
) -> AsyncIterator[None]:
    one = Trimming(client, KeySpace(), Reporter(Limits(entries, age_ms)), groups, until_bytes)
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


async def test_trimming_of_a_shard_leaves_the_streams_of_others(client: Redis) -> None:
    space = KeySpace("{a}:", 4)
    key, other = space.key(STREAM), space.key(OTHER)
    await client.rename(STREAM, key)
    await client.copy(key, other)
    reporter = Reporter(Limits("500"), (STREAM, OTHER))
    one = Trimming(client, space, reporter, (), GIB, space.shard_of(OTHER))
    async with asyncio.TaskGroup() as tasks:
        trimming_other = tasks.create_task(one.run())
        while await client.xlen(other) > 600:
            await asyncio.sleep(0.02)
        trimming_other.cancel()
    assert await client.xlen(key) == 5000


async def test_trimming_of_a_refused_stream_leaves_no_other_untrimmed(client: Redis) -> None:
    await client.set(OTHER, "of another program")
    reporter = Reporter(Limits("500"), (OTHER, STREAM))
    one = Trimming(client, KeySpace(), reporter, ("archive",), GIB)
    with capture_logs() as logs:
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(one.run())
            await eventually_async(at_most(client, 600), "the other stream is trimmed")
            task.cancel()
    assert [(log["event"], log["stream"]) for log in logs] == [("trimming_refused", OTHER)]


async def test_trimming_without_rights_is_logged_once(client: Redis) -> None:
    rights = {"enabled": True, "passwords": ["+pw"], "keys": ["*"], "categories": ["+@all"]}
    await client.acl_setuser("poor", **rights, commands=["-xlen"])
    await client.acl_log_reset()
    options = client.connection_pool.connection_kwargs
    url = f"redis://poor:pw@{options['host']}:{options['port']}"

    async def is_refused_again() -> bool:
        return sum(int(each["count"]) for each in await client.acl_log()) >= 3

    with capture_logs() as logs:
        async with connect(url, name="test") as poor, trimming(poor, "archive"):
            await eventually_async(is_refused_again, "it is refused again and again")
    [refused] = [log for log in logs if log["log_level"] == "warning"]
    assert refused["event"] == "trimming_refused"
    assert "xlen" in refused["reason"].lower()


async def test_trimming_without_the_group_follows_retention(client: Redis) -> None:
    await client.xgroup_create(STREAM, "other", "0")
    async with trimming(client, "archive"):
        await eventually_async(at_most(client, 600), "trimmed to about 500")


async def test_trimming_keeps_entries_that_a_group_has_not_read(client: Redis) -> None:
    await client.xgroup_create(STREAM, "archive", "3000-0")
    async with trimming(client, "archive"):
        await eventually_async(at_most(client, 2200), "trimmed to the group's position")
        assert 2800 < await first(client) <= 3000
        await client.xgroup_setid(STREAM, "archive", "5000-0")
        await eventually_async(
            at_most(client, 600), "trimmed to about 500 after the group has read"
        )


async def test_trimming_group_with_pending_entries_keeps_them(client: Redis) -> None:
    await client.xgroup_create(STREAM, "archive", "999-0")
    await client.xreadgroup("archive", "one", {STREAM: ">"}, count=4000)
    async with trimming(client, "archive"):
        await eventually_async(at_most(client, 4200), "trimmed to the oldest pending entry")
        assert await first(client) <= 1000


async def test_trimming_by_age_waits_for_the_group(client: Redis) -> None:
    await client.xgroup_create(STREAM, "archive", "3000-0")
    async with trimming(client, "archive", entries="", age_ms="100"):
        await eventually_async(at_most(client, 2200), "trimmed to the group's position")
        assert await first(client) <= 3000


async def test_trimming_beyond_the_memory_limit_waits_for_no_group(client: Redis) -> None:
    await client.xgroup_create(STREAM, "archive", "0")
    async with trimming(client, "archive", until_bytes=1):
        await eventually_async(at_most(client, 600), "trimmed without waiting")


@pytest.mark.timeout(200)
async def test_bridge_slow_group_keeps_its_entries_until_it_has_read_them(
    redis_url: str, tmp_path: Path
) -> None:
    async with (
        running_simulator("--rate", "500", "--market", "SOL_USDC") as simulator,
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
        await eventually_async(lambda: client.exists(STREAM), "the stream exists")
        await client.xgroup_create(STREAM, "archive", "0")
        await eventually_async(
            lambda: "retention_waits" in bridge.log(), "the log has retention_waits", 60
        )
        length = int(await client.xlen(STREAM))

        async def grown() -> bool:
            return int(await client.xlen(STREAM)) > length + 200

        async def oldest() -> str:
            [(entry_id, _)] = await client.xrange(STREAM, count=1)
            return str(entry_id)

        await eventually_async(grown, "more entries are kept than retention allows", 60)
        kept = await oldest()
        await client.xgroup_setid(STREAM, "archive", "$")

        async def gone() -> bool:
            return await oldest() != kept

        await eventually_async(gone, "they are trimmed once the group has read them", 60)
