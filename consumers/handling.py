"""What shared mode does with entries once it has them: handle, and settle with what came of it.

One that fails stays pending, to be tried again, until it has had its attempts; then it is set
aside. Everything is settled by one script for each stream (`settle.lua`), also when the worker is
told to stop in the middle.
"""

import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import structlog

from consumers.breath import BREATHE_EVERY_S, breathe
from consumers.consumer import Consumer, Missed, sets_aside
from consumers.deadletter import NotFinished, ResultsRefused, dead_letter
from consumers.dispatch import Dispatcher, Entry, HandlerFailed
from consumers.group import Group, Settled, Unit
from consumers.meter import Meter
from consumers.policy import retry_delay_s
from consumers.results import Results, Write

_log = structlog.get_logger()

SETTLE_EVERY_S = 1.0  # a slow handler's entries do not wait for the end of a long batch


class _Done(NamedTuple):
    """A unit to be settled with more than an acknowledgement, and what is needed if its results
    are refused."""

    unit: Unit
    entries: Sequence[Entry]
    attempt: int


class Handling:
    """The entries in one worker's hands."""

    def __init__(self, consumer: Consumer, group: Group, meter: Meter) -> None:
        self._dispatcher = Dispatcher(consumer, meter)
        self._group = group
        self._meter = meter
        self._attempts = consumer.attempts
        self.sets_aside = sets_aside(type(consumer))
        self._done: dict[str, list[_Done]] = {}
        self._plain: dict[str, list[str]] = {}  # IDs that are to be acknowledged, and no more
        self._unwritten: dict[tuple[str, str], Write] = {}  # dead letters that Redis has refused
        self._told: set[str] = set()  # streams whose failure was told in this batch
        self._settled_at = self._pause_at = time.monotonic()
        self.failing: dict[str, None] = {}  # streams that may have pending entries of ours
        self.marks: dict[str, str] = {}  # stream → up to where all is settled

    def in_hand(self) -> tuple[str, str] | None:
        return self._dispatcher.in_hand

    @property
    def takes_batches(self) -> bool:
        return self._dispatcher.takes_batches

    async def handle(
        self, found: Mapping[str, Sequence[Entry]], *, attempt: int = 1, gone: Sequence[str] = ()
    ) -> None:
        """Handle and settle; `gone` are IDs of the one stream that were trimmed away."""
        self._told.clear()
        self._settled_at = time.monotonic()
        self._pause_at = self._settled_at + BREATHE_EVERY_S
        if attempt > 1:
            self._meter.retried += sum(map(len, found.values()))
        try:
            for stream, entries in found.items():
                if gone:
                    self._add(stream, Unit("gone", gone), (), attempt)
                for portion in self._portions(entries, attempt):
                    results = self._results()
                    try:
                        rest = self._dispatcher.hand(stream, portion, results)
                        if rest is not None:
                            await rest
                    except HandlerFailed as failed:
                        self._meter.failed += 1
                        self._failed(stream, portion, attempt, failed)
                    else:
                        self._well(stream, portion, attempt, results)
                    if time.monotonic() > self._pause_at:
                        await self._pause()
        finally:
            await self._settle()

    async def handle_letters(self, stream: str, letters: Sequence[Entry]) -> None:
        """Dead letters that were sent back: once each; one that fails is set aside again."""
        for one in letters:
            letter = await self._group.begin_letter(stream, one)
            if letter is None:
                continue
            results = self._results()
            try:
                await self._dispatcher.handle(stream, [letter.entry], results)
                writes = results.writes if results else []
            except HandlerFailed as failed:
                self._meter.failed += 1
                writes = [self._dead(stream, letter.entry, letter.attempts, failed.__cause__)]
            unit = Unit("again", [letter.letter_id], writes)
            self._add(stream, unit, [letter.entry], letter.attempts)
            await self._settle()

    async def set_aside_unfinished(self, stream: str, entry: Entry, deliveries: int) -> None:
        """An entry that was begun so often and never finished is not handed out any more."""
        write = self._unwritten.pop((stream, entry[0]), None)
        write = write or self._dead(stream, entry, deliveries, NotFinished(deliveries))
        self._add(stream, Unit("ack", [entry[0]], [write]), [entry], deliveries)
        await self._settle()

    def _portions(self, entries: Sequence[Entry], attempt: int) -> Sequence[Sequence[Entry]]:
        """What is handed over, and succeeds or fails, at a time. Of a list that failed nobody
        knows which entry it was: again one by one."""
        if self._dispatcher.takes_batches and attempt == 1:
            return [entries]
        return [[entry] for entry in entries]

    def _results(self) -> Results | None:
        return Results(in_order=False) if self._dispatcher.takes_results else None

    def _well(
        self, stream: str, entries: Sequence[Entry], attempt: int, results: Results | None
    ) -> None:
        ids = [entry_id for entry_id, _ in entries]
        if results and results.writes:
            self._add(stream, Unit("ack", ids, results.writes), entries, attempt)
        else:
            self._plain.setdefault(stream, []).extend(ids)

    def _failed(
        self, stream: str, entries: Sequence[Entry], attempt: int, failed: HandlerFailed
    ) -> None:
        if self.sets_aside and len(entries) == 1 and attempt >= self._attempts:
            write = self._dead(stream, entries[0], attempt, failed.__cause__)
            self._add(stream, Unit("ack", [entries[0][0]], [write]), entries, attempt)
            return
        self.failing[stream] = None
        if stream not in self._told:  # one line a batch, however many fail
            self._told.add(stream)
            failed.tell(attempt, retry_delay_s(attempt))

    def _refused(self, stream: str, done: _Done, why: str) -> None:
        """Redis does not take the results: a failure like a handler's."""
        error = HandlerFailed(stream, done.entries[0][0], len(done.entries))
        error.__cause__ = ResultsRefused(why)
        self._meter.failed += 1
        letters = [write for write in done.unit.writes if write.part == "dead"]
        if letters:
            # Not even a dead letter can be written: the entry stays pending, the letter as it was.
            self._unwritten[stream, done.entries[0][0]] = letters[0]
            self.failing[stream] = None
            error.tell(done.attempt, retry_delay_s(done.attempt))
        elif done.unit.kind == "again":
            write = self._dead(stream, done.entries[0], done.attempt, error.__cause__)
            self._add(stream, done.unit._replace(writes=[write]), done.entries, done.attempt)
        else:
            self._failed(stream, done.entries, done.attempt, error)

    def _dead(self, stream: str, entry: Entry, attempts: int, error: BaseException | None) -> Write:
        assert error is not None
        self._meter.dead += 1
        _log.warning("set_aside", stream=stream, entry_id=entry[0], attempts=attempts)
        entry_id, fields = entry
        return dead_letter(
            stream, entry_id, fields, attempts=attempts, error=error, worker=self._group.consumer
        )

    def _add(self, stream: str, unit: Unit, entries: Sequence[Entry], attempt: int) -> None:
        self._done.setdefault(stream, []).append(_Done(unit, entries, attempt))

    async def _pause(self) -> None:
        """Let others have a turn; settle, where the last time was long ago."""
        if time.monotonic() - self._settled_at > SETTLE_EVERY_S:
            await self._settle()
        else:
            since_s = time.monotonic() - self._pause_at + BREATHE_EVERY_S
            await breathe(since_s)
        self._pause_at = time.monotonic() + BREATHE_EVERY_S

    async def _settle(self) -> None:
        for stream, ids in self._plain.items():
            self._add(stream, Unit("ack", ids), (), 1)
        done, self._done, self._plain = self._done, {}, {}
        self._settled_at = time.monotonic()
        units = {stream: [one.unit for one in some] for stream, some in done.items()}
        for stream, settled in (await self._group.settle(units)).items():
            await self._look_at_answers(stream, done[stream], settled)

    async def _look_at_answers(self, stream: str, done: Sequence[_Done], settled: Settled) -> None:
        handled, last_id = 0, ""
        for one, answer in zip(done, settled.answers, strict=True):
            if isinstance(answer, str):
                self._refused(stream, one, answer)
            elif answer and one.unit.kind != "gone":
                handled += len(one.unit.ids)
                last_id = one.entries[-1][0] if one.entries else one.unit.ids[-1]
            elif not answer:
                self._meter.late += len(one.unit.ids)
        if settled.mark:
            self.marks[stream] = settled.mark
        if handled:
            self._meter.done(stream, handled, last_id)
        if settled.missed:
            self._meter.missed += settled.missed
            missed = Missed(stream, settled.missed, last_id or settled.mark or "")
            await self._dispatcher.tell_missed(missed)
        if stream in self._done:  # refused results that are set aside
            await self._settle()
