"""A stream assigned to this worker: its lease, its position, and its consumer object.

Turns a batch of entries into one commit. Nothing of a batch is in Redis before its commit: after
any doubt the consumer object is discarded, and a new one continues from the state in Redis.

If an entry may fail or kill its worker, entries are handled one by one, after a mark in Redis per
attempt: so attempts are counted over all workers that had the stream.
"""

import asyncio
import time
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Any

from consumers.kit.api.consumer import ConsumerSpec, Missed, StopWorker, makes_dead_letters
from consumers.kit.api.results import State, Write
from consumers.kit.api.timers import Tick, last_tick_ms, tick_ms, timers_of
from consumers.kit.handling.batch import STATE_PART, BatchRunner, Part, tick_write
from consumers.kit.handling.dead_letters import DeadLetter, dead_letter
from consumers.kit.handling.entry import Entry, stream_of
from consumers.kit.handling.failure import (
    HandlerFailed,
    NotFinished,
    ResultsRefused,
    cancelled_within,
)
from consumers.kit.handling.limits import Limits
from consumers.kit.handling.yielding import Pace
from consumers.kit.ordered.lease import Commit, Lease
from consumers.kit.policy import is_unfinished, retry_delay_s
from consumers.kit.stats import Stats


class Phase(Enum):
    """The phase of an assigned stream, and its transitions.

    PAUSED      no consumer object, until the pause after a failure is over
                → READING (`begin`), IN_FLIGHT (`probe`)
    READING     a consumer object, waiting for entries
                → IN_FLIGHT (a batch is handled, or `probe`), PAUSED (it failed)
    IN_FLIGHT   a commit that Redis has not confirmed yet: no entry is handled meanwhile
                → READING (`committed`), PAUSED (`refused`, or `committed` without an object)
    """

    PAUSED = auto()
    READING = auto()
    IN_FLIGHT = auto()


@dataclass(frozen=True, slots=True)
class _InFlight:
    """An unconfirmed commit, and its origin, in case Redis refuses it: an entry that was handled
    alone, a dead letter that was sent back, a timer, or else a batch."""

    commit: Commit
    undecodable: int = 0  # undecodable entries, which are counted separately
    alone: Entry | None = None
    tries: int = 0  # attempts at the entry that was handled alone
    dead_letter: DeadLetter | None = None
    tick: tuple[str, int] | None = None  # a timer, and its due time, ms


class AssignedStream:
    """One stream that this worker owns."""

    def __init__(
        self,
        lease: Lease,
        spec: ConsumerSpec,
        stats: Stats,
        worker: str,
        limits: Limits | None = None,
    ) -> None:
        self.lease = lease
        self.position = lease.position
        self.failures = 0  # in a row
        self.ran_s = 0.0  # duration of the last batch, s
        self._spec = spec
        self._kind = spec.kind
        self._stats = stats
        self._worker = worker
        self._limits = limits
        self._state = State()
        self._runner: BatchRunner | None = None
        self._in_flight: _InFlight | None = None
        self._retry_at = 0.0
        # Number of entries before a failed one: they succeeded once, so they form a batch again.
        self._before_failed = 0
        # Number of entries to handle one by one. After a crash, any entry of the previous owner's
        # batch may have caused it.
        self._one_by_one = self._kind.batch_entries if lease.after_a_crash else 0
        self._timers = dict(timers_of(self._kind))
        self._ticks: dict[str, int] = {}
        # ID of the entry that becomes a dead letter with its next commit, and the write for it.
        self._dead: tuple[str, Write] | None = None

    @property
    def stream(self) -> str:
        return self.lease.stream

    @property
    def phase(self) -> Phase:
        if self._in_flight is not None:
            return Phase.IN_FLIGHT
        return Phase.PAUSED if self._runner is None else Phase.READING

    @property
    def commit(self) -> Commit | None:
        """The commit that is not confirmed yet, if any."""
        return self._in_flight.commit if self._in_flight else None

    @property
    def needs_state(self) -> bool:
        """Whether a consumer object is missing and the pause is over: time for `begin`."""
        return self._runner is None and time.monotonic() >= self._retry_at

    @property
    def is_reading(self) -> bool:
        """Whether there is a consumer object; a commit may be in flight."""
        return self._runner is not None

    @property
    def goes_one_by_one(self) -> bool:
        """Whether the next entry is to be handled alone, after a mark (`handle_alone`)."""
        return self._one_by_one > 0 and not self._before_failed

    @property
    def streams(self) -> tuple[str, ...]:
        """The streams that are read."""
        return (self.stream,)

    @property
    def cursors(self) -> Mapping[str, str]:
        """Stream → position up to which it was handled."""
        return {self.stream: self.position}

    @property
    def object_stream(self) -> str:
        """The attribute `stream` of the consumer object."""
        return self.stream

    def batch(self, by_stream: Mapping[str, Sequence[Entry]], size: int) -> Sequence[Entry]:
        """The entries to handle now, of those read with COUNT `size`."""
        return by_stream.get(self.stream, ())

    def made(self) -> str:
        """The consumer's own line for people."""
        return self._runner.made() if self._runner else ""

    async def begin(self, saved: Mapping[str, str], ticks: Mapping[str, int] | None = None) -> None:
        """Make the consumer object, with the state saved with the position and the last due times
        of its timers. If that fails, pauses the stream."""
        try:
            self._state = State(saved)
        except ValueError as error:  # no JSON: another program has written to the state
            self.begin_failed(error)
            return
        self._ticks = dict(ticks or {})
        consumer = self._spec.build()
        try:
            self._runner = await BatchRunner.open(
                consumer,
                self.object_stream,
                self.lease.token,
                self._state,
                self._stats,
                self._worker,
                self._limits,
            )
        except HandlerFailed as failed:
            failed.log(self.failures, self._pause())

    def begin_failed(self, error: Exception) -> None:
        """Pause the stream: its saved state cannot be used."""
        failed = HandlerFailed(self.stream, "state")
        failed.__cause__ = error
        failed.log(self.failures + 1, self._pause())

    async def handle(self, entries: Sequence[Entry]) -> None:
        """Handle a batch, or its beginning, and put its commit in flight. Without entries, only
        the consumer's writes.

        Raises StopWorker: then nothing is committed. A handler that fails pauses the stream, and
        no entry is skipped.
        """
        if self._before_failed:
            entries = entries[: self._before_failed]
        part = await self._run(entries)
        if part.failed is None:
            self._send(part.entries, part.writes, undecodable=part.undecodable)
            return
        self._take_failed(entries, part.failed)

    def _take_failed(self, entries: Sequence[Entry], error: HandlerFailed) -> None:
        # If the failed entry is known, those before it form a batch again, and only it is handled
        # alone. It is unknown if `write` has failed, which covers all handled entries.
        ids = [(stream_of(entry, self.stream), entry[0]) for entry in entries]
        failed = error.stream, error.entry_id
        is_known = error.entries == 1 and len(entries) > 1 and failed in ids
        self._before_failed = ids.index(failed) if is_known else 0
        self._one_by_one = max(self._one_by_one, 1 if is_known else len(entries))
        error.log(self.failures + 1, self._pause())

    async def handle_alone(self, entry: Entry, tries: int) -> None:
        """Handle one entry, which was begun `tries` times, the current attempt included."""
        # Its last attempt has failed: the commit that moves past it carries its dead letter.
        if self._dead is not None and self._dead[0] == entry[0]:
            self._send_alone(entry, tries, [self._dead[1]])
            return
        if tries > 1:
            self._stats.count_retries(1)
        attempts = self._kind.attempts
        # The mark in Redis counts started attempts, the current one included: earlier attempts that
        # never ended have killed their workers, and another one would kill this worker.
        if is_unfinished(tries - 1, attempts) and makes_dead_letters(self._kind):
            self._send_alone(
                entry, tries, [self._make_dead_letter(entry, tries - 1, NotFinished(tries - 1))]
            )
            return
        part = await self._run([entry])
        if part.failed is None:
            self._send_alone(entry, tries, part.writes, part.undecodable)
            return
        self.failures = tries - 1
        if tries >= attempts and makes_dead_letters(self._kind):
            self._make_dead_letter(entry, tries, part.failed.reason)
            self.failures += 1
            self._let_go()  # a new object at once, to continue after the entry
        else:
            part.failed.log(tries, self._pause())

    async def handle_dead_letter(self, letter: DeadLetter) -> None:
        """Handle a dead letter that was sent back, once and out of order; the position stays."""
        assert self._runner is not None
        running = self._runner.run_dead_letter(self.stream, letter.entry)
        part = await self._or_let_go(running, letter.entry[0])
        if part.failed is None:
            self._send((), (*part.writes, letter.removal()), dead_letter=letter)
        else:
            self._keep_dead_letter(letter, part.failed.reason)

    async def write_if_due(self, *, stopping: bool = False) -> None:
        """Call `write` without entries if `due` requests it, and put the commit in flight."""
        # Not while a commit is in flight: its answer decides whether the object stays valid.
        if self._runner is None or self.phase is Phase.IN_FLIGHT:
            return
        try:
            is_due = await self._runner.is_due(self.stream, stopping=stopping)
        except HandlerFailed as failed:
            failed.log(self.failures + 1, self._pause())
            return
        if is_due:
            await self.handle(())

    async def run_timer(self, now_ms: int, *, is_caught_up: bool) -> bool:
        """Run one timer that is due. Returns whether there was one: then its commit is in flight,
        or the stream is paused. Raises StopWorker.

        A timer waits for all entries up to its due time: it runs if `is_caught_up` (no more entries
        to read), or if the position has reached its due time.
        """
        if self.phase is not Phase.READING or self._runner is None:
            return False
        read_ms = now_ms if is_caught_up else int(self.position.partition("-")[0])
        for name, interval_ms in self._timers.items():
            at_ms = tick_ms(now_ms, interval_ms)
            last_ms = last_tick_ms(self._ticks.get(name), now_ms)
            if last_ms is None:  # first use: the timer runs from the next due time on
                part = Part((), [tick_write(name, at_ms)])
            elif at_ms > last_ms and at_ms <= read_ms:
                tick = Tick(self.object_stream, at_ms * 1000)
                part = await self._or_let_go(self._runner.run_tick(name, tick), name)
            else:
                continue
            if part.failed is not None:
                part.failed.log(self.failures + 1, self._pause())
                self._try_last(name)
            else:
                commit = self._commit_of((), part.writes)
                self._in_flight = _InFlight(commit, tick=(name, at_ms))
            return True
        return False

    def _try_last(self, name: str) -> None:
        """After a failure, try this timer after the others, which would never run otherwise."""
        self._timers[name] = self._timers.pop(name)

    def probe(self) -> None:
        """Put an empty commit in flight, which Redis confirms or refuses: the lease may be lost."""
        if self._in_flight is None:
            self._in_flight = _InFlight(self._commit_of((), ()))

    async def committed(self, missed: int) -> None:
        """Record that Redis has confirmed the commit; `missed` entries were removed before they
        could be read. Raises StopWorker."""
        assert self._in_flight is not None
        commit, undecodable = self._in_flight.commit, self._in_flight.undecodable
        if self._in_flight.tick is not None:
            name, at_ms = self._in_flight.tick
            self._ticks[name] = at_ms
        self._in_flight = None
        self._move(commit)
        self._state.confirm()
        # A commit without entries (a probe, `due`, a dead letter) does not end a failure.
        if commit.handled:
            self._count(commit.handled, undecodable)
        if missed:
            self._stats.count_missed(missed)
            if self._runner is not None:
                await self._runner.report_missed(Missed(self.stream, missed, self.position))

    def _move(self, commit: Commit) -> None:
        self.position = commit.position

    def refused(self, why: str) -> float:
        """Record that Redis has refused the results: a failure like a handler's. Returns the pause,
        s."""
        flight = self._in_flight
        assert flight is not None
        error = ResultsRefused(why)
        if flight.dead_letter is not None:
            self._keep_dead_letter(flight.dead_letter, error)
            return 0.0
        if flight.tick is not None:
            self._try_last(flight.tick[0])
        # One entry of the batch has made the refused result: handled one by one, it is found.
        if flight.alone is None:
            self._one_by_one = max(self._one_by_one, flight.commit.handled)
            return self._pause()
        self.failures = flight.tries - 1
        # If the dead letter itself was refused (`_dead` is set), the same one is sent again.
        is_last = self._dead is None and flight.tries >= self._kind.attempts
        if is_last and makes_dead_letters(self._kind):
            self._make_dead_letter(flight.alone, flight.tries, error)
            self._pause()
            self._retry_at = 0.0
            return 0.0
        return self._pause()

    def send_again(self, lease: Lease) -> Commit:
        """After Redis was emptied: the same commit under a new lease, with the whole state."""
        assert self._in_flight is not None
        commit = self._in_flight.commit
        self.lease = lease
        # First the confirmed state, then the changes of this commit.
        writes = (*self._state.saved_writes(STATE_PART), *commit.writes)
        commit = commit._replace(lease=lease, writes=writes)
        self._in_flight = replace(self._in_flight, commit=commit)
        return commit

    def begin_anew(self) -> None:
        """Discard the consumer object after Redis was emptied: a new one writes all results."""
        self._runner = None

    def caught_up(self) -> None:
        """Record that the stream is read to its end: no worker has ever had a later entry."""
        self._one_by_one = 0

    async def _run(self, entries: Sequence[Entry]) -> Part:
        assert self._runner is not None
        running = self._runner.run_together(self.stream, entries, Pace())
        last_id = entries[-1][0] if entries else "write"
        return await self._or_let_go(running, last_id, max(1, len(entries)))

    async def _or_let_go(
        self, running: Coroutine[Any, Any, Part], what: str, entries: int = 1
    ) -> Part:
        began = time.monotonic()
        try:
            if self._kind.concurrency == 1:
                return await running
            return await self._in_its_own_task(running, what, entries)
        except StopWorker:
            self._let_go()
            raise
        finally:
            self.ran_s = time.monotonic() - began

    async def _in_its_own_task(
        self, running: Coroutine[Any, Any, Part], what: str, entries: int
    ) -> Part:
        """Run concurrent calls in a task of their own: a call that cancels its task then counts as
        a failure, and does not end the worker."""
        stopped: list[StopWorker] = []

        async def run() -> Part:
            try:
                return await running
            except StopWorker as stop:  # a TaskGroup would wrap it
                stopped.append(stop)
                return Part(())

        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(run())
        if stopped:
            raise stopped[0]
        if not task.cancelled():
            return task.result()
        self._stats.count_failure()
        return Part((), (), cancelled_within(self.stream, what, entries))

    def _send(
        self,
        entries: Sequence[Entry],
        writes: Sequence[Write],
        dead_letter: DeadLetter | None = None,
        undecodable: int = 0,
    ) -> None:
        commit = self._commit_of(entries, writes)
        self._in_flight = _InFlight(commit, undecodable, dead_letter=dead_letter)

    def _send_alone(
        self, entry: Entry, tries: int, writes: Sequence[Write], undecodable: int = 0
    ) -> None:
        commit = self._commit_of([entry], writes)
        self._in_flight = _InFlight(commit, undecodable, alone=entry, tries=tries)

    def _commit_of(self, entries: Sequence[Entry], writes: Sequence[Write]) -> Commit:
        position = entries[-1][0] if entries else self.position
        return Commit(self.lease, self.position, position, len(entries), writes)

    def _count(self, handled: int, undecodable: int) -> None:
        self._stats.done(self.stream, handled, self.position, undecodable)
        if undecodable and self._kind.on_undecodable == "dead_letter":
            self._stats.count_dead_letter(undecodable)
        self.failures = 0
        self._dead = None
        if self._before_failed:
            self._before_failed = max(0, self._before_failed - handled)
        else:
            self._one_by_one = max(0, self._one_by_one - handled)

    def _keep_dead_letter(self, letter: DeadLetter, error: BaseException) -> None:
        """Put a commit in flight that replaces the dead letter, with the new error."""
        write = self._letter(letter.entry, letter.attempts, error)
        self._let_go()
        self._send((), (write, letter.removal()))

    def _make_dead_letter(self, entry: Entry, attempts: int, error: BaseException) -> Write:
        """Make the entry a dead letter, to be written with its next commit."""
        write = self._letter(entry, attempts, error)
        self._dead = entry[0], write
        return write

    def _letter(self, entry: Entry, attempts: int, error: BaseException) -> Write:
        self._stats.count_dead_letter()
        return dead_letter(self.stream, entry, attempts=attempts, error=error, worker=self._worker)

    def _pause(self) -> float:
        """Discard the object, and pause the stream. Returns the pause, s, after which a new object
        is made from the state in Redis."""
        self.failures += 1
        delay_s = retry_delay_s(self.failures)
        self._let_go()
        self._retry_at = time.monotonic() + delay_s
        return delay_s

    def _let_go(self) -> None:
        """Discard the object and the unconfirmed commit: everything that is not in Redis."""
        self._runner = self._in_flight = None
        self._retry_at = 0.0
        self._state.discard()
