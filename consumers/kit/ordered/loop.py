"""The loop of ordered mode: each stream assigned to one worker, in order, exactly once.

Read by position (XREAD needs no pending lists), handle, commit: results, state and position are
written by one fenced script. Live workers share the streams evenly. If Redis does not answer a
commit, the same commit is sent again: it is applied once or refused.

Under high load, and with fast handlers, the next batch is read while one is handled.
"""

import asyncio
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from random import Random

import structlog
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError

from bridge.errors import ConfigError
from bridge.runtime.refusals import is_of_a_key, is_server_wide
from bridge.runtime.replica import FreshReads
from bridge.runtime.time_range import BEGINNING
from consumers.kit.api.consumer import ConsumerSpec, StopWorker, joined_by
from consumers.kit.api.results import is_entry_id
from consumers.kit.api.timers import timers_of
from consumers.kit.handling.dead_letters import PAGE, DeadLetters
from consumers.kit.handling.entry import Entry
from consumers.kit.handling.limits import Limits
from consumers.kit.handling.yielding import RUN_S
from consumers.kit.membership import Membership
from consumers.kit.ordered.assigned_stream import AssignedStream, Phase
from consumers.kit.ordered.joined_streams import PREFIX, JoinedStreams
from consumers.kit.ordered.lease import Answer, CommitStatus, Lease, Leases
from consumers.kit.ordered.read_ahead import Found, ReadAhead, read_behind
from consumers.kit.policy import batch_size, block_ms, moves, portions, shares, start_of
from consumers.kit.redis.keys import Keys
from consumers.kit.redis.prefetch import PAUSE_S
from consumers.kit.redis.scripts import Call, CommandRefused
from consumers.kit.redis_health import RedisHealth
from consumers.kit.stats import Stats
from consumers.kit.stop import Stop

_log = structlog.get_logger()
_CONNECTION = "entries"

DEAD_LETTERS_EVERY_S = 2.0  # at the longest: with short leases as often as they run out
COMMIT_ENTRIES = 500  # handled entries after which commits are sent together
_UNRIPE_S = 0.02  # pause between reads while all entries wait for earlier ones of other streams
_IDLE_S = 0.2  # pause between rounds while no stream is assigned
# A batch that takes less is always handled whole (below RUN_S), so that the position after it is
# known, from which to read ahead.
_QUICK_S = 0.5


class OrderedLoop:
    """One worker's assigned streams, of one shard."""

    def __init__(
        self,
        spec: ConsumerSpec,
        redis: Redis,
        keys: Keys,
        leases: Leases,
        dead_letters: DeadLetters,
        membership: Membership,
        stats: Stats,
        health: RedisHealth,
        *,
        start: str,
        random: Random,
        limits: Limits | None = None,
        shard: int = 0,
        replica: Redis | None = None,
    ) -> None:
        self._spec = spec
        self._kind = spec.kind
        self._shard = shard
        self._limits = limits or Limits(spec.kind)
        self._redis = redis
        self._keys = keys
        self._leases = leases
        self._dead_letters = dead_letters
        self._membership = membership
        self._stats = stats
        self._health = health
        self._start = start
        self._random = random
        self._assigned: dict[str, AssignedStream] = {}
        self._latest: AssignedStream | None = None  # whose consumer's line the status shows
        self._dead_letters_every_s = min(DEAD_LETTERS_EVERY_S, leases.lease_ms / 1000)
        self._dead_letters_at = 0.0
        self._last_beat = 0
        self._known: frozenset[str] = frozenset()
        self._units: Mapping[str, tuple[str, ...]] = {}
        self._prototype = spec.build()
        self._has_timers = bool(timers_of(spec.kind))
        # Timers and the merge of joined streams depend on all entries up to now having been read: a
        # replica may lag by an unknown time.
        may_be_behind = spec.kind.mode == "ordered" and not self._has_timers
        self._reads = FreshReads(redis, replica if may_be_behind else None)
        # Not with timers, which depend on the time of the read, nor with concurrent handling.
        self._may_read_ahead = may_be_behind and replica is None and spec.kind.concurrency == 1
        self._ahead = ReadAhead(redis)
        self._unusable: set[str] = set()
        self._is_idle = True  # the last round found nothing
        self._hot: set[AssignedStream] = set()  # had more entries than the last round read

    def made(self) -> str:
        """The consumer's `made` line for the stream that was handled last."""
        return self._latest.made() if self._latest else ""

    async def keep(self, redis: Redis) -> None:
        """Called with each heartbeat: renew all leases over this connection. A stream whose lease
        is lost is probed before its next batch."""
        mine = list(self._assigned.values())
        lost = await self._leases.renew(redis, [assigned.lease for assigned in mine])
        for assigned in mine:
            if assigned.lease in lost:
                assigned.probe()

    def renewals(self) -> list[Call]:
        """The calls of `renew.lua` for all leases; may be called from another thread."""
        mine = list(self._assigned.values())  # in one step: no other thread runs in between
        return self._leases.renewals([assigned.lease for assigned in mine])

    async def run(self, stop: Stop) -> None:
        """Run until `stop`; the current batch is finished and committed. Raises ConfigError if
        Redis refuses this worker."""
        while not stop.is_set:
            try:
                await self._round(stop)
            except StopWorker:
                stop.set()
            except RedisError as error:
                # Commits stay in flight: sent again, they are applied once or refused.
                await self._ahead.drop(for_s=PAUSE_S)
                await self._health.down(_CONNECTION, error, stop)

    async def leave(self) -> None:
        """Clean stop: commit what is in flight or due, and release every lease."""
        await self._ahead.drop()
        with suppress(StopWorker):  # of `on_missed`: the worker stops already
            await self._commit(self._assigned.values())
        with suppress(StopWorker):
            await self._write_what_is_due(stopping=True)
        leases = [assigned.lease for assigned in self._assigned.values()]
        self._assigned.clear()
        await self._leases.release(leases)

    async def _round(self, stop: Stop) -> None:
        await self._commit(self._assigned.values())  # left from before an outage, or a probe
        if self._last_beat != self._membership.beats:
            await self._rebalance()
            self._last_beat = self._membership.beats
        for assigned in self._assigned.values():
            if assigned.needs_state:
                await self._begin(assigned)
        await self._handle_dead_letters()
        reading = [assigned for assigned in self._assigned.values() if assigned.is_reading]
        # A slow batch delays the streams after it; a fixed order would always delay the same ones.
        self._random.shuffle(reading)
        if not reading:  # e.g. no stream is registered yet: no reason to wait for `batch_wait_s`
            await stop.wait(_IDLE_S)
            return
        in_turn = portions(reading, self._hot, self._kind.batch_entries)
        now_hot: set[AssignedStream] = set()
        any_found = False
        for portion in in_turn:
            if stop.is_set:
                break
            # A blocking read of a quiet portion would delay the busy ones: with several portions,
            # reads block only after an empty round, and only until entries are found.
            may_wait = len(in_turn) == 1 or (self._is_idle and not any_found)
            wait_ms = block_ms(len(in_turn)) if may_wait else None
            reads_on = len(in_turn) == 1
            was_full = await self._read(portion, wait_ms, stop, reads_on=reads_on)
            any_found |= bool(was_full)
            now_hot.update(assigned for assigned, is_full in was_full.items() if is_full)
        self._is_idle, self._hot = not any_found, now_hot
        await self._write_what_is_due()
        if self._kind.batch_wait_s and not now_hot:
            await stop.wait(self._kind.batch_wait_s)

    async def _begin(self, assigned: AssignedStream) -> None:
        try:
            ticks = await self._leases.ticks(assigned.stream) if self._has_timers else {}
            state = await self._leases.state(assigned.stream)
        except ResponseError as error:
            if not is_of_a_key(error):
                raise
            # A key of another type, written by another program: only this stream is paused.
            assigned.begin_failed(error)
            return
        await assigned.begin(state, ticks)

    async def _run_timers(
        self, portion: Sequence[AssignedStream], left: Collection[AssignedStream], now_ms: int
    ) -> None:
        """Run the timers that were due by `now_ms`. `left`: streams that may have older entries to
        read."""
        for assigned in portion:
            # Each timer has a commit of its own; one that fails pauses the stream.
            while await assigned.run_timer(now_ms, is_caught_up=assigned not in left):
                await self._commit([assigned])

    async def _read(
        self,
        portion: Sequence[AssignedStream],
        wait_ms: int | None,
        stop: Stop,
        *,
        reads_on: bool,
    ) -> dict[AssignedStream, bool]:
        """Read, handle, commit. The read blocks for `wait_ms`; None: not at all. `reads_on`: the
        same streams are read next. Returns the streams that had entries, each with whether a read
        was full (had COUNT entries)."""
        at = {
            self._keys.stream(stream): position
            for assigned in portion
            for stream, position in assigned.cursors.items()
        }
        size = batch_size(len(at), self._kind.batch_entries)
        now_ms = self._membership.now_ms  # before the read: it returns all entries up to then
        try:
            by_key = await self._entries(at, size, wait_ms)
        except ResponseError as error:
            if not str(error).startswith("WRONGTYPE"):
                raise
            await self._release_non_stream(portion)
            return {}
        self._health.up(_CONNECTION)
        read = {self._keys.name(key): entries for key, entries in by_key.items()}
        full = {
            assigned: any(len(read.get(stream, ())) >= size for stream in assigned.streams)
            for assigned in portion
            if not read.keys().isdisjoint(assigned.streams)
        }
        batches = {assigned: assigned.batch(_of(read, assigned), size) for assigned in full}
        batches = {assigned: entries for assigned, entries in batches.items() if entries}
        if not batches and full:
            await stop.wait(_UNRIPE_S)  # all entries wait for earlier ones of other streams
        if reads_on and any(full.values()) and not stop.is_set:
            await self._prefetch(at, batches, size)
        if self._kind.concurrency > 1 and not stop.is_set:
            batches = await self._handle_at_once(batches, full)
        handled = 0
        for assigned, entries in batches.items():
            if stop.is_set:
                break  # entries that are not handled are not lost: the position has not moved
            handled += await self._handle(assigned, entries, is_all=not full[assigned])
            if handled >= COMMIT_ENTRIES:
                await self._commit(portion)
                handled = 0
        await self._commit(portion)
        if self._has_timers and now_ms is not None and not stop.is_set:
            left = [one for one in full if full[one] or not _is_read_up(read, one)]
            await self._run_timers(portion, left, now_ms)
        return full

    async def _entries(self, at: Mapping[str, str], size: int, wait_ms: int | None) -> Found:
        return await self._ahead.take(at, size) or await self._reads.read(
            lambda client: read_behind(client, at, size, wait_ms)
        )

    async def _prefetch(
        self, at: Mapping[str, str], batches: Mapping[AssignedStream, Sequence[Entry]], size: int
    ) -> None:
        """Read ahead after these entries, if they will probably be handled whole, and soon."""
        is_slow = any(one.goes_one_by_one or one.ran_s > _QUICK_S for one in batches)
        if self._may_read_ahead and not is_slow:
            ends = {self._keys.stream(one.stream): some[-1][0] for one, some in batches.items()}
            await self._ahead.send({**at, **ends}, size)

    async def _write_what_is_due(self, *, stopping: bool = False) -> None:
        """Call `write` of consumers that are `due` without entries, and commit."""
        for assigned in self._assigned.values():
            await assigned.write_if_due(stopping=stopping)
        await self._commit(self._assigned.values())

    async def _handle(
        self, assigned: AssignedStream, entries: Sequence[Entry], *, is_all: bool
    ) -> int:
        if assigned.phase is Phase.IN_FLIGHT:  # a heartbeat has begun to probe it since the read
            return 0
        self._latest = assigned
        if assigned.goes_one_by_one:
            last_id = entries[-1][0]
            entries = await self._handle_one_by_one(assigned, entries)
            if not entries:
                # The stream was read to its end and committed: no previous owner can have had a
                # later entry.
                if is_all and assigned.position == last_id:
                    assigned.caught_up()
                return 0
        await assigned.handle(entries)
        return len(entries)

    async def _handle_at_once(
        self,
        batches: Mapping[AssignedStream, Sequence[Entry]],
        full: Mapping[AssignedStream, bool],
    ) -> dict[AssignedStream, Sequence[Entry]]:
        """Handle batches of several streams concurrently. Returns the batches to handle one by
        one."""
        one_by_one = {one: some for one, some in batches.items() if one.goes_one_by_one}
        stopped: list[StopWorker] = []

        async def handle(assigned: AssignedStream, entries: Sequence[Entry]) -> None:
            try:
                await self._handle(assigned, entries, is_all=not full[assigned])
            except StopWorker as stop:  # raised after the other streams' batches have ended
                stopped.append(stop)

        async with asyncio.TaskGroup() as tasks:
            for assigned, entries in batches.items():
                if assigned not in one_by_one:
                    tasks.create_task(handle(assigned, entries))
        if stopped:
            raise stopped[0]
        return one_by_one

    async def _handle_one_by_one(
        self, assigned: AssignedStream, entries: Sequence[Entry]
    ) -> Sequence[Entry]:
        """Handle each entry with a commit of its own, as long as necessary. Returns the entries
        that may form a batch again."""
        began = time.monotonic()
        for done, entry in enumerate(entries):
            if not assigned.goes_one_by_one:
                return entries[done:]
            if time.monotonic() - began > RUN_S:
                return ()  # the rest is read again
            # The mark is written before the handler runs: if the handler kills this worker, the
            # next owner finds the mark, and continues the count.
            try:
                tries = await self._leases.begin_attempt(assigned.lease, entry[0])
            except ResponseError as error:
                if not is_of_a_key(error):
                    raise
                assigned.begin_failed(error)
                return ()
            if tries:
                await assigned.handle_alone(entry, tries)
            else:
                assigned.probe()
            await self._commit([assigned])
            if not assigned.is_reading or assigned.stream not in self._assigned:
                return ()
        return ()

    async def _handle_dead_letters(self) -> None:
        """Handle dead letters that were sent back."""
        if time.monotonic() < self._dead_letters_at:
            return
        self._dead_letters_at = time.monotonic() + self._dead_letters_every_s
        by_stream = await self._dead_letters.sent_back(list(self._assigned))
        if any(len(waiting) >= PAGE for waiting in by_stream.values()):
            self._dead_letters_at = 0.0  # there may be more: continue in the next round
        for stream, waiting in by_stream.items():
            for one in waiting:
                assigned = self._assigned.get(stream)
                if assigned is None or assigned.phase is not Phase.READING:
                    break
                owner = self._leases.worker, assigned.lease.token
                worker = self._membership.worker
                letter = await self._dead_letters.take(stream, one, worker, owner)
                if letter is not None:
                    await assigned.handle_dead_letter(letter)
                    await self._commit([assigned])

    async def _commit(self, of: Iterable[AssignedStream]) -> None:
        """Send commits in flight and apply each answer. Raises errors that concern the whole
        server, and StopWorker."""
        waiting = [assigned for assigned in of if assigned.phase is Phase.IN_FLIGHT]
        commits = [assigned.commit for assigned in waiting if assigned.commit is not None]
        answers = await self._leases.commit(commits)
        # All answers are applied before an error is raised: a confirmed commit that stays in flight
        # would be sent again, and applied twice where it does not move the position that it expects
        # (joined streams, a dead letter, `write` without entries).
        raised: StopWorker | RedisError | None = None
        for assigned, answer in zip(waiting, answers, strict=True):
            try:
                await self._apply_answer(assigned, answer)
            except (StopWorker, RedisError) as error:
                if raised is None or isinstance(error, StopWorker):
                    raised = error
        if raised is not None:
            raise raised

    async def _apply_answer(self, assigned: AssignedStream, answer: Answer | Exception) -> None:
        if isinstance(answer, Answer) and answer.status is CommitStatus.LOST:
            answer = await self._commit_again(assigned)
        if isinstance(answer, Answer):
            if answer.status is CommitStatus.OK:
                if answer.missed:  # entries read ahead may be among those counted as missed
                    await self._ahead.drop()
                await assigned.committed(answer.missed)
            else:
                self._drop(assigned)
                # A sync handler blocks the heartbeat: a call within its time limit may take longer
                # than the lease.
                if assigned.ran_s * 1000 > self._leases.lease_ms:
                    self._leases.outlast(min(assigned.ran_s, self._kind.time_limit_s))
                _log.info(
                    "stream_lost",
                    stream=assigned.stream,
                    token=assigned.lease.token,
                    ran_s=round(assigned.ran_s, 1),
                    lease_s=self._leases.lease_ms / 1000,
                )
        elif _is_servers(answer):
            raise answer
        else:
            delay_s = assigned.refused(str(answer))
            _log.warning(
                "commit_refused", stream=assigned.stream, error=str(answer), retry_s=delay_s
            )

    async def _commit_again(self, assigned: AssignedStream) -> Answer | Exception:
        """After Redis was emptied: restore position and state, unless another worker was faster."""
        # `acquire` sets our position if Redis has none. Another position was written by an owner
        # that was faster, which then keeps the stream.
        is_joined = isinstance(assigned, JoinedStreams)
        lease = await self._leases.acquire(
            assigned.stream, assigned.position, is_stream=not is_joined
        )
        if lease is None or not await self._is_put_back(assigned, lease):
            return Answer(CommitStatus.STALE)
        [answer] = await self._leases.commit([assigned.send_again(lease)])
        if isinstance(answer, Answer) and answer.status is CommitStatus.OK:
            _log.warning("position_put_back", stream=assigned.stream, position=assigned.position)
            assigned.begin_anew()
        return answer

    async def _is_put_back(self, assigned: AssignedStream, lease: Lease) -> bool:
        if isinstance(assigned, JoinedStreams):
            there = await self._leases.join_streams(lease, assigned.cursors)
            return there == assigned.cursors
        return lease.position == assigned.position

    async def _release_non_stream(self, portion: Sequence[AssignedStream]) -> None:
        """Release streams whose key has another type: one such key fails the read of all streams.
        `_take` refuses it from then on."""
        async with self._redis.pipeline(transaction=False) as pipeline:
            for assigned in portion:
                for stream in assigned.streams:
                    pipeline.type(self._keys.stream(stream))
            kinds = iter(await pipeline.execute())
        for assigned in portion:
            if {next(kinds) for _ in assigned.streams} - {"stream", "none"}:
                await self._leases.release([assigned.lease])
                self._drop(assigned)

    async def _rebalance(self) -> None:
        membership = self._membership
        self._refuse_split_units()
        streams = membership.streams_in(self._shard)
        self._units = self._units_of(streams)
        units_by_worker = {
            one: self._units_of(some.intersection(streams))
            for one, some in membership.streams_by_worker.items()
        }
        # Every worker computes the shares from the same streams and workers, so that they add up
        # without communication. Streams are released before others are acquired, so that they are
        # free at once for workers with too few.
        plans = [
            moves([one for one in self._assigned if one in part], part, share, self._random)
            for part, share in shares(
                tuple(self._units), units_by_worker, membership.worker, self._shard
            )
        ]
        unwanted = [
            name
            for name, assigned in self._assigned.items()
            # Joined streams whose set has changed are released, and acquired again as a new set.
            if self._units.get(name) != assigned.streams
        ]
        surplus = [stream for plan in plans for stream in plan.release if stream not in unwanted]
        released = [self._assigned[stream] for stream in (*unwanted, *surplus)]
        await self._leases.release([assigned.lease for assigned in released])
        for assigned in released:
            self._drop(assigned)
            _log.info("stream_released", stream=assigned.stream)
        # After Redis was emptied, a stream without an owner is not free until its owner has had the
        # time to restore its position.
        if membership.may_take:
            for plan in plans:
                room = plan.room
                for stream in await self._leases.free(plan.take):
                    if room and await self._take(stream):
                        room -= 1
            self._known |= frozenset(streams)

    def _refuse_split_units(self) -> None:
        """Raise ConfigError if joined streams are in several shards: one script commits them, and a
        script runs in one shard."""
        membership = self._membership
        if self._kind.mode == "ordered" or membership.shards == 1:
            return
        for name, streams in self._units_of(membership.streams).items():
            shards = {membership.shard_of(stream): stream for stream in streams}
            if len(shards) > 1:
                where = ", ".join(
                    f"{one} in shard {shard}" for shard, one in sorted(shards.items())
                )
                raise ConfigError(
                    f"{self._kind.__name__} joins as {name.removeprefix(PREFIX)!r} streams of "
                    f"several shards ({where}). A shard has whole pairs, SOL_USDC with "
                    "SOL_USDC_PERP: let joined_by return the pair, or choose redis.shards: 1"
                )

    def _units_of(self, streams: Iterable[str]) -> dict[str, tuple[str, ...]]:
        """The units of assignment, by name: single streams, or joined streams."""
        if self._kind.mode == "ordered":
            return {stream: (stream,) for stream in streams}
        units: dict[str, tuple[str, ...]] = {}
        for stream in sorted(streams):
            name = PREFIX + joined_by(self._prototype, stream)
            units[name] = (*units.get(name, ()), stream)
        return units

    async def _take(self, name: str) -> bool:
        try:
            assigned = await self._acquire(name)
        except CommandRefused:
            raise
        except ResponseError as error:  # such as WRONGTYPE: the key is no stream
            self._report_unusable(name, str(error))
            return False
        if assigned is None:
            return False
        self._assigned[name] = assigned
        _log.info(
            "stream_taken", stream=name, token=assigned.lease.token, position=assigned.position
        )
        return True

    async def _acquire(self, name: str) -> AssignedStream | None:
        common = self._spec, self._stats, self._membership.worker, self._limits
        if self._kind.mode == "ordered":
            lease = await self._leases.acquire(name, self._start_of(name))
            if lease is None or not await self._is_usable(lease, [lease.position]):
                return None
            return AssignedStream(lease, *common)
        lease = await self._leases.acquire(name, BEGINNING, is_stream=False)
        if lease is None:
            return None
        try:
            starts = {stream: self._start_of(stream) for stream in self._units[name]}
            cursors = await self._leases.join_streams(lease, starts)
        except ResponseError:
            await self._leases.release([lease])
            raise
        if cursors is None or not await self._is_usable(lease, cursors.values()):
            return None
        return JoinedStreams(lease, cursors, *common)

    async def _is_usable(self, lease: Lease, positions: Iterable[str]) -> bool:
        """Whether all positions are valid entry IDs. An invalid one, written by another program,
        would fail the read of all streams: then releases the lease."""
        bad = [one for one in positions if one != BEGINNING and not is_entry_id(one)]
        if bad:
            await self._leases.release([lease])
            self._report_unusable(lease.stream, f"its position is {bad[0]!r}, which is no entry ID")
        return not bad

    def _report_unusable(self, name: str, why: str) -> None:
        """Log it once per name."""
        if name not in self._unusable:
            self._unusable.add(name)
            _log.warning("stream_unusable", stream=name, error=why)

    def _start_of(self, stream: str) -> str:
        is_new = self._last_beat > 0 and stream not in self._known
        return start_of(self._start, found_later=is_new)

    def _drop(self, assigned: AssignedStream) -> None:
        self._assigned.pop(assigned.stream, None)
        self._stats.forget(assigned.stream)


def _of(
    read: Mapping[str, Sequence[Entry]], assigned: AssignedStream
) -> dict[str, Sequence[Entry]]:
    return {stream: read[stream] for stream in assigned.streams if stream in read}


def _is_read_up(read: Mapping[str, Sequence[Entry]], assigned: AssignedStream) -> bool:
    """Whether all entries that were read are handled; some may wait, have failed, or have exceeded
    the run time."""
    ends = {stream: entries[-1][0] for stream, entries in _of(read, assigned).items()}
    return ends.items() <= assigned.cursors.items()


def _is_servers(error: Exception) -> bool:
    """Whether the error concerns the whole server, not this commit alone: no answer, no writes now,
    or a refused command."""
    return isinstance(error, RedisConnectionError) or is_server_wide(error)
