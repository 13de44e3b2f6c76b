"""One look at Redis: registry, statuses, and each stream's counters and newest entry.

Reads in pipelines of bounded size and writes nothing. A stream that does not exist yet is no error,
nor is one whose shard's node is away while the first shard's is there.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from math import isfinite
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from bridge.contract import keys
from bridge.contract.streams import is_stream
from bridge.runtime.keyspace import KeySpace
from bridge.runtime.masking import masked_text
from bridge.runtime.terminal import printable
from bridge.view.facts import (
    BridgeStatus,
    Followed,
    Sample,
    StreamFacts,
    WorkerStatus,
    read_statuses,
)

AWAY = (RedisError, OSError, TimeoutError)  # what every use of the client may raise
GONE_US = 10_000_000  # how long a worker may be silent before its group counts it out, about
_CHUNK = 256  # streams asked for in one pipeline


def reason(error: BaseException) -> str:
    """Why Redis did not answer, in words."""
    return printable(masked_text(str(error))) or type(error).__name__


async def look(client: Redis, space: KeySpace) -> Sample:
    """Everything at once. `client` decodes responses. Raises what the Redis client raises."""
    pipeline = client.pipeline(transaction=False)
    pipeline.time()
    hashes = [space.key(key) for key in (keys.STREAMS, keys.STATUS, keys.CONSUMERS_STATUS)]
    for key in hashes:
        pipeline.hgetall(key)
    replies = await pipeline.execute(raise_on_error=False)
    for key, reply in zip(("TIME", *hashes), replies, strict=True):
        if isinstance(reply, ResponseError):
            raise ResponseError(f"{key}: {reply}")
        if isinstance(reply, Exception):
            raise reply
    (seconds, micros), registry, bridges, workers = replies
    memory = await _memory(client) if space.shards == 1 else {}
    told_bridges, unread_bridges = read_statuses(BridgeStatus, bridges)
    told_workers, unread_workers = read_statuses(WorkerStatus, workers)
    now_us = int(seconds) * 1_000_000 + int(micros)
    told_workers = await _by_redis_clock(client, space, told_workers, now_us)
    names = sorted(filter(is_stream, registry))
    streams = await _streams(client, space, [*names, keys.QUARANTINE])
    return Sample(
        now_us=now_us,
        bridges=told_bridges,
        workers=told_workers,
        quarantine=streams.pop(keys.QUARANTINE),
        streams=streams,
        unreadable=unread_bridges + unread_workers + len(registry) - len(names),
        redis_full=full_words(memory),
    )


async def _memory(client: Redis) -> Mapping[str, Any]:
    """What Redis uses; nothing where this user may not ask."""
    try:
        told: Any = await client.info("memory")
    except ResponseError:
        return {}
    return told if isinstance(told, dict) else {}


def full_words(memory: Mapping[str, Any]) -> str:
    """Why Redis refuses every write, statuses too; empty where it does not."""
    used, most = memory.get("used_memory", 0), memory.get("maxmemory", 0)
    if not most or used < most or memory.get("maxmemory_policy") != "noeviction":
        return ""
    return (
        f"Redis is full (OOM): it uses {used / 2**20:,.1f} of {most / 2**20:,.1f} MB, and takes "
        "nothing more, no status either"
    )


async def newest(client: Redis, space: KeySpace, stream: str, count: int) -> list[Followed]:
    """The newest entries of a stream, the newest first. Raises what the Redis client raises."""
    found: Any = await client.xrevrange(space.key(stream), count=count)
    return [Followed(stream, entry_id, fields) for entry_id, fields in found]


async def _streams(client: Redis, space: KeySpace, names: Sequence[str]) -> dict[str, StreamFacts]:
    found: dict[str, StreamFacts] = {}
    for part in _chunks(names):
        pipeline = client.pipeline(transaction=False)
        for name in part:
            pipeline.xinfo_stream(space.key(name))
            pipeline.xrevrange(space.key(name), count=1)
        replies = iter(await pipeline.execute(raise_on_error=False))
        for name in part:
            info, newest = next(replies), next(replies)
            if space.shards > 1 and isinstance(info, AWAY) and not isinstance(info, ResponseError):
                found[name] = StreamFacts(is_away=True)
            else:
                found[name] = _facts(info, newest)
    return found


async def _by_redis_clock(
    client: Redis, space: KeySpace, workers: Sequence[WorkerStatus], now_us: int
) -> tuple[WorkerStatus, ...]:
    """The same, each with the time of its last heartbeat as Redis has it: a worker's own clock may
    be wrong. One that has none any more has been silent for longer than its group waits.
    """
    groups = sorted({worker.group for worker in workers})
    pipeline = client.pipeline(transaction=False)
    for group in groups:
        pipeline.zrange(space.key(f"consumers:workers:{group}"), 0, -1, withscores=True)
    replies = await pipeline.execute(raise_on_error=False) if groups else []
    beats = {
        (group, name.partition("/")[0]): int(ms) * 1000
        for group, members in zip(groups, replies, strict=True)
        if not isinstance(members, Exception)
        for name, ms in members
        if isfinite(ms)  # another program has written something else
    }
    gone_us = now_us - GONE_US
    return tuple(
        worker.model_copy(
            update={
                "redis_us": beats.get(
                    (worker.group, worker.consumer), min(worker.updated_us, gone_us)
                )
            }
        )
        for worker in workers
    )


def _facts(info: Mapping[str, Any] | Exception, newest: Any) -> StreamFacts:
    for reply in (info, newest):
        if isinstance(reply, Exception) and not isinstance(reply, ResponseError):
            raise reply
    if isinstance(info, Exception) or isinstance(newest, Exception):
        return StreamFacts()  # "no such key"
    return StreamFacts(
        length=info["length"],
        added=info.get("entries-added"),
        last_id=info["last-generated-id"],
        last=newest[0][1] if newest else None,
    )


def _chunks(names: Iterable[str]) -> Iterator[list[str]]:
    rest = iter(names)
    while part := list(islice(rest, _CHUNK)):
        yield part
