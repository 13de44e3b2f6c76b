"""The only path from entries to results: deliver a batch to a consumer, collect its writes.

All callers run their batches here: the loops of both modes, dead letters that were sent back,
`replay`, and `Trial` of the test harness. They differ in the use of the outcome: settle it (shared
mode), commit it (ordered mode, replay), or raise it (tests).

Independent of Redis, groups and leases.
"""

import asyncio
import time
from collections.abc import Awaitable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from bridge.contract.entry import BadEntry
from consumers.kit.api.consumer import Consumer, Missed, StopWorker
from consumers.kit.api.results import Results, State, Write
from consumers.kit.api.routes import takes_results
from consumers.kit.api.timers import Tick
from consumers.kit.handling.at_once import AtOnce, Ran, has_key
from consumers.kit.handling.calls import finished, is_consumers
from consumers.kit.handling.dead_letters import dead_letter
from consumers.kit.handling.dispatch import Dispatcher
from consumers.kit.handling.entry import Entry
from consumers.kit.handling.failure import HandlerFailed
from consumers.kit.handling.limits import Limits
from consumers.kit.handling.yielding import Pace
from consumers.kit.stats import InHand, Stats

TICKS_PART = "ticks"  # of the key that holds the last due time of each timer, ms
_LONGEST_LINE = 200  # characters of `made`, which is part of the status written each second
STATE_PART = "state"  # of the key that holds an ordered consumer's state


def made_line(consumer: Consumer) -> str:
    """The consumer's `made` line; if it fails, the type of the error. Raises no failure of the
    consumer."""
    try:
        return str(consumer.made())[:_LONGEST_LINE]
    except BaseException as error:
        if not is_consumers(error):
            raise
        return f"made() failed: {type(error).__name__}"


async def _in_turn(call: Awaitable[None], slots: asyncio.Semaphore) -> None:
    async with slots:
        await call


def tick_write(name: str, at_ms: int) -> Write:
    """The command that saves the last due time of a timer."""
    return Write("HSET", TICKS_PART, (name, str(at_ms)))


class Part(NamedTuple):
    """Entries that succeed or fail together, and their outcome: writes, or a failure. `undecodable`
    of them could not be decoded and reached no handler."""

    entries: Sequence[Entry]
    writes: Sequence[Write] = ()
    failed: HandlerFailed | None = None
    undecodable: int = 0


class BatchRunner:
    """Runs the batches of one consumer object.

    In ordered mode a failure may leave the object half-way through a batch that is not committed:
    the caller then discards this runner, and opens a new one from the state in Redis.
    """

    def __init__(
        self,
        consumer: Consumer,
        stats: Stats,
        state: State | None = None,
        worker: str = "",
        limits: Limits | None = None,
    ) -> None:
        # Limits are shared with other objects of the worker. A single object makes no concurrent
        # calls in `run_apart`, so it needs no slots there.
        self._slots = None if limits is None else limits.slots
        self._limits = limits or Limits(type(consumer))
        self._consumer = consumer
        self._worker = worker
        self._sets_aside = consumer.on_undecodable == "dead_letter"
        self._dispatcher = Dispatcher(consumer, stats)
        self._at_once = AtOnce(consumer, self._dispatcher, self._limits)
        self._in_order = consumer.mode != "shared"
        self._has_ids = consumer.mode == "ordered"  # IDs of joined streams are not monotonic
        self._stats = stats
        # An empty state is falsy: `or` would replace the consumer's own object.
        self.state = State() if state is None else state

    @classmethod
    async def open(
        cls,
        consumer: Consumer,
        stream: str,
        token: int,
        state: State,
        stats: Stats,
        worker: str = "",
        limits: Limits | None = None,
    ) -> "BatchRunner":
        """Assign a stream to a new object (ordered mode), with the fencing token and the state
        saved with the position. Raises HandlerFailed if its `load` fails."""
        consumer.stream, consumer.token, consumer.state = stream, token, state
        runner = cls(consumer, stats, state, worker, limits)
        with runner._hook(stream, "load") as call:
            await finished(consumer.load(), consumer.time_limit_s, call)
        return runner

    @property
    def calls_at_once(self) -> bool:
        """Whether calls run concurrently: entries are then delivered by `run_at_once`."""
        return self._limits.concurrency > 1

    @property
    def takes_lists(self) -> bool:
        """Whether the consumer has `on_batch`, which gets all entries of a batch in one call."""
        return self._dispatcher.takes_lists

    def made(self) -> str:
        """The consumer's own line for people."""
        return made_line(self._consumer)

    async def run_apart(
        self,
        stream: str,
        entries: Sequence[Entry],
        parts: list[Part],
        pace: Pace,
        *,
        one_by_one: bool = False,
    ) -> int:
        """Deliver entries that succeed or fail independently (for a list handler: together).

        Effect: appends the outcomes to `parts`; adjacent entries without writes form one part.
        `one_by_one`: split lists too, to find the entry that fails. Returns the number of delivered
        entries: fewer than given when `pace` ends. Raises StopWorker, or the cancellation of this
        task; `parts` then has the entries handled before, without the current ones.
        """
        results: Results | None = None
        done = noted = 0  # entries[noted:done] succeeded, and are in no part yet
        try:
            for portion in self._portions(entries, one_by_one=one_by_one):
                failed: HandlerFailed | None = None
                if self._dispatcher.takes_results:
                    results = Results(in_order=self._has_ids)
                try:
                    if self._limits.rate is not None:
                        await self._limits.may_call()
                    if (rest := self._dispatcher.hand(stream, portion, results)) is not None:
                        await (rest if self._slots is None else _in_turn(rest, self._slots))
                except HandlerFailed as error:
                    self._stats.count_failure()
                    failed = error
                undecodable = self._dispatcher.undecodable
                if failed is not None or undecodable or (results and results.writes):
                    if noted < done:
                        parts.append(Part(entries[noted:done]))
                    writes = () if failed or results is None else results.writes
                    parts += self._split(stream, Part(portion, writes, failed))
                    noted = done + len(portion)
                done += len(portion)
                if (now := time.monotonic()) > pace.next_at and await pace.keep(now):
                    break
        finally:
            if noted < done:
                parts.append(Part(entries[noted:done]))
        return done

    async def run_together(self, stream: str, entries: Sequence[Entry], pace: Pace) -> Part:
        """Deliver entries whose results are applied together or not at all. Without entries: only
        collect the writes of `write` and of the state.

        Returns a part with the delivered entries (fewer than given when `pace` ends), their writes,
        and in ordered mode those of `write` and of the state; or all entries and the failure.
        Raises StopWorker: then nothing of the batch is to be applied.
        """
        results = Results(in_order=self._has_ids)
        done = undecodable = 0
        try:
            if self.calls_at_once and (has_key(self._consumer) or not self._in_order):
                return await self._run_keyed(stream, entries, results, pace)
            for portion in self._portions(entries):
                if self._limits.rate is not None:
                    await self._limits.may_call()
                if (rest := self._dispatcher.hand(stream, portion, results)) is not None:
                    # The slots limit concurrent calls over all streams of this worker.
                    async with self._limits.slots:
                        await rest
                if bad := self._dispatcher.undecodable:
                    undecodable += len(bad)
                    results.writes += self._set_aside(stream)
                done += len(portion)
                if (now := time.monotonic()) > pace.next_at and await pace.keep(now):
                    break
            writes = await self._writes(stream, entries[:done], results)
            return Part(entries[:done], writes, undecodable=undecodable)
        except HandlerFailed as failed:
            self._stats.count_failure()
            return Part(entries, (), failed)

    async def run_at_once(
        self, items: Sequence[tuple[str, Entry]], parts: list[tuple[str, Part]], pace: Pace
    ) -> int:
        """`run_apart` for entries of any streams, with concurrent calls; each entry is a part of
        its own, with its stream. Returns the number of delivered entries."""
        ran: list[Ran] = []
        try:
            await self._at_once.run(items, ran, pace, all_or_none=False)
        finally:
            parts += [(one.stream, self._part(one)) for one in ran if one.is_over]
        return len(ran)

    async def _run_keyed(
        self, stream: str, entries: Sequence[Entry], results: Results, pace: Pace
    ) -> Part:
        """`run_together` with concurrent calls: results in the order of the entries."""
        ran: list[Ran] = []
        items = [(stream, entry) for entry in entries]
        await self._at_once.run(items, ran, pace, all_or_none=True)
        parts = [self._part(one) for one in ran]
        for part in parts:
            if part.failed is not None:
                return Part(entries, (), part.failed)
            results.writes += part.writes
        done = entries[: len(ran)]
        undecodable = sum(part.undecodable for part in parts)
        return Part(done, await self._writes(stream, done, results), undecodable=undecodable)

    def _part(self, one: Ran) -> Part:
        if one.failed is not None:
            self._stats.count_failure()
            return Part([one.entry], (), one.failed)
        if one.undecodable is not None:
            writes = self._dead_letters(one.stream, [(one.entry, one.undecodable)])
            return Part([one.entry], writes, undecodable=1)
        return Part([one.entry], one.results.writes)

    async def run_dead_letter(self, stream: str, entry: Entry) -> Part:
        """Deliver a dead letter that was sent back. If it still cannot be decoded, it fails."""
        part = await self.run_together(stream, [entry], Pace())
        if not part.undecodable:
            return part
        failed = HandlerFailed(stream, entry[0])
        _, failed.__cause__ = self._dispatcher.undecodable[0]
        return Part([entry], (), failed)

    async def is_due(self, stream: str, *, stopping: bool) -> bool:
        """Whether `due` of an ordered consumer requests a `write` without entries. Raises
        HandlerFailed."""
        if not self._in_order:
            return False
        try:
            with self._hook(stream, "due") as call:
                due = self._consumer.due(stopping=stopping)
                return bool(await finished(due, self._consumer.time_limit_s, call))
        except HandlerFailed:
            self._stats.count_failure()
            raise

    async def run_tick(self, name: str, tick: Tick) -> Part:
        """Call a timer. Returns a part without entries: its writes and its due time, or its
        failure. Raises StopWorker."""
        results = Results(in_order=False)
        timer = getattr(self._consumer, name)
        try:
            with self._hook(tick.stream, name) as call:
                returned = timer(tick, results) if takes_results(timer) else timer(tick)
                await finished(returned, self._consumer.time_limit_s, call)
            writes = await self._writes(tick.stream, (), results)
        except HandlerFailed as failed:
            if isinstance(failed.reason, StopWorker):
                raise failed.reason from None
            self._stats.count_failure()
            return Part((), (), failed)
        return Part((), (*writes, tick_write(name, tick.at_us // 1000)))

    async def report_missed(self, missed: Missed) -> None:
        """Log missed entries and call the consumer's `on_missed`. Raises StopWorker."""
        await self._dispatcher.report_missed(missed)

    def _portions(
        self, entries: Sequence[Entry], *, one_by_one: bool = False
    ) -> Sequence[Sequence[Entry]]:
        if self.takes_lists and not one_by_one:
            return [entries] if entries else ()
        return [(entry,) for entry in entries]

    def _split(self, stream: str, part: Part) -> Sequence[Part]:
        """Split off undecodable entries as a part of their own, so that they do not fail together
        with the delivered ones."""
        if not self._dispatcher.undecodable:
            return [part]
        bad = [entry for entry, _ in self._dispatcher.undecodable]
        apart = Part(bad, self._set_aside(stream), undecodable=len(bad))
        rest = [entry for entry in part.entries if entry not in bad]
        return [part._replace(entries=rest), apart] if rest else [apart]

    def _set_aside(self, stream: str) -> Sequence[Write]:
        """The dead letters of undecodable entries, if `on_undecodable` is "dead_letter"."""
        return self._dead_letters(stream, self._dispatcher.undecodable)

    def _dead_letters(self, stream: str, bad: Sequence[tuple[Entry, BadEntry]]) -> Sequence[Write]:
        if not self._sets_aside:
            return ()
        return [
            dead_letter(stream, entry, attempts=1, error=error, worker=self._worker)
            for entry, error in bad
        ]

    async def _writes(
        self, stream: str, entries: Sequence[Entry], results: Results
    ) -> Sequence[Write]:
        if not self._in_order:
            return results.writes
        # Any entry of the batch may have caused a failure of `write`, so all are reported.
        last_id = entries[-1][0] if entries else "write"
        with self._hook(stream, last_id, max(1, len(entries))) as call:
            written = self._consumer.write(results)
            await finished(written, self._consumer.time_limit_s, call)
            # A replaced state object would not be saved.
            if getattr(self._consumer, "state", self.state) is not self.state:
                raise TypeError("state is another object: change its fields, self.state[…] = …")
            return (*results.writes, *self.state.take_writes(STATE_PART))

    @contextmanager
    def _hook(self, stream: str, what: str, entries: int = 1) -> Iterator[InHand]:
        """Register a hook's call in the stats; convert its exception to HandlerFailed."""
        call = self._stats.begin(stream, what)
        try:
            yield call
        except BaseException as error:
            if not is_consumers(error):
                raise
            raise HandlerFailed(stream, what, entries) from error
        finally:
            self._stats.end(call)
