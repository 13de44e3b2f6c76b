"""Which streams there are, which of them a consumer wants, and which groups there are.

The bridge's registry is the only source: a stream that is not in it does not exist for the kit,
one that is may still be without entries.
"""

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple, cast

from redis.asyncio import Redis

from bridge.contract.streams import is_stream
from bridge.runtime.nearest import nearest
from consumers.kit.redis.keys import Keys


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


async def group_names(redis: Redis, keys: Keys) -> list[str]:
    """All groups that have ever had a worker, sorted."""
    return sorted(cast("list[str]", await redis.hkeys(keys.groups)))
