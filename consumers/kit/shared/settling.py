"""Handling of entries in shared mode: run the consumer, and settle the outcome.

An entry that fails stays pending, to be retried, until it has had its attempts; then it becomes a
dead letter. One script per stream settles everything (`settle.lua`), also when a stop comes in the
middle: then the current entry is finished, and the rest is given back.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from consumers.kit.api.consumer import Consumer, Missed, makes_dead_letters
from consumers.kit.api.results import Write
from consumers.kit.handling.batch import BatchRunner, Part
from consumers.kit.handling.dead_letters import DEAD_PART, DeadLetter, dead_letter
from consumers.kit.handling.entry import Entry
from consumers.kit.handling.failure import HandlerFailed, NotFinished, ResultsRefused
from consumers.kit.handling.limits import Limits
from consumers.kit.handling.yielding import Pace
from consumers.kit.policy import retry_delay_s
from consumers.kit.shared.group import Group, Settled, Unit, UnitKind
from consumers.kit.stats import Stats
from consumers.kit.stop import Stop


class _Outcome(NamedTuple):
    """A unit to be settled, and the data needed if Redis refuses its results."""

    unit: Unit
    entries: Sequence[Entry]  # empty for a unit without writes, which cannot be refused
    attempt: int
    undecodable: int = 0  # undecodable entries of the unit, which are counted separately


class Settler:
    """Handles and settles the entries of one worker."""

    def __init__(
        self,
        consumer: Consumer,
        group: Group,
        stats: Stats,
        idle_ms: int,
        limits: Limits | None = None,
    ) -> None:
        self._runner = BatchRunner(consumer, stats, worker=group.consumer, limits=limits)
        self._group = group
        self._stats = stats
        self._idle_ms = idle_ms
        self._attempts = consumer.attempts
        self._outcomes: dict[str, list[_Outcome]] = {}  # by stream, to be settled next
        self._plain: dict[str, list[str]] = {}  # stream → IDs to be acknowledged without writes
        self._refused_dead_letters: dict[tuple[str, str], Write] = {}  # by stream and entry ID
        # Entries that were handled here and not settled, as Redis was unavailable.
        self._unsettled: set[tuple[str, str]] = set()
        self._logged: set[str] = set()  # streams whose failure was logged in this batch
        self._failing: dict[str, None] = {}
        self.makes_dead_letters = makes_dead_letters(type(consumer))
        self.marks: dict[str, str] = {}  # stream → ID up to which all entries are settled

    @property
    def takes_lists(self) -> bool:
        return self._runner.takes_lists

    @property
    def failing(self) -> Sequence[str]:
        """Streams that may have entries pending under this worker's name."""
        return tuple(self._failing)

    def may_be_failing(self, *streams: str) -> None:
        """Record that entries of these streams may be pending here, to be retried."""
        self._failing.update(dict.fromkeys(streams))

    def is_not_failing(self, stream: str) -> None:
        """Record that no entry of this stream is pending here."""
        self._failing.pop(stream, None)
        self._unsettled = {one for one in self._unsettled if one[0] != stream}

    def is_unsettled(self, stream: str, entry_id: str) -> bool:
        """Whether the entry was handled here, but not settled: a retry is then no new attempt."""
        return (stream, entry_id) in self._unsettled

    async def handle(
        self,
        by_stream: Mapping[str, Sequence[Entry]],
        stop: Stop,
        *,
        attempt: int = 1,
        trimmed: Sequence[str] = (),
    ) -> None:
        """Run the consumer with these entries by stream, for the `attempt`-th time, and settle.

        `trimmed` are IDs of the only stream that were trimmed before they were handled. Raises
        StopWorker, and what Redis raises; entries handled until then are settled nevertheless.
        Entries that are not begun when `stop` is set are given back.
        """
        self._logged.clear()
        # `attempt` is Redis' delivery count, so attempts add up over restarts and over workers.
        if attempt > 1:
            self._stats.count_retries(sum(map(len, by_stream.values())))
        pace = Pace(stop)
        try:
            if trimmed:
                [stream] = by_stream
                self._add(stream, Unit(UnitKind.GONE, trimmed))
            if self._runner.calls_at_once:
                await self._run_at_once(by_stream, attempt, stop)
                return
            for stream, entries in by_stream.items():
                pace = await self._run(stream, entries, attempt, pace, stop)
        finally:
            await self._settle()

    async def handle_dead_letter(self, stream: str, letter: DeadLetter) -> None:
        """Handle a dead letter that was sent back, once: if it fails it is a dead letter again."""
        part = await self._runner.run_dead_letter(stream, letter.entry)
        writes = part.writes
        if part.failed is not None:
            writes = [self._dead(stream, letter.entry, letter.attempts, part.failed.reason)]
        unit = Unit(UnitKind.AGAIN, [letter.letter_id], writes)
        self._add(stream, unit, [letter.entry], letter.attempts)
        await self._settle()

    async def dead_letter_unfinished(self, stream: str, entry: Entry, deliveries: int) -> None:
        """Make a dead letter of an entry that was begun `deliveries` times and never finished. It
        is not delivered again, since it kills its workers."""
        write = self._refused_dead_letters.pop((stream, entry[0]), None)
        write = write or self._dead(stream, entry, deliveries, NotFinished(deliveries))
        self._add(stream, Unit(UnitKind.ACK, [entry[0]], [write]), [entry], deliveries)
        await self._settle()

    async def _run(
        self, stream: str, entries: Sequence[Entry], attempt: int, pace: Pace, stop: Stop
    ) -> Pace:
        """Handle all entries of a stream; settle in between when `pace` ends. Returns the pace for
        the next stream."""
        while entries:
            if stop.is_set:
                ids = [entry_id for entry_id, _ in entries]
                await self._group.give_back(stream, ids, attempt - 1, self._idle_ms)
                return pace
            parts: list[Part] = []
            done = 0
            try:
                # The failed entry of a list is unknown, so retries are one by one.
                done = await self._runner.run_apart(
                    stream, entries, parts, pace, one_by_one=attempt > 1
                )
            finally:
                # Also after an exception in the middle: entries handled before it are settled,
                # otherwise they would be handled again.
                for part in parts:
                    self._take(stream, part, attempt)
            entries = entries[done:]
            if pace.is_over:
                await self._settle()
                pace = Pace(stop)
        return pace

    async def _run_at_once(
        self, by_stream: Mapping[str, Sequence[Entry]], attempt: int, stop: Stop
    ) -> None:
        """`_run` with concurrent calls, for all streams together."""
        waiting = [(stream, entry) for stream, entries in by_stream.items() for entry in entries]
        while waiting:
            if stop.is_set:
                for stream in dict.fromkeys(stream for stream, _ in waiting):
                    ids = [entry[0] for other, entry in waiting if other == stream]
                    await self._group.give_back(stream, ids, attempt - 1, self._idle_ms)
                return
            parts: list[tuple[str, Part]] = []
            done = 0
            try:
                done = await self._runner.run_at_once(waiting, parts, Pace(stop))
            finally:
                for stream, part in parts:
                    self._take(stream, part, attempt)
            waiting = waiting[done:]
            if waiting:
                await self._settle()

    def _take(self, stream: str, part: Part, attempt: int) -> None:
        """Add the outcome of a part to those to be settled."""
        if part.failed is not None:
            self._take_failed(stream, part.entries, attempt, part.failed)
        elif part.writes or part.undecodable:
            ids = [entry_id for entry_id, _ in part.entries]
            unit = Unit(UnitKind.ACK, ids, part.writes)
            self._add(stream, unit, part.entries, attempt, part.undecodable)
            if part.undecodable and part.writes:
                self._stats.count_dead_letter(part.undecodable)
        else:
            ids = self._plain.setdefault(stream, [])
            ids += [entry_id for entry_id, _ in part.entries]

    def _take_failed(
        self, stream: str, entries: Sequence[Entry], attempt: int, failed: HandlerFailed
    ) -> None:
        if self.makes_dead_letters and len(entries) == 1 and attempt >= self._attempts:
            write = self._dead(stream, entries[0], attempt, failed.reason)
            self._add(stream, Unit(UnitKind.ACK, [entries[0][0]], [write]), entries, attempt)
            return
        self.may_be_failing(stream)
        if stream not in self._logged:  # one line per stream and batch
            self._logged.add(stream)
            failed.log(attempt, retry_delay_s(attempt))

    def _take_refused(self, stream: str, outcome: _Outcome, why: str) -> None:
        """Handle a refusal of the results by Redis: a failure like a handler's."""
        unit, entries, attempt, _ = outcome
        failed = HandlerFailed(stream, entries[0][0], len(entries))
        failed.__cause__ = ResultsRefused(why)
        self._stats.count_failure()
        dead_letters = [write for write in unit.writes if write.part == DEAD_PART]
        if dead_letters:
            # Even a dead letter cannot be written: the entry stays pending, and the dead letter is
            # kept unchanged, with the error of the handler instead of the refusal.
            self._refused_dead_letters[stream, entries[0][0]] = dead_letters[0]
            self.may_be_failing(stream)
            failed.log(attempt, retry_delay_s(attempt))
        elif unit.kind is UnitKind.AGAIN:
            write = self._dead(stream, entries[0], attempt, failed.reason)
            self._add(stream, unit._replace(writes=[write]), entries, attempt)
        else:
            self._take_failed(stream, entries, attempt, failed)

    def _dead(self, stream: str, entry: Entry, attempts: int, error: BaseException) -> Write:
        self._stats.count_dead_letter()
        return dead_letter(
            stream, entry, attempts=attempts, error=error, worker=self._group.consumer
        )

    def _add(
        self,
        stream: str,
        unit: Unit,
        entries: Sequence[Entry] = (),
        attempt: int = 1,
        undecodable: int = 0,
    ) -> None:
        outcome = _Outcome(unit, entries, attempt, undecodable)
        self._outcomes.setdefault(stream, []).append(outcome)

    async def _settle(self) -> None:
        # Cleared before the call: if its reply is lost, the entries stay pending and are retried,
        # and settling an entry twice changes nothing.
        for stream, ids in self._plain.items():
            self._add(stream, Unit(UnitKind.ACK, ids))
        outcomes, self._outcomes, self._plain = self._outcomes, {}, {}
        units = {stream: [one.unit for one in some] for stream, some in outcomes.items()}
        ids_sent = {
            (stream, one) for stream, some in units.items() for unit in some for one in unit.ids
        }
        self._unsettled |= ids_sent
        answers = await self._group.settle(units)
        self._unsettled -= ids_sent
        for stream, settled in answers.items():
            await self._apply_answers(stream, outcomes[stream], settled)

    async def _apply_answers(
        self, stream: str, outcomes: Sequence[_Outcome], settled: Settled
    ) -> None:
        done, undecodable, last_id = 0, 0, ""
        for outcome, answer in zip(outcomes, settled.answers, strict=True):
            ids = outcome.unit.ids
            if isinstance(answer, str):
                self._take_refused(stream, outcome, answer)
            elif answer and outcome.unit.kind is not UnitKind.GONE:
                done += len(ids)
                undecodable += outcome.undecodable
                last_id = outcome.entries[-1][0] if outcome.entries else ids[-1]
            elif not answer:
                self._stats.count_late(len(ids))
        if settled.mark:
            self.marks[stream] = settled.mark
        if done:
            self._stats.done(stream, done, last_id, undecodable)
        if settled.missed:
            self._stats.count_missed(settled.missed)
            missed = Missed(stream, settled.missed, last_id or settled.mark or "")
            await self._runner.report_missed(missed)
        if stream in self._outcomes:  # refused results became dead letters
            await self._settle()
