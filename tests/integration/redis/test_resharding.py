"""Keys copied to another number of shards, all in one real server: there, tags are only names."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from redis.asyncio import Redis
from redis.exceptions import NoPermissionError

from bridge.errors import Fatal
from bridge.redis.resharding import Resharding
from bridge.runtime.keyspace import KeySpace
from bridge.runtime.redis_client import connect
from tests.support.limited_user import as_limited, without

OLD, NEW = KeySpace("{b}:", 1), KeySpace("{b}:", 2)
STREAM = "trade.SOL_USDC"
OLD_KEY, NEW_KEY = OLD.key(STREAM), NEW.key(STREAM)


@asynccontextmanager
async def resharding(url: str) -> AsyncIterator[tuple[Redis, Resharding]]:
    async with connect(url, name="test") as redis:
        yield redis, Resharding(redis, OLD, redis, NEW)


@pytest.mark.parametrize("command", ["xinfo|stream", "exists", "scan", "unlink"])
async def test_old_keys_are_kept_unless_the_copy_is_proved_complete(
    command: str, redis_url: str
) -> None:
    async with resharding(redis_url) as (redis, _):
        for number in (1, 2):
            await redis.xadd(OLD_KEY, {"type": "trade"}, id=f"1700000000000-{number}")
        await redis.xadd(NEW_KEY, {"type": "trade"}, id="1700000000000-1")
        await redis.execute_command(*without(command))
        async with resharding(as_limited(redis_url)) as (_, limited):
            with pytest.raises((NoPermissionError, Fatal)):
                await limited.delete_old(await limited.plan())
        assert await redis.xlen(OLD_KEY) == 2


@pytest.mark.parametrize("command", ["xinfo|stream", "dump", "pttl", "restore", "hgetall", "hset"])
async def test_a_copy_without_a_command_that_it_needs_changes_no_old_key_and_names_the_command(
    command: str, redis_url: str
) -> None:
    async with resharding(redis_url) as (redis, whole):
        await redis.xadd(OLD_KEY, {"type": "trade"}, id="1700000000000-1")
        await redis.hset(OLD.key("bridge:streams"), STREAM, '{"type":"trade"}')
        await redis.execute_command(*without(command))
        async with resharding(as_limited(redis_url)) as (_, limited):
            with pytest.raises(NoPermissionError, match="no permissions to run the"):
                await limited.copy(await limited.plan())
        assert await redis.xlen(OLD_KEY) == 1
        assert await whole.copy(await whole.plan()) == 2, (
            "the second attempt did not copy both keys"
        )
        assert await redis.xlen(NEW_KEY) == 1


async def test_foreign_registry_fields_are_copied_unchanged(redis_url: str) -> None:
    lines = {b"trade.\xff": b"{}", b"depth.X": b"\xff", b"ticker.X": b"[1"}
    known = {STREAM.encode(): b'{"type":"trade"}'}
    async with resharding(redis_url) as (redis, whole):
        await redis.hset(OLD.key("bridge:streams"), mapping={**lines, **known})
        await whole.copy(await whole.plan())
        copied = await redis.hgetall(NEW.key("bridge:streams"))
    expected = f'{{"type":"trade","key":"{NEW_KEY}"}}'.encode()
    assert copied == {**lines, STREAM.encode(): expected}


async def test_old_keys_are_deleted_once_the_new_ones_have_all_of_them(redis_url: str) -> None:
    async with resharding(redis_url) as (redis, whole):
        await redis.xadd(OLD_KEY, {"type": "trade"}, id="1700000000000-1")
        moves = await whole.plan()
        with pytest.raises(Fatal, match="copy it first"):
            await whole.delete_old(moves)
        await whole.copy(moves)
        assert await whole.delete_old(moves) == len(moves)
        assert await redis.exists(OLD_KEY) == 0
        assert await redis.xlen(NEW_KEY) == 1


async def test_nothing_is_copied_over_a_stream_that_has_changed_since(redis_url: str) -> None:
    async with resharding(redis_url) as (redis, whole):
        await redis.xadd(OLD_KEY, {"type": "trade"}, id="1700000000000-1")
        await redis.xadd(NEW_KEY, {"type": "trade"}, id="1700000000000-2")
        with pytest.raises(Fatal, match="a bridge has published there since"):
            await whole.copy(await whole.plan())
        assert [one for one, _ in await redis.xrange(NEW_KEY)] == [b"1700000000000-2"]
