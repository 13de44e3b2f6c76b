"""The registered streams, the streams that a consumer reads, and the groups.

The bridge's registry is the only source: a stream that is not in it does not exist for the kit; a
registered stream may be empty. Only the read-only `known_in` can work without the registry.
"""

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple, cast

from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from bridge.contract.streams import is_stream
from bridge.runtime.nearest import nearest
from bridge.runtime.refusals import raise_not_allowed
from bridge.runtime.stream_search import streams_beside
from consumers.kit.redis.keys import Keys

FIRST_SHARD = 0  # the only shard with the registry and the workers' statuses
LOST = (RedisConnectionError, RedisTimeoutError, OSError)  # errors that mean: no answer


def choose(names: Iterable[str], patterns: Sequence[str]) -> tuple[str, ...]:
    """The names that match one of the patterns (`trade.*`), sorted."""
    return tuple(sorted(n for n in names if any(fnmatchcase(n, p) for p in patterns)))


def near_misses(names: Sequence[str], patterns: Sequence[str]) -> list[str]:
    """Suggestions for patterns that match nothing: a stream, or all streams of a type."""
    of_types = {f"{name.partition('.')[0]}.*" for name in names}
    known = sorted(of_types) + sorted(names)
    return [near for pattern in patterns for near in nearest(pattern, known, limit=1)]


class Registered(NamedTuple):
    """The streams of the registry, and its names that are not valid stream names."""

    streams: list[str]
    refused: list[str]


async def registered(redis: Redis, keys: Keys) -> Registered:
    """The names in the registry. They are checked, since names become parts of keys and paths."""
    names = Registered([], [])
    for name in cast("list[str]", await redis.hkeys(keys.registry)):
        (names.streams if is_stream(name) else names.refused).append(name)
    return names


async def stream_names(redis: Redis, keys: Keys) -> list[str]:
    """All valid stream names of the registry."""
    return (await registered(redis, keys)).streams


class Known(NamedTuple):
    """Group → JSON about it; streams; `unavailable`: shard that does not answer → reason."""

    groups: Mapping[str, str]
    streams: Sequence[str]
    unavailable: Mapping[int, str]


async def known_in(redis: Redis, keys: Keys, *, in_part: bool) -> Known:
    """The groups and streams, from the first shard. With `in_part` and several shards, if the first
    one does not answer, those found in the other shards: of their groups only the names are known.
    Raises what Redis raises.
    """
    try:
        groups = cast("dict[str, str]", await redis.hgetall(keys.groups))
        return Known(groups, await stream_names(redis, keys), {})
    except LOST as error:
        if not in_part or keys.space.shards == 1:
            raise
        streams, silent = await streams_beside(redis, keys.space, {FIRST_SHARD})
        unavailable = {n: f"shard {n} does not answer: {why}" for n, why in silent.items()}
        if 1 + len(unavailable) == keys.space.shards:
            raise
        names = await _groups_in(redis, keys, streams)
        return Known(dict.fromkeys(names, "{}"), streams, {FIRST_SHARD: str(error), **unavailable})


async def _groups_in(redis: Redis, keys: Keys, streams: Iterable[str]) -> Iterable[str]:
    """The names of the Redis consumer groups of these streams: each group of the kit has one in
    each of its streams."""
    async with redis.pipeline(transaction=False) as pipeline:
        for stream in streams:
            pipeline.xinfo_groups(keys.stream(stream))
        replies = await pipeline.execute(raise_on_error=False)
    raise_not_allowed(replies)
    answered = (reply for reply in replies if not isinstance(reply, Exception))
    return sorted({one["name"] for groups in answered for one in groups})


async def group_names(redis: Redis, keys: Keys) -> list[str]:
    """All groups that have ever had a worker, sorted."""
    return sorted(cast("list[str]", await redis.hkeys(keys.groups)))
