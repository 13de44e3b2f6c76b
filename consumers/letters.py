"""Dead letters in Redis: which there are, sending them back, taking them in hand, dropping them.

They lie beside their streams, so a group's are found by way of the registry.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from redis.asyncio import Redis

from consumers.deadletter import Letter, NotFinished, error_text, letter_of
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
    is_sent_back: bool = False  # and no worker has it in hand yet


async def sent_back(
    redis: Redis, keys: Keys, group: str, streams: Sequence[str]
) -> dict[str, list[Entry]]:
    """Dead letters that are to be handled again, by stream; a page of each."""
    async with redis.pipeline(transaction=False) as pipeline:
        for stream in streams:
            pipeline.xrange(keys.again(stream, group), count=_PAGE)
        replies = checked(await pipeline.execute(raise_on_error=False))
    return {stream: some for stream, some in zip(streams, replies, strict=True) if some}


async def begin(
    redis: Redis,
    keys: Keys,
    group: str,
    stream: str,
    entry: Entry,
    worker: str,
    owner: tuple[str, int] | None = None,
) -> Letter | None:
    """Take a letter that was sent back in hand, to be handled once; None where somebody else has.

    `owner`: who must own the stream, and the fencing token, in ordered mode.
    """
    letter_id, letter_fields = entry
    unfinished = NotFinished(int(letter_fields["attempts"]) + 1)
    call = Call(
        (keys.again(stream, group), keys.dead(stream, group), keys.position(stream, group)),
        (letter_id, error_text(stream, unfinished), worker, *(owner or ("", ""))),
    )
    reply: Any = await script("begin_letter").run_one(redis, call)
    if reply is None:
        return None
    flat = reply[1]
    return letter_of(reply[0], dict(zip(flat[::2], flat[1::2], strict=True)))


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


async def find_sent_back(
    redis: Redis, keys: Keys, group: str, streams: Sequence[str]
) -> list[Found]:
    """Those of a group that wait for a worker to handle them again."""
    waiting = await sent_back(redis, keys, group, streams)
    return [
        Found(group, stream, letter_id, fields, is_sent_back=True)
        for stream, letters in waiting.items()
        for letter_id, fields in letters
    ]


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
