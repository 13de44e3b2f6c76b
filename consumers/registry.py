"""Which streams there are, which of them a consumer wants, and which groups there are.

The bridge's registry is the only source: a stream that is not in it does not exist for the kit,
one that is may still be without entries.
"""

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import cast

from redis.asyncio import Redis

from consumers.keys import Keys


def choose(names: Iterable[str], patterns: Sequence[str]) -> tuple[str, ...]:
    """The names that fit one of the patterns (`trade.*`), sorted."""
    return tuple(sorted(n for n in names if any(fnmatchcase(n, p) for p in patterns)))


async def stream_names(redis: Redis, keys: Keys) -> list[str]:
    """All streams of the registry."""
    return cast("list[str]", await redis.hkeys(keys.registry))


async def group_names(redis: Redis, keys: Keys) -> list[str]:
    """All groups that have ever had a worker, sorted."""
    return sorted(cast("list[str]", await redis.hkeys(keys.groups)))
