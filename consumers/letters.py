"""Dead letters in Redis: which there are, sending them back, dropping them.

They lie beside their streams, so a group's are found by way of the registry.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from redis.asyncio import Redis

from consumers.dispatch import Entry
from consumers.keys import Keys
from consumers.scripts import Call, checked, script

_PAGE = 100


class Found(NamedTuple):
    """A dead letter and where it lies."""

    group: str
    stream: str
    letter_id: str
    fields: dict[str, str]


async def sent_back(
    redis: Redis, keys: Keys, group: str, streams: Sequence[str]
) -> dict[str, list[Entry]]:
    """Dead letters that are to be handled again, by stream."""
    async with redis.pipeline(transaction=False) as pipeline:
        for stream in streams:
            pipeline.xrange(keys.again(stream, group), count=_PAGE)
        replies = checked(await pipeline.execute(raise_on_error=False))
    return {stream: some for stream, some in zip(streams, replies, strict=True) if some}


async def count(redis: Redis, keys: Keys, group: str, streams: Sequence[str]) -> dict[str, int]:
    """How many there are, by stream; streams without any are left out."""
    async with redis.pipeline(transaction=False) as pipeline:
        for stream in streams:
            pipeline.xlen(keys.dead(stream, group))
        replies = checked(await pipeline.execute(raise_on_error=False))
    return {stream: number for stream, number in zip(streams, replies, strict=True) if number}


async def find(
    redis: Redis, keys: Keys, group: str, streams: Sequence[str], letter_id: str | None = None
) -> list[Found]:
    """All of a group, or those of an ID, oldest first within each stream."""
    found: list[Found] = []
    for stream in await count(redis, keys, group, streams):
        key, after = keys.dead(stream, group), letter_id or "-"
        while True:
            page: Any = await redis.xrange(key, after, letter_id or "+", count=_PAGE)
            found += [Found(group, stream, one, fields) for one, fields in page]
            if letter_id or len(page) < _PAGE:
                break
            after = f"({page[-1][0]}"
    return found


async def send_back(redis: Redis, keys: Keys, letters: Iterable[Found]) -> int:
    """To the group's workers, who handle each once more; how many were still there."""
    calls = [
        Call(
            (keys.dead(one.stream, one.group), keys.again(one.stream, one.group)), (one.letter_id,)
        )
        for one in letters
    ]
    return sum(checked(await script("send_back").run(redis, calls)))


async def drop(redis: Redis, keys: Keys, letters: Iterable[Found]) -> int:
    """For good; how many were still there."""
    async with redis.pipeline(transaction=False) as pipeline:
        for one in letters:
            pipeline.xdel(keys.dead(one.stream, one.group), one.letter_id)
        return sum(await pipeline.execute())
