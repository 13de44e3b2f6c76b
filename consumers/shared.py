"""The loop of shared mode: any worker of the group takes any entry, at least once.

In this order: what is pending under our own name (from before a crash, or to be tried again), what
workers that are gone have left, then new entries. Acknowledged once for each stream and batch,
after the handlers have returned. A group or a stream that vanished is created again, after the last
entry we have handled.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from bridge.contract.identity import EntryId
from consumers.consumer import Consumer, StopWorker
from consumers.crew import Crew
from consumers.dispatch import Dispatcher, HandlerFailed
from consumers.group import Abandoned, Entry, Group
from consumers.link import Link, Stop
from consumers.meter import Meter
from consumers.policy import BEGINNING, batch_size, block_ms, chunks, retry_delay_s, start_of

_log = structlog.get_logger()
_CONNECTION = "entries"

CLAIM_EVERY_S = 2.0
_IDLE_S = 0.2  # until the next look for streams, where there are none
_KEY_TROUBLE = ("NOGROUP", "WRONGTYPE", "UNBLOCKED")
_NEW = ">"
_FIRST = "0"


@dataclass(slots=True)
class _Retry:
    failures: int = 0
    at: float = 0.0


class SharedLoop:
    """One worker's share in its group's work."""

    def __init__(
        self,
        consumer: Consumer,
        group: Group,
        crew: Crew,
        meter: Meter,
        link: Link,
        *,
        start: str,
        idle_ms: int,
    ) -> None:
        self._consumer = consumer
        self._dispatcher = Dispatcher(consumer, meter)
        self._group = group
        self._crew = crew
        self._meter = meter
        self._link = link
        self._start = start
        self._idle_ms = idle_ms
        self._reading: dict[str, None] = {}  # streams that have the group
        self._handled: dict[str, str] = {}  # stream → last entry handled
        self._pending: dict[str, str] = {}  # stream → how far our own pending have been read
        self._retries: dict[str, _Retry] = {}
        self._abandoned: list[Abandoned] = []
        self._claim_at = 0.0
        self._seen_beat = 0
        self._must_join = False
        self._unusable: set[str] = set()

    def made(self) -> str:
        return self._consumer.made()

    async def keep(self, redis: Redis) -> None:
        """Nothing is owned in this mode."""

    async def run(self, stop: Stop) -> None:
        """Until told to stop; the batch in hand is finished and acknowledged."""
        while not stop.is_set:
            try:
                await self._round(stop)
            except StopWorker:
                stop.set()
            except ResponseError as error:
                if not str(error).startswith(_KEY_TROUBLE):
                    await self._link.down(_CONNECTION, error, stop)
                    continue
                # A group, a stream or all of Redis' content is gone: `_join` finds out which.
                _log.warning("group_gone", group=self._crew.group, error=str(error))
                self._reading.clear()
                self._pending.clear()
                self._must_join = True
            except RedisError as error:
                # What was handed out while the reply got lost is pending under our name.
                self._pending = dict.fromkeys(self._reading, _FIRST)
                await self._link.down(_CONNECTION, error, stop)

    async def leave(self) -> None:
        """Clean stop: our name goes where nothing is pending under it."""
        await self._group.leave(self._reading)

    async def _round(self, stop: Stop) -> None:
        if self._must_join or self._seen_beat != self._crew.beats:
            await self._join(self._crew.streams)
            self._must_join, self._seen_beat = False, self._crew.beats
            self._retry_what_is_due()
        await self._read_pending(stop)
        await self._read_abandoned()
        if not self._reading:
            await stop.wait(_IDLE_S)
        portions = list(chunks(list(self._reading)))
        more = False
        for streams in portions:
            if stop.is_set:
                return
            size = self._size(len(streams))
            positions = dict.fromkeys(streams, _NEW)
            found = await self._group.read(positions, size, block_ms(len(portions)))
            self._link.up(_CONNECTION)
            more |= any(len(entries) >= size for entries in found.values())
            await self._handle(found)
        if self._consumer.batch_wait_s and not more:
            await stop.wait(self._consumer.batch_wait_s)

    def _size(self, streams: int) -> int:
        return batch_size(streams, self._consumer.batch_entries)

    async def _join(self, chosen: Sequence[str]) -> None:
        """Read all chosen streams that are there, and no others."""
        for stream in [s for s in self._reading if s not in chosen]:
            del self._reading[stream]
        missing = {s: self._start_of(s) for s in chosen if s not in self._reading}
        if missing:
            for stream, refusal in (await self._group.create(missing)).items():
                if refusal is None:
                    self._reading[stream] = None
                    self._pending[stream] = _FIRST
                    self._unusable.discard(stream)
                else:
                    self._tell_unusable(stream, refusal)

    def _start_of(self, stream: str) -> str:
        if stream in self._handled:
            return self._handled[stream]
        return start_of(self._start, found_later=self._seen_beat > 0)

    def _tell_unusable(self, stream: str, refusal: ResponseError) -> None:
        if "requires the key to exist" in str(refusal) or stream in self._unusable:
            return  # registered, but without entries so far
        self._unusable.add(stream)
        _log.warning("stream_unusable", stream=stream, error=str(refusal))

    async def _handle(self, found: Mapping[str, Sequence[Entry]], *, singly: bool = False) -> None:
        done: dict[str, list[str]] = {}
        try:
            for stream, entries in found.items():
                done[stream] = []
                for portion in self._portions(entries, singly=singly):
                    if await self._handle_portion(stream, portion):
                        done[stream] += [entry_id for entry_id, _ in portion]
        finally:
            await self._group.acknowledge(done)
            for stream, ids in done.items():
                if ids:
                    newest = max(ids[-1], self._handled.get(stream, BEGINNING), key=EntryId.parse)
                    self._handled[stream] = newest
                    self._meter.done(stream, len(ids), ids[-1])

    def _portions(self, entries: Sequence[Entry], *, singly: bool) -> list[Sequence[Entry]]:
        """What is handed over, and succeeds or fails, at a time."""
        if self._dispatcher.takes_batches and not singly:
            return [entries]
        return [[entry] for entry in entries]

    async def _handle_portion(self, stream: str, entries: Sequence[Entry]) -> bool:
        """Whether it was handled; one that was not stays pending, to be tried again later."""
        there = [entry for entry in entries if entry[1]]
        try:
            if len(there) > 1:
                await self._dispatcher.handle_batch(stream, there)
            elif there:
                await self._dispatcher.handle(stream, *there[0])
        except HandlerFailed as failed:
            self._meter.failed += 1
            retry = self._retries.setdefault(stream, _Retry())
            if retry.at == 0.0:  # the first failure since the last retry sets the time of the next
                retry.failures += 1
                delay_s = retry_delay_s(retry.failures)
                retry.at = time.monotonic() + delay_s
                failed.tell(retry.failures, delay_s)
            return False
        return True

    def _retry_what_is_due(self) -> None:
        now = time.monotonic()
        for stream, retry in list(self._retries.items()):
            if retry.at == 0.0 and stream not in self._pending:
                del self._retries[stream]  # the last retry went well
            elif retry.at and retry.at <= now:
                retry.at = 0.0
                self._pending[stream] = _FIRST

    async def _read_pending(self, stop: Stop) -> None:
        """Our own pending, to their end."""
        while self._pending and not stop.is_set:
            for stream in [s for s in self._pending if s not in self._reading]:
                del self._pending[stream]
            for streams in list(chunks(list(self._pending))):
                positions = {stream: self._pending[stream] for stream in streams}
                found = await self._group.read(positions, self._size(len(positions)), None)
                # Again, one by one: of a list that failed nobody knows which entry it was.
                await self._handle(found, singly=True)
                for stream in streams:
                    entries = found.get(stream)
                    if entries:
                        self._pending[stream] = entries[-1][0]
                    else:
                        self._pending.pop(stream, None)

    async def _read_abandoned(self) -> None:
        """One step at a time, by one worker of the group, so that new entries do not wait."""
        if not self._abandoned:
            if not self._crew.is_first or not self._crew.knows_the_dead:
                return
            if time.monotonic() < self._claim_at:
                return
            self._claim_at = time.monotonic() + CLAIM_EVERY_S
            self._abandoned = await self._group.abandoned(list(self._reading), self._crew.alive)
        if self._abandoned:
            left = self._abandoned[-1]
            entries = await self._group.claim(left, self._idle_ms)
            if entries:
                _log.info(
                    "claimed", stream=left.stream, consumer=left.consumer, entries=len(entries)
                )
                await self._handle({left.stream: entries})
            else:
                self._abandoned.pop()
                await self._group.leave([left.stream], left.consumer)
