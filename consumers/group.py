"""A consumer group as Redis keeps it: create, read, acknowledge, take over, leave (shared mode).

Only Redis commands; when to do what is the loop's business (`shared.py`). A read that waits is
never cancelled: entries that Redis had handed out by then would stay pending under our name.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from consumers.keys import Keys
from consumers.scripts import Call, script

CLAIM_AT_ONCE = 100

Entry = tuple[str, dict[str, str]]  # the fields are empty where the entry was trimmed away


class Abandoned(NamedTuple):
    """Entries that a consumer which is gone has left pending in a stream."""

    stream: str
    consumer: str


class Group:
    """One consumer of one group, over any number of streams."""

    def __init__(self, redis: Redis, keys: Keys, group: str, consumer: str) -> None:
        self._redis = redis
        self._keys = keys
        self._group = group
        self._consumer = consumer

    async def create(self, starts: Mapping[str, str]) -> dict[str, ResponseError | None]:
        """Create the group in each stream at its start; None, or why it could not be."""
        async with self._redis.pipeline(transaction=False) as pipeline:
            for stream, start in starts.items():
                pipeline.xgroup_create(self._keys.stream(stream), self._group, start)
            replies = await pipeline.execute(raise_on_error=False)
        return {
            stream: reply if _is_refusal(reply) else None
            for stream, reply in zip(starts, replies, strict=True)
        }

    async def read(
        self, positions: Mapping[str, str], count: int, block_ms: int | None
    ) -> dict[str, list[Entry]]:
        """Entries by stream: new ones for the position `>`, else our own pending after it."""
        at = {self._keys.stream(name): position for name, position in positions.items()}
        reply: Any = await self._redis.xreadgroup(
            self._group,
            self._consumer,
            at,  # type: ignore[arg-type]  # the stub's dict is invariant
            count=count,
            block=block_ms,
        )
        return {self._keys.name(key): entries for key, entries in reply}

    async def acknowledge(self, handled: Mapping[str, Sequence[str]]) -> None:
        """One XACK for each stream."""
        async with self._redis.pipeline(transaction=False) as pipeline:
            for stream, ids in handled.items():
                if ids:
                    pipeline.xack(self._keys.stream(stream), self._group, *ids)
            await pipeline.execute()

    async def abandoned(self, streams: Sequence[str], alive: Iterable[str]) -> list[Abandoned]:
        """What consumers that are not alive have left, by stream."""
        living = {*alive, self._consumer}
        async with self._redis.pipeline(transaction=False) as pipeline:
            for stream in streams:
                pipeline.xpending(self._keys.stream(stream), self._group)
            replies = await pipeline.execute(raise_on_error=False)
        return [
            Abandoned(stream, one["name"])
            for stream, reply in zip(streams, replies, strict=True)
            if isinstance(reply, dict)
            for one in reply["consumers"]
            if one["name"] not in living
        ]

    async def claim(self, what: Abandoned, idle_ms: int) -> list[Entry]:
        """Take over some of it, if untouched for that long. Empty: nothing is left to take."""
        key = self._keys.stream(what.stream)
        pending: Any = await self._redis.xpending_range(
            key, self._group, "-", "+", CLAIM_AT_ONCE, consumername=what.consumer, idle=idle_ms
        )
        if not pending:
            return []
        ids = [one["message_id"] for one in pending]
        claimed: Any = await self._redis.xclaim(key, self._group, self._consumer, idle_ms, ids)
        there = {entry_id: fields for entry_id, fields in claimed if entry_id is not None}
        # Who was quicker has the others; those trimmed away are acknowledged like handled ones.
        gone = await self._trimmed(key, [i for i in ids if i not in there])
        return [*there.items(), *((entry_id, {}) for entry_id in gone)]

    async def leave(self, streams: Iterable[str], consumer: str | None = None) -> None:
        """Remove the consumer's name where it has nothing pending."""
        name = consumer or self._consumer
        calls = [Call([self._keys.stream(stream)], (self._group, name)) for stream in streams]
        await script("leave").run(self._redis, calls)

    async def _trimmed(self, key: str, ids: Sequence[str]) -> list[str]:
        async with self._redis.pipeline(transaction=False) as pipeline:
            for entry_id in ids:
                pipeline.xrange(key, entry_id, entry_id)
            found = await pipeline.execute()
        return [entry_id for entry_id, entries in zip(ids, found, strict=True) if not entries]


def _is_refusal(reply: object) -> bool:
    return isinstance(reply, ResponseError) and not str(reply).startswith("BUSYGROUP")
