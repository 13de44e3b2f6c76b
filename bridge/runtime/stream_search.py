"""Finds the streams of the shards of a Cluster by their keys, for when the first shard, which has
the registry, does not answer.
"""

import re
from collections.abc import Collection
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from bridge.contract.streams import is_stream
from bridge.runtime.keyspace import KeySpace
from bridge.runtime.redis_shards import shards_of

_PAGE, _MOST_PAGES = 1000, 200  # keys of a page, pages of a shard


async def streams_beside(
    client: Redis, space: KeySpace, unavailable: Collection[int]
) -> tuple[list[str], dict[int, BaseException]]:
    """The streams of all shards but the `unavailable` ones, and each further shard that does not
    answer, with its error. `client` decodes responses.
    """
    found: list[str] = []
    silent: dict[int, BaseException] = {}
    for shard in range(space.shards):
        if shard not in unavailable:
            try:
                found += await _streams_of(shards_of(client)[shard], space.prefix_of(shard))
            except ResponseError:
                continue  # this user may not SCAN
            except (RedisError, OSError, TimeoutError) as error:
                silent[shard] = error
    return found, silent


async def _streams_of(shard: Redis, prefix: str) -> list[str]:
    pattern = re.sub(r"[*?\[\]\\]", r"\\\g<0>", prefix) + "*"
    found: set[str] = set()
    cursor: Any = 0
    for _ in range(_MOST_PAGES):
        cursor, page = await shard.scan(cursor, match=pattern, count=_PAGE, _type="stream")
        names = [str(key)[len(prefix) :] for key in page]
        found |= set(filter(is_stream, names))
        if not int(cursor):
            break
    return sorted(found)
