"""The loop of shared mode: any worker of the group takes any entry, at least once.

In this order: entries pending under this worker's own name (from before a crash, or to be retried),
entries of dead workers, then new entries. They are settled once per stream and batch, after the
handlers have returned. A group or stream that was deleted is created again, starting after the last
entry up to which all were settled.

Under high load, and with fast handlers, the next batch is read while one is handled (prefetch): one
batch at most, and only if nothing else is due. Prefetched entries are pending already: pending
entries are not read meanwhile, as those would be delivered twice.
"""

import time
from collections import deque
from collections.abc import Mapping, Sequence
from math import inf

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from consumers.kit.api.consumer import Consumer, StopWorker
from consumers.kit.handling.batch import made_line
from consumers.kit.handling.dead_letters import PAGE as LETTERS_PAGE
from consumers.kit.handling.dead_letters import DeadLetters
from consumers.kit.handling.entry import Entry
from consumers.kit.membership import Membership
from consumers.kit.ordered.lease import Leases
from consumers.kit.policy import (
    batch_size,
    block_ms,
    chunks,
    is_due,
    is_unfinished,
    next_limit,
    portions,
    start_of,
)
from consumers.kit.redis.prefetch import PAUSE_S
from consumers.kit.redis.scripts import Call, CommandRefused
from consumers.kit.redis_health import RedisHealth
from consumers.kit.shared.group import PAGE, Abandoned, Group, Pending
from consumers.kit.shared.settling import Settler
from consumers.kit.shared.timers import GroupTimers
from consumers.kit.stop import Stop

_log = structlog.get_logger()
_CONNECTION = "entries"

CLAIM_EVERY_S = 2.0  # upper bound; more often than leases expire is useless
TIDY_EVERY_S = 60.0  # removal of names of dead workers that have nothing pending
RETRY_EVERY_S = 0.25  # reads of our pending entries, while there may be any
CHECK_ALL_EVERY_S = 5.0  # reads of pending entries of all streams: two workers may share a name
FIRST_ENTRIES = 20  # over all streams, until the handler's speed is known
FAILING_MAX = 1000  # failed entries of a stream; from then on no new ones of it are read
_IDLE_S = 0.2  # pause between rounds while there are no streams
_QUICK_S = 0.1  # a batch this fast is prefetched: other workers would not be sooner
_KEY_TROUBLE = ("NOGROUP", "WRONGTYPE", "UNBLOCKED")


class SharedLoop:
    """One worker's share in its group's work, in one shard."""

    def __init__(
        self,
        consumer: Consumer,
        group: Group,
        dead_letters: DeadLetters,
        settler: Settler,
        membership: Membership,
        health: RedisHealth,
        leases: Leases,
        timers: GroupTimers,
        *,
        start: str,
        idle_ms: int,
        shard: int = 0,
    ) -> None:
        self._shard = shard
        self._consumer = consumer
        self._group = group
        self._dead_letters = dead_letters
        self._settler = settler
        self._membership = membership
        self._health = health
        self._leases = leases
        self._timers = timers
        self._start = start
        self._idle_ms = idle_ms
        self._reading: dict[str, None] = {}  # streams that have the group
        # Maximum entries to read of a stream; 0 until the handler's speed is known.
        self._limit = consumer.batch_entries if settler.takes_lists else 0
        self._full: set[str] = set()  # streams with FAILING_MAX entries that wait for a retry
        self._retry_at = self._check_all_at = 0.0
        self._abandoned: deque[Abandoned] = deque()
        self._claim_every_s = min(CLAIM_EVERY_S, idle_ms / 1000)
        self._claim_at = self._dead_letters_at = 0.0
        self._tidy_at = time.monotonic() + TIDY_EVERY_S
        self._last_beat = 0
        self._must_join = False
        self._unusable: set[str] = set()
        self._entry_s = inf  # time per entry in the last batch
        self._prefetch_size = 0  # COUNT of the prefetch
        self._prefetch_at = 0.0  # no prefetch before, by monotonic()
        self._is_idle = False
        self._hot: set[str] = set()  # streams that had more entries than the last round read

    def made(self) -> str:
        """The consumer's `made` line."""
        return made_line(self._consumer)

    async def keep(self, redis: Redis) -> None:
        """Called with each heartbeat: renew the lease of the timers, if this worker has it. A lost
        lease is detected by the next commit."""
        await self._leases.renew(redis, self._timers.held)

    def renewals(self) -> list[Call]:
        """The calls of `renew.lua` for that lease; may be called from another thread."""
        return self._leases.renewals(self._timers.held)

    async def run(self, stop: Stop) -> None:
        """Run until `stop`; the current entry is finished and settled, the rest of the batch and
        prefetched entries are given back. Raises ConfigError if Redis refuses this worker."""
        # Prefetched entries are pending under our name: left behind, they would have to wait for
        # the lease to expire. So they are received, to be given back.
        while not stop.is_set or self._group.is_prefetching:
            try:
                await self._round(stop)
            except StopWorker:
                # The handler requests the end at once: prefetched entries are left pending, for
                # other workers to claim.
                stop.set()
                await self._drop_prefetched()
            except ResponseError as error:
                await self._drop_prefetched()
                if not str(error).startswith(_KEY_TROUBLE):
                    self._settler.may_be_failing(*self._reading)
                    await self._health.down(_CONNECTION, error, stop)
                    continue
                # A group, a stream or all of Redis was deleted: `_join` creates missing groups.
                _log.warning("group_gone", group=self._membership.group, error=str(error))
                self._reading.clear()
                self._must_join = True
            except RedisError as error:
                await self._drop_prefetched()
                # Entries of a lost reply are pending under our name.
                self._settler.may_be_failing(*self._reading)
                await self._health.down(_CONNECTION, error, stop)

    async def leave(self) -> None:
        """Clean stop: remove this worker's name from groups in which it has nothing pending."""
        await self._timers.leave()
        await self._group.leave(self._reading)

    async def _round(self, stop: Stop) -> None:
        if not self._group.is_prefetching:
            await self._do_what_is_due(stop)
        # Of a stream with very many failing entries no new ones are read: they would probably fail,
        # too, and reads of pending entries would take ever longer.
        open_streams = [stream for stream in self._reading if stream not in self._full]
        if not open_streams:  # e.g. none is registered yet: no reason to wait for `batch_wait_s`
            self._is_idle = True
            await stop.wait(_IDLE_S)
            return
        any_found = False
        now_hot: set[str] = set()
        in_turn = portions(open_streams, self._hot, self._consumer.batch_entries)
        for streams in in_turn:
            if stop.is_set and not self._group.is_prefetching:
                return
            # A blocking read of a quiet portion would delay the busy ones: with several portions,
            # reads block only after an empty round, and only until entries are found.
            may_wait = len(in_turn) == 1 or (self._is_idle and not any_found)
            wait_ms = block_ms(len(in_turn)) if may_wait else None
            by_stream, size = await self._next(streams, wait_ms, stop)
            self._health.up(_CONNECTION)
            full = {stream for stream, entries in by_stream.items() if len(entries) >= size}
            now_hot |= full
            any_found |= bool(by_stream)
            # With several portions the next read is of other streams: nothing to prefetch.
            if full and len(in_turn) == 1 and not stop.is_set and self._may_prefetch(by_stream):
                await self._prefetch(streams, size)
            if by_stream:
                await self._handle(by_stream, stop)
        self._is_idle, self._hot = not any_found, now_hot
        if self._consumer.batch_wait_s and not now_hot:
            await stop.wait(self._consumer.batch_wait_s)

    async def _next(
        self, streams: Sequence[str], wait_ms: int | None, stop: Stop
    ) -> tuple[Mapping[str, Sequence[Entry]], int]:
        """New entries by stream, and the COUNT of the read. Blocks for `wait_ms`; None: not at
        all."""
        if self._group.is_prefetching:
            try:
                return await self._group.take_prefetched(), self._prefetch_size
            except RedisError:  # an outage may be over by now; if not, the next command fails
                if stop.is_set:
                    raise
                self._settler.may_be_failing(*streams)
        limit = self._limit or max(1, FIRST_ENTRIES // len(streams))
        size = min(limit, batch_size(len(streams), self._consumer.batch_entries))
        return await self._group.read(streams, size, wait_ms), size

    async def _do_what_is_due(self, stop: Stop) -> None:
        """Do all tasks that come before new entries, as far as they are due."""
        if self._must_join or self._last_beat != self._membership.beats:
            await self._join(self._membership.streams_in(self._shard))
            self._must_join, self._last_beat = False, self._membership.beats
        await self._try_again(stop)
        await self._handle_dead_letters(stop)
        await self._timers.run()
        await self._work_for_the_group(stop)

    def _may_prefetch(self, by_stream: Mapping[str, Sequence[Entry]]) -> bool:
        """Whether nothing else is due, and these entries will be handled so fast that no other
        worker would handle the next ones earlier."""
        is_anything_due = (
            self._must_join
            or self._last_beat != self._membership.beats
            or self._settler.failing
            or self._abandoned
            or not self._prefetch_at <= time.monotonic() < self._check_all_at
        )
        return not is_anything_due and _count(by_stream) * self._entry_s < _QUICK_S

    async def _prefetch(self, streams: Sequence[str], size: int) -> None:
        """Send a prefetch. Never raises: after a failure, nothing is prefetched for PAUSE_S."""
        self._prefetch_size = size
        try:
            await self._group.prefetch(streams, size)
        except RedisError:
            self._prefetch_at = time.monotonic() + PAUSE_S
            self._settler.may_be_failing(*streams)  # the command may have reached Redis

    async def _drop_prefetched(self) -> None:
        """Discard a prefetch; its entries stay pending under our name, to be retried."""
        if self._group.is_prefetching:
            self._prefetch_at = time.monotonic() + PAUSE_S
            await self._group.abandon_prefetched()

    async def _handle(self, by_stream: Mapping[str, Sequence[Entry]], stop: Stop) -> None:
        began = time.monotonic()
        await self._settler.handle(by_stream, stop)
        took_s = time.monotonic() - began
        self._entry_s = took_s / _count(by_stream)
        if not self._settler.takes_lists:  # shorter lists do not make a list handler faster
            most = max(map(len, by_stream.values()))
            self._limit = next_limit(self._consumer.batch_entries, most, took_s)

    async def _join(self, chosen: Sequence[str]) -> None:
        """Read all chosen streams that exist, and no others."""
        for stream in [s for s in self._reading if s not in chosen]:
            del self._reading[stream]
            self._settler.is_not_failing(stream)
            self._full.discard(stream)
        # An existing group continues at its position: `start` applies only to a new one. This
        # worker's marks apply after Redis was emptied.
        start = start_of(self._start, found_later=self._last_beat > 0)
        marks = self._settler.marks
        missing = {s: (start, marks.get(s, "")) for s in chosen if s not in self._reading}
        for stream, answer in (await self._group.join(missing)).items():
            if isinstance(answer, ResponseError) and not isinstance(answer, CommandRefused):
                self._report_unusable(stream, answer)
            elif isinstance(answer, Exception):
                raise answer
            elif answer is not None:  # else: registered, but without entries so far
                self._reading[stream] = None
                self._settler.may_be_failing(stream)
                self._unusable.discard(stream)

    def _report_unusable(self, stream: str, refusal: ResponseError) -> None:
        if stream not in self._unusable:
            self._unusable.add(stream)
            _log.warning("stream_unusable", stream=stream, error=str(refusal))

    async def _try_again(self, stop: Stop) -> None:
        """Retry entries pending under our own name whose pause is over."""
        now = time.monotonic()
        if now >= self._check_all_at:
            self._check_all_at = now + CHECK_ALL_EVERY_S
            self._settler.may_be_failing(*self._reading)
        failing = self._settler.failing
        if not failing or now < self._retry_at:
            return
        for streams in chunks([stream for stream in failing if stream in self._reading]):
            by_stream = await self._group.pending(streams, self._group.consumer)
            for stream, first_page in by_stream.items():
                await self._try_stream_again(stream, first_page, stop)
        self._retry_at = time.monotonic() + RETRY_EVERY_S

    async def _try_stream_again(
        self, stream: str, first_page: Sequence[Pending], stop: Stop
    ) -> None:
        pending = await self._all_pending(stream, first_page)
        if not pending:
            self._settler.is_not_failing(stream)
        # Counts entries that failed here, not those pending under other workers' names.
        if len(pending) >= FAILING_MAX:
            self._full.add(stream)
        else:
            self._full.discard(stream)
        due = [one for one in pending if is_due(one.deliveries, one.idle_ms)]
        handled = [one for one in due if self._settler.is_unsettled(stream, one.entry_id)]
        await self._settle_again(stream, handled, stop)
        due = [one for one in due if one not in handled]
        if due and not stop.is_set:
            await self._hand_out_again(stream, due, 0, stop)

    async def _settle_again(self, stream: str, handled: Sequence[Pending], stop: Stop) -> None:
        """Handle entries again that could not be settled. The deliveries are not counted: otherwise
        a long outage of Redis would make dead letters of good entries."""
        for deliveries in sorted({one.deliveries for one in handled}):
            if stop.is_set:
                return
            ids = [one.entry_id for one in handled if one.deliveries == deliveries]
            entries, trimmed = await self._group.claim(stream, ids, 0, deliveries)
            await self._settler.handle(
                {stream: entries}, stop, attempt=max(1, deliveries), trimmed=trimmed
            )

    async def _all_pending(self, stream: str, page: Sequence[Pending]) -> Sequence[Pending]:
        pending = list(page)
        while len(page) == PAGE and len(pending) < FAILING_MAX:
            after = f"({page[-1].entry_id}"
            by_stream = await self._group.pending([stream], self._group.consumer, after=after)
            page = by_stream[stream]
            pending += page
        return pending

    async def _hand_out_again(
        self, stream: str, due: Sequence[Pending], idle_ms: int, stop: Stop
    ) -> None:
        """Deliver pending entries again: the second time together, from then on each alone, so that
        the delivery count in Redis shows which entry kills its workers."""
        # XCLAIM takes only entries that were idle for `idle_ms`, and resets their idle time: of two
        # workers that claim the same ones at once, the second gets nothing.
        for deliveries in (0, 1):  # 0: given back by a worker that had not begun them
            together = [one.entry_id for one in due if one.deliveries == deliveries]
            if together and not stop.is_set:
                entries, trimmed = await self._group.claim(stream, together, idle_ms)
                attempt = deliveries + 1
                await self._settler.handle(
                    {stream: entries}, stop, attempt=attempt, trimmed=trimmed
                )
        for one in due:
            if one.deliveries <= 1:
                continue
            if stop.is_set:
                return
            entries, trimmed = await self._group.claim(stream, [one.entry_id], idle_ms)
            is_deadly = is_unfinished(one.deliveries, self._consumer.attempts)
            if entries and is_deadly and self._settler.makes_dead_letters:
                await self._settler.dead_letter_unfinished(stream, entries[0], one.deliveries)
            else:
                attempt = one.deliveries + 1
                await self._settler.handle(
                    {stream: entries}, stop, attempt=attempt, trimmed=trimmed
                )

    async def _work_for_the_group(self, stop: Stop) -> None:
        """Do tasks of the whole group, a step at a time, so that new entries do not wait. Removing
        names is for the first worker; idle workers may claim, too, as the first one may be busy."""
        if self._membership.is_first and time.monotonic() >= self._tidy_at:
            self._tidy_at = time.monotonic() + TIDY_EVERY_S
            await self._group.remove_dead_consumers(
                list(self._reading), self._membership.alive, self._idle_ms
            )
        if not self._abandoned:
            # After a start, or an outage, a live worker may not have sent its heartbeat yet: its
            # current entries would be taken from it.
            may = self._membership.is_first or self._is_idle
            if not may or not self._membership.knows_dead_workers:
                return
            if time.monotonic() < self._claim_at:
                return
            self._claim_at = time.monotonic() + self._claim_every_s
            streams = list(self._reading)
            self._abandoned.extend(await self._group.abandoned(streams, self._membership.alive))
        if self._abandoned:
            left = self._abandoned.popleft()
            if left.consumer not in self._membership.alive:
                await self._take_over(left, stop)

    async def _handle_dead_letters(self, stop: Stop) -> None:
        """Handle dead letters that were sent back, a page at a time, so that new entries do not
        wait."""
        now = time.monotonic()
        if now < self._dead_letters_at or not (self._membership.is_first or self._is_idle):
            return
        by_stream = await self._dead_letters.sent_back(list(self._reading))
        are_all = all(len(waiting) < LETTERS_PAGE for waiting in by_stream.values())
        self._dead_letters_at = now + self._claim_every_s if are_all else now
        for stream, waiting in by_stream.items():
            for one in waiting:
                if stop.is_set:
                    return
                letter = await self._dead_letters.take(stream, one, self._group.consumer)
                if letter is not None:
                    await self._settler.handle_dead_letter(stream, letter)

    async def _take_over(self, left: Abandoned, stop: Stop) -> None:
        pending = (await self._group.pending([left.stream], left.consumer, self._idle_ms))[
            left.stream
        ]
        if pending:
            _log.info("claimed", stream=left.stream, consumer=left.consumer, entries=len(pending))
            await self._hand_out_again(left.stream, pending, self._idle_ms, stop)
            self._abandoned.append(left)  # again, after the other abandoned ones
        else:
            # Nothing is pending under this name any more: remove it.
            await self._group.leave([left.stream], left.consumer)


def _count(by_stream: Mapping[str, Sequence[Entry]]) -> int:
    return sum(map(len, by_stream.values()))
