"""Which streams there are, which of them a consumer wants, and which groups there are.

The bridge's registry is the only source: a stream that is not in it does not exist for the kit,
one that is may still be without entries. Who only looks makes do without it.
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

FIRST_SHARD = 0  # it alone has the registry, and what workers tell of themselves
LOST = (RedisConnectionError, RedisTimeoutError, OSError)  # no answer, whatever it would have been


def choose(names: Iterable[str], patterns: Sequence[str]) -> tuple[str, ...]:
    """The names that fit one of the patterns (`trade.*`), sorted."""
    return tuple(sorted(n for n in names if any(fnmatchcase(n, p) for p in patterns)))


def near_misses(names: Sequence[str], patterns: Sequence[str]) -> list[str]:
    """What may have been meant by patterns that fit nothing: streams, or all of a type."""
    of_types = {f"{name.partition('.')[0]}.*" for name in names}
    known = sorted(of_types) + sorted(names)
    return [near for pattern in patterns for near in nearest(pattern, known, limit=1)]


class Registered(NamedTuple):
    """The streams of the registry, and names in it that can be no stream: not to be used."""

    streams: list[str]
    refused: list[str]


async def registered(redis: Redis, keys: Keys) -> Registered:
    """What is in the registry. A name may come to stand in a key, or in a path of a file."""
    found = Registered([], [])
    for name in cast("list[str]", await redis.hkeys(keys.registry)):
        (found.streams if is_stream(name) else found.refused).append(name)
    return found


async def stream_names(redis: Redis, keys: Keys) -> list[str]:
    """All streams of the registry."""
    return (await registered(redis, keys)).streams


class Known(NamedTuple):
    """Streams, and groups with what is known of each (JSON); `away`: shards that do not answer, and
    why.
    """

    groups: Mapping[str, str]
    streams: Sequence[str]
    unavailable: Mapping[int, str]


async def known_in(redis: Redis, keys: Keys, *, in_part: bool) -> Known:
    """What there is, as the first shard tells. Of several shards, and `in_part`, what is found in
    the others where the first one does not answer: nothing is known of their groups but the names.
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
    """Those that Redis knows in these streams: each group of the kit is one in its streams."""
    async with redis.pipeline(transaction=False) as pipeline:
        for stream in streams:
            pipeline.xinfo_groups(keys.stream(stream))
        replies = await pipeline.execute(raise_on_error=False)
    raise_not_allowed(replies)
    told = (reply for reply in replies if not isinstance(reply, Exception))
    return sorted({one["name"] for groups in told for one in groups})


async def group_names(redis: Redis, keys: Keys) -> list[str]:
    """All groups that have ever had a worker, sorted."""
    return sorted(cast("list[str]", await redis.hkeys(keys.groups)))
