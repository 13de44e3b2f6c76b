"""Which streams there are, which of them a consumer wants, and which groups there are.

The bridge's registry is the only source: a stream that is not in it does not exist for the kit,
one that is may still be without entries.
"""

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import cast

from redis.asyncio import Redis

from bridge.runtime.nearest import nearest
from consumers.keys import Keys


def choose(names: Iterable[str], patterns: Sequence[str]) -> tuple[str, ...]:
    """The names that fit one of the patterns (`trade.*`), sorted."""
    return tuple(sorted(n for n in names if any(fnmatchcase(n, p) for p in patterns)))


def near_misses(names: Sequence[str], patterns: Sequence[str]) -> list[str]:
    """What may have been meant by patterns that fit nothing: streams, or all of a type."""
    of_types = {f"{name.partition('.')[0]}.*" for name in names}
    known = sorted(of_types) + sorted(names)
    return [near for pattern in patterns for near in nearest(pattern, known, limit=1)]


async def stream_names(redis: Redis, keys: Keys) -> list[str]:
    """All streams of the registry."""
    return cast("list[str]", await redis.hkeys(keys.registry))


async def group_names(redis: Redis, keys: Keys) -> list[str]:
    """All groups that have ever had a worker, sorted."""
    return sorted(cast("list[str]", await redis.hkeys(keys.groups)))
