"""A consumer group as Redis keeps it: join, read, settle, take over, leave (shared mode).

Only Redis commands; `loop` decides when to use them. A blocking read is never cancelled: entries
that Redis had delivered by then would stay pending under this worker's name.
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

PAGE = 100  # pending entries that are read, and claimed, at a time


class UnitKind(StrEnum):
    """What happened to the entries of a unit; the values are those of `settle.lua`."""

    ACK = "ack"  # handled, or made dead letters
    GONE = "gone"  # trimmed before they were handled
    AGAIN = "again"  # a dead letter that was sent back was handled


class Unit(NamedTuple):
    """Entries that are settled together, and their writes."""

    kind: UnitKind
    ids: Sequence[str]
    writes: Sequence[Write] = ()


class Settled(NamedTuple):
    """Redis' answer for a stream: `mark`, up to which all entries are settled; the number of missed
    entries; and per unit 1 (settled by this call), 0 (another worker had settled it), or the reason
    why its results are refused."""

    mark: str | None
    missed: int
    answers: Sequence[int | str]


class Pending(NamedTuple):
    """A pending entry: its number of deliveries, and the time since the last one, ms."""

    entry_id: str
    deliveries: int
    idle_ms: int


class Abandoned(NamedTuple):
    """A dead consumer with pending entries in a stream."""

    stream: str
    consumer: str


class Group:
    """One consumer of one Redis consumer group, for any number of streams."""

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

        `starts`: stream → start position, and the mark up to which this worker knows all entries to
        be settled (empty: none). Returns stream → 1 (created), 0 (exists already), None (no such
        stream), or the error of Redis.
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
        """New entries by stream, at most `count` of each. Blocks for `block_ms`; None: not at
        all."""
        await self._send_read(streams, count, block_ms)
        return await self.take_prefetched()

    @property
    def is_prefetching(self) -> bool:
        """Whether a read was sent whose entries have not been taken yet."""
        return self._prefetch.is_sent

    async def prefetch(self, streams: Iterable[str], count: int) -> None:
        """Send a read of new entries, for `take_prefetched`; they are pending from then on."""
        await self._send_read(streams, count, None)

    async def take_prefetched(self) -> dict[str, list[Entry]]:
        """The entries of the last `prefetch`, by stream."""
        by_key = entries_by_key(await self._prefetch.receive())
        return {self._keys.name(key): entries for key, entries in by_key.items()}

    async def abandon_prefetched(self) -> None:
        """Discard the reply of the last `prefetch`; its entries are pending nevertheless."""
        await self._prefetch.abandon()

    async def _send_read(self, streams: Iterable[str], count: int, block_ms: int | None) -> None:
        keys = [self._keys.stream(name) for name in streams]
        wait = () if block_ms is None else ("BLOCK", block_ms)
        await self._prefetch.send(
            "XREADGROUP", "GROUP", self._group, self.consumer, "COUNT", count, *wait,
            "STREAMS", *keys, *[">"] * len(keys),
        )  # fmt: skip

    async def settle(self, units: Mapping[str, Sequence[Unit]]) -> dict[str, Settled]:
        """Acknowledge entries and apply their writes, one call per stream. Raises an error of a
        whole call."""
        to_settle = {stream: some for stream, some in units.items() if some}
        calls = [self._settle_call(stream, some) for stream, some in to_settle.items()]
        replies = checked(await script("settle").run(self._redis, calls))
        return {
            stream: Settled(mark, int(missed), answers)
            for stream, (mark, missed, *answers) in zip(to_settle, replies, strict=True)
        }

    async def pending(
        self, streams: Sequence[str], consumer: str, idle_ms: int = 0, after: str = "-"
    ) -> dict[str, list[Pending]]:
        """The first pending entries of a consumer by stream, at most PAGE of each."""
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
        """Dead consumers with pending entries, by stream."""
        # A deleted stream, or one without its group, is answered with an error: nothing is
        # abandoned there, and the following read reports it.
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

    async def remove_dead_consumers(
        self, streams: Sequence[str], alive: Iterable[str], idle_ms: int
    ) -> None:
        """Remove the names of dead consumers without pending entries that are idle for longer than
        `idle_ms`."""
        living = {*alive, self.consumer}
        async with self._redis.pipeline(transaction=False) as pipeline:
            for stream in streams:
                pipeline.xinfo_consumers(self._keys.stream(stream), self._group)
            replies = await pipeline.execute(raise_on_error=False)
        for stream, reply in zip(streams, replies, strict=True):
            for one in reply if isinstance(reply, list) else ():
                # `leave` checks `pending` again, in a script: it may have changed since.
                if one["name"] not in living and not one["pending"] and one["idle"] > idle_ms:
                    await self.leave([stream], one["name"])

    async def claim(
        self, stream: str, ids: Sequence[str], idle_ms: int, deliveries: int | None = None
    ) -> tuple[list[Entry], list[str]]:
        """Claim entries that are idle for `idle_ms`. Each gets one more delivery, or its count is
        set to `deliveries`.

        Returns the claimed entries, and the IDs of those that were trimmed. The remaining ones were
        claimed by another worker meanwhile.
        """
        key = self._keys.stream(stream)
        claimed: Any = await self._redis.xclaim(
            key, self._group, self.consumer, idle_ms, list(ids), retrycount=deliveries
        )
        # A trimmed entry is nil in replies before Redis 7.0; later versions leave it out.
        entries = [entry_of(one, fields) for one, fields in claimed if one is not None]
        claimed_ids = {entry_id for entry_id, _ in entries}
        return entries, await self._trimmed(key, [one for one in ids if one not in claimed_ids])

    async def give_back(
        self, stream: str, ids: Sequence[str], deliveries: int, idle_ms: int
    ) -> None:
        """Let other workers claim entries of this worker at once, by setting their idle time, ms,
        and their number of deliveries."""
        # JUSTID counts no delivery. They stay pending under this name until another worker claims
        # them.
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
        """Remove the consumer's name from the groups in which it has nothing pending."""
        name = consumer or self.consumer
        calls = [Call([self._keys.stream(stream)], (self._group, name)) for stream in streams]
        await script("leave").run(self._redis, calls)

    def _settle_call(self, stream: str, units: Sequence[Unit]) -> Call:
        # KEYS[1] to KEYS[3] are the fixed keys below: the keys of the results start at 4.
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
            replies = await pipeline.execute()
        return [entry_id for entry_id, entries in zip(ids, replies, strict=True) if not entries]
