"""A consumer group as Redis keeps it: join, read, settle, take over, leave (shared mode).

Only Redis commands; when to do what is decided in `loop`. A read that waits is never cancelled:
entries that Redis had handed out by then would stay pending under this worker's name.
"""

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

from redis.asyncio import Redis

from consumers.kit.api.results import Write, packed
from consumers.kit.handling.entry import Entry, entries_by_key, entry_of
from consumers.kit.redis.keys import Keys
from consumers.kit.redis.prefetch import Prefetch
from consumers.kit.redis.scripts import Call, checked, script

PAGE = 100  # pending entries looked at, and claimed, at a time


class UnitKind(StrEnum):
    """What happened to the entries of a unit; the words of `settle.lua`."""

    ACK = "ack"  # handled, or made dead letters
    GONE = "gone"  # trimmed away before they were handled
    AGAIN = "again"  # a dead letter that was sent back was handled: it is dead no more


class Unit(NamedTuple):
    """Entries that are settled together, and what is written with them."""

    kind: UnitKind
    ids: Sequence[str]
    writes: Sequence[Write] = ()


class Settled(NamedTuple):
    """Redis' answer for a stream: up to where all is settled, how many entries were missed, and for
    each unit 1 (settled by this call), 0 (another worker had settled it), or why its results are
    refused."""

    mark: str | None
    missed: int
    answers: Sequence[int | str]


class Pending(NamedTuple):
    """A pending entry: how often it was handed out, and when for the last time."""

    entry_id: str
    deliveries: int
    idle_ms: int


class Abandoned(NamedTuple):
    """A consumer that is gone and has left entries pending in a stream."""

    stream: str
    consumer: str


class Group:
    """One consumer of one group, over any number of streams."""

    def __init__(self, redis: Redis, keys: Keys, group: str, consumer: str) -> None:
        self._redis = redis
        self._keys = keys
        self._group = group
        self._prefetch = Prefetch(redis)
        self.consumer = consumer

    async def join(
        self, starts: Mapping[str, tuple[str, str]]
    ) -> dict[str, int | Exception | None]:
        """Create the group in each stream where it is missing; see `join.lua`.

        `starts`: by stream, where to begin, and what this worker remembers to be settled (empty:
        nothing). Returns by stream 1 for created, 0 for there already, None for no such stream, or
        the error of Redis.
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
        await self._send_read(streams, count, block_ms)
        return await self.take_prefetched()

    @property
    def is_prefetching(self) -> bool:
        """Whether a read is under way whose entries have not been taken yet."""
        return self._prefetch.is_sent

    async def prefetch(self, streams: Iterable[str], count: int) -> None:
        """Ask for new entries, for `take_prefetched`; they are pending from then on."""
        await self._send_read(streams, count, None)

    async def take_prefetched(self) -> dict[str, list[Entry]]:
        """The entries that were asked for with `prefetch`, by stream."""
        found = entries_by_key(await self._prefetch.receive())
        return {self._keys.name(key): entries for key, entries in found.items()}

    async def abandon_prefetched(self) -> None:
        """Do not wait for them; they are pending all the same, or will be."""
        await self._prefetch.abandon()

    async def _send_read(self, streams: Iterable[str], count: int, block_ms: int | None) -> None:
        keys = [self._keys.stream(name) for name in streams]
        wait = () if block_ms is None else ("BLOCK", block_ms)
        await self._prefetch.send(
            "XREADGROUP", "GROUP", self._group, self.consumer, "COUNT", count, *wait,
            "STREAMS", *keys, *[">"] * len(keys),
        )  # fmt: skip

    async def settle(self, units: Mapping[str, Sequence[Unit]]) -> dict[str, Settled]:
        """Acknowledge and apply, one call for each stream. Raises what Redis refuses as a whole."""
        wanted = {stream: some for stream, some in units.items() if some}
        calls = [self._settle_call(stream, some) for stream, some in wanted.items()]
        replies = checked(await script("settle").run(self._redis, calls))
        return {
            stream: Settled(mark, int(missed), answers)
            for stream, (mark, missed, *answers) in zip(wanted, replies, strict=True)
        }

    async def pending(
        self, streams: Sequence[str], consumer: str, idle_ms: int = 0, after: str = "-"
    ) -> dict[str, list[Pending]]:
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
                Pending(one["message_id"], one["times_delivered"], one["time_since_delivered"])
                for one in reply
            ]
            for stream, reply in zip(streams, replies, strict=True)
        }

    async def abandoned(self, streams: Sequence[str], alive: Iterable[str]) -> list[Abandoned]:
        """What consumers that are not alive have left, by stream."""
        # A stream that has vanished, or lost its group, answers with an error: nothing is abandoned
        # there, and the read that follows finds out about it.
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

    async def remove_gone_consumers(
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
                # `leave` looks at `pending` once more, in a script: by then it may have some.
                if one["name"] not in living and not one["pending"] and one["idle"] > idle_ms:
                    await self.leave([stream], one["name"])

    async def claim(
        self, stream: str, ids: Sequence[str], idle_ms: int, deliveries: int | None = None
    ) -> tuple[list[Entry], list[str]]:
        """Have entries handed out to this worker (once more), if idle for `idle_ms`. It counts as
        one more delivery, or they count as delivered so often.

        Returns those that are there, and the IDs of those that were trimmed away. The others were
        claimed by another worker meanwhile.
        """
        key = self._keys.stream(stream)
        claimed: Any = await self._redis.xclaim(
            key, self._group, self.consumer, idle_ms, list(ids), retrycount=deliveries
        )
        # An entry that was trimmed comes as nil before Redis 7.0; later versions leave it out.
        there = [entry_of(one, fields) for one, fields in claimed if one is not None]
        found = {entry_id for entry_id, _ in there}
        return there, await self._trimmed(key, [one for one in ids if one not in found])

    async def give_back(
        self, stream: str, ids: Sequence[str], deliveries: int, idle_ms: int
    ) -> None:
        """Let others claim entries of this worker at once: as if they had been idle for so long,
        and handed out so often."""
        # JUSTID counts no delivery. The name stays this worker's until another one claims them.
        await self._redis.xclaim(
            self._keys.stream(stream),
            self._group,
            self.consumer,
            0,
            list(ids),
            idle=idle_ms,
            retrycount=deliveries,
            justid=True,
        )

    async def leave(self, streams: Iterable[str], consumer: str | None = None) -> None:
        """Remove the consumer's name where it has nothing pending."""
        name = consumer or self.consumer
        calls = [Call([self._keys.stream(stream)], (self._group, name)) for stream in streams]
        await script("leave").run(self._redis, calls)

    def _settle_call(self, stream: str, units: Sequence[Unit]) -> Call:
        # KEYS[1] to KEYS[3] are the stream's own: those of the results are counted from 4 on.
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
