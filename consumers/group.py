"""A consumer group as Redis keeps it: join, read, settle, take over, leave (shared mode).

Only Redis commands; when to do what is the loop's business (`shared.py`). A read that waits is
never cancelled: entries that Redis had handed out by then would stay pending under our name.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from redis.asyncio import Redis

from consumers.ahead import Ahead
from consumers.deadletter import Letter
from consumers.dispatch import Entry
from consumers.keys import Keys
from consumers.letters import begin, sent_back
from consumers.results import Write, packed
from consumers.scripts import Call, checked, script

PAGE = 100  # pending entries looked at, and claimed, at a time


class Unit(NamedTuple):
    """Entries that are settled together, and what came of them.

    `ack`: handled, or set aside. `gone`: trimmed away before anybody handled them. `again`: a dead
    letter that was sent back; it is dead no more.
    """

    kind: Literal["ack", "gone", "again"]
    ids: Sequence[str]
    writes: Sequence[Write] = ()


class Settled(NamedTuple):
    """Redis' answer for a stream: up to where all is settled, what was missed, and for each unit
    whether it was we who settled it (1 or 0), or why its results were refused."""

    mark: str | None
    missed: int
    answers: Sequence[int | str]


class Waiting(NamedTuple):
    """A pending entry: how often it was handed out, and when for the last time."""

    entry_id: str
    deliveries: int
    idle_ms: int


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
        self._ahead = Ahead(redis)
        self.consumer = consumer

    async def join(
        self, starts: Mapping[str, tuple[str, str]]
    ) -> dict[str, int | Exception | None]:
        """Create the group in each stream where it is missing; see `join.lua`.

        `starts`: where to begin, and what we remember to be settled (empty: nothing). Gives 1 for
        created, 0 for there already, None for no such stream, or why it could not be.
        """
        calls = [
            Call(
                (self._keys.stream(stream), self._keys.settled(stream, self._group)),
                (self._group, start, mark),
            )
            for stream, (start, mark) in starts.items()
        ]
        return dict(zip(starts, await script("join").run(self._redis, calls), strict=True))

    async def read(
        self, streams: Iterable[str], count: int, block_ms: int | None
    ) -> dict[str, list[Entry]]:
        """New entries by stream."""
        at = {self._keys.stream(name): ">" for name in streams}
        reply: Any = await self._redis.xreadgroup(
            self._group,
            self.consumer,
            at,  # type: ignore[arg-type]  # the stub's dict is invariant
            count=count,
            block=block_ms,
        )
        return self._by_stream(reply)

    @property
    def is_read_ahead(self) -> bool:
        """Is there a read whose entries have not been taken yet?"""
        return self._ahead.is_asked

    async def read_ahead(self, streams: Iterable[str], count: int) -> None:
        """Ask for new entries; `take_ahead` gives them. They are pending under our name already."""
        keys = [self._keys.stream(name) for name in streams]
        await self._ahead.ask(
            "XREADGROUP", "GROUP", self._group, self.consumer, "COUNT", count,
            "STREAMS", *keys, *[">"] * len(keys),
        )  # fmt: skip

    async def take_ahead(self) -> dict[str, list[Entry]]:
        """What was asked for with `read_ahead`."""
        return self._by_stream(await self._ahead.answer())

    def _by_stream(self, reply: Any) -> dict[str, list[Entry]]:
        return {self._keys.name(key): entries for key, entries in reply}

    async def settle(self, units: Mapping[str, Sequence[Unit]]) -> dict[str, Settled]:
        """Acknowledge and apply, one call for each stream. Raises what Redis refuses as a whole."""
        wanted = {stream: some for stream, some in units.items() if some}
        calls = [self._settle_call(stream, some) for stream, some in wanted.items()]
        replies = checked(await script("settle").run(self._redis, calls))
        return {
            stream: Settled(mark, int(missed), answers)
            for stream, (mark, missed, *answers) in zip(wanted, replies, strict=True)
        }

    async def waiting(
        self, streams: Sequence[str], consumer: str, idle_ms: int = 0, after: str = "-"
    ) -> dict[str, list[Waiting]]:
        """The first pending entries of a consumer, at most a page for each stream."""
        async with self._redis.pipeline(transaction=False) as pipeline:
            for stream in streams:
                pipeline.xpending_range(
                    self._keys.stream(stream),
                    self._group,
                    after,
                    "+",
                    PAGE,
                    consumername=consumer,
                    idle=idle_ms or None,
                )
            replies = checked(await pipeline.execute(raise_on_error=False))
        return {
            stream: [
                Waiting(one["message_id"], one["times_delivered"], one["time_since_delivered"])
                for one in reply
            ]
            for stream, reply in zip(streams, replies, strict=True)
        }

    async def abandoned(self, streams: Sequence[str], alive: Iterable[str]) -> list[Abandoned]:
        """What consumers that are not alive have left, by stream."""
        living = {*alive, self.consumer}
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

    async def remove_the_dead(
        self, streams: Sequence[str], alive: Iterable[str], idle_ms: int
    ) -> None:
        """Remove the names of consumers that are gone and have nothing pending."""
        living = {*alive, self.consumer}
        async with self._redis.pipeline(transaction=False) as pipeline:
            for stream in streams:
                pipeline.xinfo_consumers(self._keys.stream(stream), self._group)
            replies = await pipeline.execute(raise_on_error=False)
        for stream, reply in zip(streams, replies, strict=True):
            for one in reply if isinstance(reply, list) else ():
                if one["name"] not in living and not one["pending"] and one["idle"] > idle_ms:
                    await self.leave([stream], one["name"])

    async def claim(
        self, stream: str, ids: Sequence[str], idle_ms: int
    ) -> tuple[list[Entry], list[str]]:
        """Have them handed out to us (once more), if untouched for that long.

        Gives those that are there, and the IDs of those that were trimmed away. Whoever was
        quicker has the others.
        """
        key = self._keys.stream(stream)
        claimed: Any = await self._redis.xclaim(key, self._group, self.consumer, idle_ms, list(ids))
        there = [(entry_id, fields) for entry_id, fields in claimed if entry_id is not None]
        found = {entry_id for entry_id, _ in there}
        return there, await self._trimmed(key, [one for one in ids if one not in found])

    async def sent_back(self, streams: Sequence[str]) -> dict[str, list[Entry]]:
        """Dead letters that are to be handled again."""
        return await sent_back(self._redis, self._keys, self._group, streams)

    async def begin_letter(self, stream: str, entry: Entry) -> Letter | None:
        """Take one in hand; None where another worker has."""
        return await begin(self._redis, self._keys, self._group, stream, entry, self.consumer)

    async def leave(self, streams: Iterable[str], consumer: str | None = None) -> None:
        """Remove the consumer's name where it has nothing pending."""
        name = consumer or self.consumer
        calls = [Call([self._keys.stream(stream)], (self._group, name)) for stream in streams]
        await script("leave").run(self._redis, calls)

    def _settle_call(self, stream: str, units: Sequence[Unit]) -> Call:
        index: dict[str, int] = {}
        arguments: list[str | int] = [self._group]
        for unit in units:
            arguments += (unit.kind, len(unit.ids), *unit.ids, *packed(unit.writes, index, first=4))
        keys = (
            self._keys.stream(stream),
            self._keys.settled(stream, self._group),
            self._keys.dead(stream, self._group),
        )
        parts = (self._keys.beside(stream, self._group, part) for part in index)
        return Call((*keys, *parts), arguments)

    async def _trimmed(self, key: str, ids: Sequence[str]) -> list[str]:
        async with self._redis.pipeline(transaction=False) as pipeline:
            for entry_id in ids:
                pipeline.xrange(key, entry_id, entry_id)
            found = await pipeline.execute()
        return [entry_id for entry_id, entries in zip(ids, found, strict=True) if not entries]
