"""The loop of shared mode: any worker of the group takes any entry, at least once.

In this order: what is pending under our own name (from before a crash, or to be tried again), what
workers that are gone have left, then new entries. Settled once for each stream and batch, after the
handlers have returned. A group or a stream that vanished is created again, after the last entry up
to which all was settled.

Under a flood, and where handlers are quick, the next batch is read while one is handled: one, never
more, and only where nothing else is due. Looking at what is pending would find it and hand it out
twice, so while it is under way nobody looks.
"""

import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from math import inf

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from consumers.consumer import Consumer, StopWorker
from consumers.crew import Crew
from consumers.dispatch import Entry
from consumers.group import PAGE, Abandoned, Group, Waiting
from consumers.handling import Handling
from consumers.link import Link, Stop
from consumers.policy import (
    batch_size,
    block_ms,
    chunks,
    is_due,
    is_unfinished,
    next_limit,
    start_of,
)

_log = structlog.get_logger()
_CONNECTION = "entries"

CLAIM_EVERY_S = 2.0
TIDY_EVERY_S = 60.0  # names of workers that are gone, and have left nothing
LOOK_EVERY_S = 0.25  # at what is pending under our own name, while there may be any
LOOK_AT_ALL_EVERY_S = 5.0  # also where none should be: two workers of one name, say
WAITING_MAX = 1000  # entries of a stream that failed here: then no new ones of it are taken
_IDLE_S = 0.2  # until the next look for streams, where there are none
_QUICK_S = 0.1  # a batch that took no longer: others would not have been quicker with the next
_KEY_TROUBLE = ("NOGROUP", "WRONGTYPE", "UNBLOCKED")


class SharedLoop:
    """One worker's share in its group's work."""

    def __init__(
        self,
        consumer: Consumer,
        group: Group,
        handling: Handling,
        crew: Crew,
        link: Link,
        *,
        start: str,
        idle_ms: int,
    ) -> None:
        self._consumer = consumer
        self._group = group
        self._handling = handling
        self._crew = crew
        self._link = link
        self._start = start
        self._idle_ms = idle_ms
        self._reading: dict[str, None] = {}  # streams that have the group
        self._limit = consumer.batch_entries
        self._full: set[str] = set()  # streams of which too much waits for another attempt
        self._look_at = self._look_at_all_at = 0.0
        self._abandoned: deque[Abandoned] = deque()
        self._claim_at = 0.0
        self._tidy_at = time.monotonic() + TIDY_EVERY_S
        self._seen_beat = 0
        self._must_join = False
        self._unusable: set[str] = set()
        self._entry_s = inf  # what handling one took, the last time
        self._ahead_size = 0  # what was asked for ahead, at most, of each stream
        self._is_idle = False

    def made(self) -> str:
        return self._consumer.made()

    def in_hand(self) -> tuple[str, str] | None:
        return self._handling.in_hand()

    async def keep(self, redis: Redis) -> None:
        """Nothing is owned in this mode."""

    async def run(self, stop: Stop) -> None:
        """Until told to stop; the batch in hand, and one that is read already, are finished and
        acknowledged.
        """
        while not stop.is_set or self._group.is_read_ahead:
            try:
                await self._round(stop)
            except StopWorker:
                stop.set()
                await self._leave_ahead()
            except ResponseError as error:
                await self._leave_ahead()
                if not str(error).startswith(_KEY_TROUBLE):
                    self._handling.failing.update(dict.fromkeys(self._reading))
                    await self._link.down(_CONNECTION, error, stop)
                    continue
                # A group, a stream or all of Redis' content is gone: `_join` finds out which.
                _log.warning("group_gone", group=self._crew.group, error=str(error))
                self._reading.clear()
                self._must_join = True
            except RedisError as error:
                # What was handed out while the reply got lost is pending under our name.
                await self._leave_ahead()
                self._handling.failing.update(dict.fromkeys(self._reading))
                await self._link.down(_CONNECTION, error, stop)

    async def leave(self) -> None:
        """Clean stop: our name goes where nothing is pending under it."""
        await self._group.leave(self._reading)

    async def _round(self, stop: Stop) -> None:
        if not self._group.is_read_ahead:
            await self._do_what_is_due(stop)
        open_streams = [stream for stream in self._reading if stream not in self._full]
        if not open_streams:
            await stop.wait(_IDLE_S)
        more = any_found = False
        portions = list(chunks(open_streams))
        for streams in portions:
            if stop.is_set and not self._group.is_read_ahead:
                return
            if self._group.is_read_ahead:
                size = self._ahead_size
                found = await self._group.take_ahead()
            else:
                size = min(self._limit, batch_size(len(streams), self._consumer.batch_entries))
                found = await self._group.read(streams, size, block_ms(len(portions)))
            self._link.up(_CONNECTION)
            is_full = any(len(entries) >= size for entries in found.values())
            more |= is_full
            any_found |= bool(found)
            if is_full and len(portions) == 1 and not stop.is_set and self._may_read_ahead(found):
                self._ahead_size = size
                await self._group.read_ahead(streams, size)
            if found:
                await self._handle(found)
        self._is_idle = not any_found
        if self._consumer.batch_wait_s and not more:
            await stop.wait(self._consumer.batch_wait_s)

    async def _do_what_is_due(self, stop: Stop) -> None:
        """Before anything new is read."""
        if self._must_join or self._seen_beat != self._crew.beats:
            await self._join(self._crew.streams)
            self._must_join, self._seen_beat = False, self._crew.beats
        await self._try_again(stop)
        await self._for_the_group()

    def _may_read_ahead(self, found: Mapping[str, Sequence[Entry]]) -> bool:
        """Is nothing else due, and will these be handled so soon that nobody else is quicker?"""
        is_anything_due = (
            self._must_join
            or self._seen_beat != self._crew.beats
            or self._handling.failing
            or self._abandoned
            or time.monotonic() >= self._look_at_all_at
        )
        return not is_anything_due and _count(found) * self._entry_s < _QUICK_S

    async def _leave_ahead(self) -> None:
        """What is read already stays pending under our name."""
        if self._group.is_read_ahead:
            with suppress(RedisError):  # whatever it is, the next command finds out
                await self._group.take_ahead()

    async def _handle(self, found: Mapping[str, Sequence[Entry]]) -> None:
        began = time.monotonic()
        await self._handling.handle(found)
        took_s = time.monotonic() - began
        self._entry_s = took_s / _count(found)
        if not self._handling.takes_batches:  # short lists make a handler of lists no faster
            most = max(map(len, found.values()))
            self._limit = next_limit(self._consumer.batch_entries, most, took_s)

    async def _join(self, chosen: Sequence[str]) -> None:
        """Read all chosen streams that are there, and no others."""
        for stream in [s for s in self._reading if s not in chosen]:
            del self._reading[stream]
            self._handling.failing.pop(stream, None)
            self._full.discard(stream)
        start = start_of(self._start, found_later=self._seen_beat > 0)
        marks = self._handling.marks
        missing = {s: (start, marks.get(s, "")) for s in chosen if s not in self._reading}
        for stream, answer in (await self._group.join(missing)).items():
            if isinstance(answer, ResponseError):
                self._tell_unusable(stream, answer)
            elif isinstance(answer, Exception):
                raise answer
            elif answer is not None:  # else: registered, but without entries so far
                self._reading[stream] = None
                self._handling.failing[stream] = None
                self._unusable.discard(stream)

    def _tell_unusable(self, stream: str, refusal: ResponseError) -> None:
        if stream not in self._unusable:
            self._unusable.add(stream)
            _log.warning("stream_unusable", stream=stream, error=str(refusal))

    async def _try_again(self, stop: Stop) -> None:
        """What is pending under our own name, as far as its time has come."""
        failing, now = self._handling.failing, time.monotonic()
        if now >= self._look_at_all_at:
            self._look_at_all_at = now + LOOK_AT_ALL_EVERY_S
            failing.update(dict.fromkeys(self._reading))
        if not failing or now < self._look_at:
            return
        for streams in chunks([stream for stream in failing if stream in self._reading]):
            found = await self._group.waiting(streams, self._group.consumer)
            for stream, first_page in found.items():
                waiting = await self._all_waiting(stream, first_page)
                if not waiting:
                    failing.pop(stream, None)
                full = len(waiting) >= WAITING_MAX
                (self._full.add if full else self._full.discard)(stream)
                due = [one for one in waiting if is_due(one.deliveries, one.idle_ms)]
                if due and not stop.is_set:
                    await self._hand_out_again(stream, due, idle_ms=0)
        self._look_at = time.monotonic() + LOOK_EVERY_S

    async def _all_waiting(self, stream: str, page: Sequence[Waiting]) -> Sequence[Waiting]:
        waiting = list(page)
        while len(page) == PAGE and len(waiting) < WAITING_MAX:
            after = f"({page[-1].entry_id}"
            found = await self._group.waiting([stream], self._group.consumer, after=after)
            page = found[stream]
            waiting += page
        return waiting

    async def _hand_out_again(self, stream: str, due: Sequence[Waiting], idle_ms: int) -> None:
        """Once more together; from then on each alone, so that Redis' count tells which it is."""
        together = [one.entry_id for one in due if one.deliveries <= 1]
        if together:
            there, gone = await self._group.claim(stream, together, idle_ms)
            await self._handling.handle({stream: there}, attempt=2, gone=gone)
        for one in due:
            if one.deliveries > 1:
                there, gone = await self._group.claim(stream, [one.entry_id], idle_ms)
                is_deadly = is_unfinished(one.deliveries, self._consumer.attempts)
                if there and is_deadly and self._handling.sets_aside:
                    await self._handling.set_aside_unfinished(stream, there[0], one.deliveries)
                else:
                    found = {stream: there}
                    await self._handling.handle(found, attempt=one.deliveries + 1, gone=gone)

    async def _for_the_group(self) -> None:
        """What one worker does for all, a step at a time, so that new entries do not wait. One that
        has nothing to do may: the first may have its hands full.
        """
        if self._crew.is_first and time.monotonic() >= self._tidy_at:
            self._tidy_at = time.monotonic() + TIDY_EVERY_S
            await self._group.remove_the_dead(list(self._reading), self._crew.alive, self._idle_ms)
        if not self._abandoned:
            may = self._crew.is_first or self._is_idle
            if not may or not self._crew.knows_the_dead:
                return
            if time.monotonic() < self._claim_at:
                return
            self._claim_at = time.monotonic() + CLAIM_EVERY_S
            streams = list(self._reading)
            self._abandoned.extend(await self._group.abandoned(streams, self._crew.alive))
            for stream, letters in (await self._group.sent_back(streams)).items():
                await self._handling.handle_letters(stream, letters)
        if self._abandoned:
            left = self._abandoned.popleft()
            if left.consumer not in self._crew.alive:
                await self._take_over(left)

    async def _take_over(self, left: Abandoned) -> None:
        waiting = (await self._group.waiting([left.stream], left.consumer, self._idle_ms))[
            left.stream
        ]
        if waiting:
            _log.info("claimed", stream=left.stream, consumer=left.consumer, entries=len(waiting))
            await self._hand_out_again(left.stream, waiting, self._idle_ms)
            self._abandoned.append(left)  # its turn comes again, after the others'
        else:
            await self._group.leave([left.stream], left.consumer)


def _count(found: Mapping[str, Sequence[Entry]]) -> int:
    return sum(map(len, found.values()))
