"""One poll of Redis: registry, statuses, and each stream's counters and newest entry.

Reads in pipelines of bounded size and writes nothing. A stream that does not exist yet is no error,
nor is one whose shard's node is unavailable while the first shard answers. Without the first shard,
`read_sample` returns what the remaining shards have.
"""

import asyncio
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from math import isfinite
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import AuthenticationError, RedisError, ResponseError

from bridge.contract import keys
from bridge.contract.streams import is_stream
from bridge.runtime.keyspace import KeySpace
from bridge.runtime.redis_shards import shards_of
from bridge.runtime.redis_trouble import reason
from bridge.runtime.refusals import Refusal, meaning, raise_not_allowed
from bridge.runtime.stream_search import streams_beside
from bridge.view.facts import (
    BridgeStatus,
    Followed,
    Sample,
    StreamFacts,
    WorkerStatus,
    read_statuses,
)

UNAVAILABLE = (RedisError, OSError, TimeoutError)  # what every use of the client may raise
DEAD_US = 10_000_000  # about the silence after which a group counts a worker as dead
_CHUNK = 256  # streams in one pipeline


def failure_sentence(error: BaseException, where: str = "Redis") -> str:
    """The error as a sentence: a Redis that refuses access does answer, and retries do not help."""
    refuses = isinstance(error, AuthenticationError) or meaning(error) is Refusal.NOT_ALLOWED
    return f"{where} {'refuses us' if refuses else 'does not answer'}: {reason(error)}"


async def read_sample(client: Redis, space: KeySpace, known: Collection[str] = ()) -> Sample:
    """`read_everything`, or, without the first of several shards, what the remaining ones have: no
    bridges and no workers, and the `known` streams, else those found by a scan.
    """
    try:
        return await read_everything(client, space)
    except UNAVAILABLE as error:
        if space.shards == 1 or isinstance(error, ResponseError):
            raise
        sample = await _without_first_shard(client, space, known, reason(error))
        if len(sample.unavailable) == space.shards:
            raise
        return sample


async def read_everything(client: Redis, space: KeySpace) -> Sample:
    """One poll. `client` decodes responses. Raises the Redis client's errors."""
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
    memory = await _memory(client)  # of several shards, the first, which has the statuses
    read_bridges, unread_bridges = read_statuses(BridgeStatus, bridges)
    read_workers, unread_workers = read_statuses(WorkerStatus, workers)
    now_us = int(seconds) * 1_000_000 + int(micros)
    read_workers = await _by_redis_clock(client, space, read_workers, now_us)
    names = sorted(filter(is_stream, registry))
    unavailable: dict[int, str] = {}
    streams = await _streams(client, space, [*names, keys.QUARANTINE], unavailable)
    return Sample(
        now_us=now_us,
        bridges=read_bridges,
        workers=read_workers,
        quarantine=streams.pop(keys.QUARANTINE),
        streams=streams,
        unreadable=unread_bridges + unread_workers + len(registry) - len(names),
        redis_full=memory_trouble(memory, "Redis" if space.shards == 1 else "shard 0"),
        unavailable=unavailable,
    )


async def _without_first_shard(
    client: Redis, space: KeySpace, known: Collection[str], why: str
) -> Sample:
    unavailable = {0: why}
    async with asyncio.TaskGroup() as tasks:
        clocks = [tasks.create_task(_clock(one)) for one in shards_of(client)[1:]]
    now_us = 0
    for shard, task in enumerate(clocks, 1):
        match task.result():
            case int(shard_us):
                now_us = max(now_us, shard_us)
            case str(text):
                unavailable[shard] = f"shard {shard} does not answer: {text}"
    names = list(known)
    if not names:
        names, silent = await streams_beside(client, space, unavailable)
        unavailable |= {n: f"shard {n} does not answer: {reason(why)}" for n, why in silent.items()}
    reachable = [name for name in names if space.shard_of(name) not in unavailable]
    streams = await _streams(client, space, reachable, unavailable)
    absent = {name: StreamFacts(is_unavailable=True) for name in names if name not in streams}
    shards = dict(sorted(unavailable.items()))
    return Sample(now_us=now_us, streams=streams | absent, unavailable=shards)


async def _clock(shard: Redis) -> int | str:
    """The shard's time, µs, or why it does not answer."""
    try:
        seconds, micros = await shard.time()
    except UNAVAILABLE as error:
        return reason(error)
    return int(seconds) * 1_000_000 + int(micros)


async def _memory(client: Redis) -> Mapping[str, Any]:
    """Memory figures of Redis; empty where this user may not run INFO."""
    try:
        info: Any = await client.info("memory")
    except ResponseError:
        return {}
    return info if isinstance(info, dict) else {}


def memory_trouble(memory: Mapping[str, Any], what: str = "Redis") -> str:
    """Why `what` refuses every write, statuses included; empty where it does not."""
    used, most = memory.get("used_memory", 0), memory.get("maxmemory", 0)
    if not most or used < most or memory.get("maxmemory_policy") != "noeviction":
        return ""
    return (
        f"{what} is full (OOM): it uses {used / 2**20:,.1f} of {most / 2**20:,.1f} MB, and takes "
        "nothing more, no status either"
    )


async def newest(client: Redis, space: KeySpace, stream: str, count: int) -> list[Followed]:
    """The newest entries of a stream, newest first. Raises the Redis client's errors."""
    found: Any = await client.xrevrange(space.key(stream), count=count)
    return [Followed(stream, entry_id, fields) for entry_id, fields in found]


async def _streams(
    client: Redis, space: KeySpace, names: Sequence[str], unavailable: dict[int, str]
) -> dict[str, StreamFacts]:
    """Facts of each stream; adds the reason to `unavailable` for a shard that does not answer."""
    found: dict[str, StreamFacts] = {}
    for part in _chunks(names):
        pipeline = client.pipeline(transaction=False)
        for name in part:
            pipeline.xinfo_stream(space.key(name))
            pipeline.xrevrange(space.key(name), count=1)
        replies = await pipeline.execute(raise_on_error=False)
        raise_not_allowed(replies)
        for name, info, newest in zip(part, replies[::2], replies[1::2], strict=True):
            if (
                space.shards > 1
                and isinstance(info, UNAVAILABLE)
                and not isinstance(info, ResponseError)
            ):
                found[name] = StreamFacts(is_unavailable=True)
                unavailable[space.shard_of(name)] = reason(info)
            else:
                found[name] = _facts(info, newest)
    return found


async def _by_redis_clock(
    client: Redis, space: KeySpace, workers: Sequence[WorkerStatus], now_us: int
) -> tuple[WorkerStatus, ...]:
    """The workers, each with its last heartbeat by the clock of Redis: a worker's own clock may be
    wrong. A worker without one has been silent for longer than its group waits.
    """
    groups = sorted({worker.group for worker in workers})
    pipeline = client.pipeline(transaction=False)
    for group in groups:
        pipeline.zrange(space.key(f"consumers:workers:{group}"), 0, -1, withscores=True)
    replies = await pipeline.execute(raise_on_error=False) if groups else []
    raise_not_allowed(replies)
    beats = {
        (group, name.partition("/")[0]): int(ms) * 1000
        for group, members in zip(groups, replies, strict=True)
        if not isinstance(members, Exception)
        for name, ms in members
        if isfinite(ms)  # not if another program wrote it
    }
    dead_us = now_us - DEAD_US
    return tuple(
        worker.model_copy(
            update={
                "redis_us": beats.get(
                    (worker.group, worker.consumer), min(worker.updated_us, dead_us)
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
