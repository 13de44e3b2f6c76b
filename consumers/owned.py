"""A stream in this worker's hands: its lease, its position, and the consumer object that reads it.

Turns a batch of entries into one commit. Nothing of a batch is in Redis before the commit is: after
any doubt the object is thrown away, and a new one goes on from what Redis has.

Where an entry may fail or kill its worker, entries go one by one, each begun with a mark in Redis:
so attempts are counted over all workers that had the stream.
"""

import time
from collections.abc import Callable, Mapping, Sequence

import structlog

from consumers.breath import BREATHE_EVERY_S, breathe
from consumers.consumer import Consumer, Missed, StopWorker, sets_aside
from consumers.deadletter import Letter, NotFinished, ResultsRefused, dead_letter
from consumers.dispatch import Dispatcher, Entry, HandlerFailed
from consumers.lease import Commit, Lease
from consumers.meter import Meter
from consumers.policy import is_unfinished, retry_delay_s
from consumers.results import Results, State, Write

_log = structlog.get_logger()

COMMIT_EVERY_S = 1.0  # a slow handler's batch ends early


class Owned:
    """One stream that this worker owns."""

    def __init__(
        self,
        lease: Lease,
        kind: type[Consumer],
        build: Callable[[], Consumer],
        meter: Meter,
        worker: str,
    ) -> None:
        self.lease = lease
        self.position = lease.position
        self.commit: Commit | None = None  # made, not yet confirmed by Redis
        self.state = State()
        self.failures = 0
        self._kind = kind
        self._build = build
        self._meter = meter
        self._worker = worker
        self._consumer: Consumer | None = None
        self._dispatcher: Dispatcher | None = None
        self._retry_at = 0.0
        self._before = 0  # entries before the one that failed: they may go together
        self._alone: tuple[Entry, int] | None = None  # the one in `commit`, and its tries
        self._sent_back: Letter | None = None  # the one in `commit`
        self._dead: tuple[str, Write] | None = None  # the entry to be set aside next
        # One by one while this is above 0. A crash may have been the work of any entry that its
        # owner can have had in hand.
        self._careful = kind.batch_entries if lease.after_a_crash else 0

    @property
    def stream(self) -> str:
        return self.lease.stream

    @property
    def needs_state(self) -> bool:
        """Whether there is no object (any more), and it is time to make one."""
        return self._consumer is None and time.monotonic() >= self._retry_at

    @property
    def is_reading(self) -> bool:
        return self._consumer is not None

    @property
    def is_careful(self) -> bool:
        """Whether the next entry goes alone, marked before."""
        return self._careful > 0 and not self._before

    @property
    def in_hand(self) -> tuple[str, str] | None:
        return self._dispatcher.in_hand if self._dispatcher else None

    def begin(self, saved: Mapping[str, str]) -> None:
        """Make the object, with the state that belongs to the position. Raises HandlerFailed."""
        consumer = self._build()
        consumer.stream, consumer.token = self.stream, self.lease.token
        try:
            consumer.state = self.state = State(saved)
            consumer.load()
        except Exception as error:
            raise HandlerFailed(self.stream, self.position) from error
        self._consumer = consumer
        self._dispatcher = Dispatcher(consumer, self._meter)

    def made(self) -> str:
        return self._consumer.made() if self._consumer else ""

    async def handle(self, entries: Sequence[Entry]) -> None:
        """Handle a batch, or its beginning; what comes of it is in `commit`. No entries: what
        there is to write.

        Raises StopWorker: then nothing of it counts. A handler that fails pauses the stream:
        nothing is skipped.
        """
        self._alone = self._sent_back = None
        if self._before:
            entries = entries[: self._before]
        results = Results()
        done = 0
        try:
            done = await self._hand_over(entries, results)
            last_id = entries[done - 1][0] if done else self.position
            state = self._write(results, last_id, done)
        except HandlerFailed as failed:
            self._meter.failed += 1
            one_fails = failed.entries == 1 and len(entries) > 1
            self._before = [e for e, _ in entries].index(failed.entry_id) if one_fails else 0
            self._careful = max(self._careful, 1 if one_fails else len(entries))
            failed.tell(self.failures + 1, self.pause())
            return
        except StopWorker:
            self._let_go()
            raise
        self._end_batch(entries[:done], (*results.writes, *state))

    async def handle_alone(self, entry: Entry, tries: int) -> None:
        """Handle one entry that was begun `tries` times by now, this one included."""
        entry_id = entry[0]
        attempts = self._kind.attempts
        self._alone, self._sent_back = (entry, tries), None
        if self._dead is not None and self._dead[0] == entry_id:
            self._end_batch([entry], [self._dead[1]])
            return
        if tries > 1:
            self._meter.retried += 1
        unfinished = is_unfinished(tries - 1, attempts)
        if unfinished and self._set_aside(entry, tries - 1, NotFinished(tries - 1)):
            assert self._dead is not None
            self._end_batch([entry], [self._dead[1]])
            return
        assert self._dispatcher is not None
        results = Results()
        try:
            await self._dispatcher.handle(self.stream, [entry], results)
            state = self._write(results, entry_id)
        except HandlerFailed as failed:
            self._meter.failed += 1
            self.failures = tries - 1
            if tries >= attempts and self._set_aside(entry, tries, failed.__cause__):
                self.failures += 1
                self._let_go()  # a new object at once, to go on behind the entry
            else:
                failed.tell(tries, self.pause())
            return
        except StopWorker:
            self._let_go()
            raise
        self._end_batch([entry], (*results.writes, *state))

    async def handle_letter(self, letter: Letter) -> None:
        """A dead letter that was sent back: once, out of order; the position stays."""
        assert self._dispatcher is not None
        self._alone, self._sent_back = None, letter
        results = Results()
        try:
            await self._dispatcher.handle(self.stream, [letter.entry], results)
            state = self._write(results, letter.entry_id)
        except HandlerFailed as failed:
            self._meter.failed += 1
            self._keep_letter(letter, failed.__cause__)
            return
        except StopWorker:
            self._let_go()
            raise
        self._end_batch((), (*results.writes, *state, _done(letter)))

    def _keep_letter(self, letter: Letter, error: BaseException | None) -> None:
        """It stays dead, with the new reason."""
        write = self._letter(letter.entry, letter.attempts, error)
        self._sent_back = None
        self._let_go()
        self._end_batch((), (write, _done(letter)))

    async def write_if_due(self, *, stopping: bool = False) -> None:
        """What the consumer has to write although nothing has come, if anything, is in `commit`."""
        if self._consumer is None or self.commit is not None:
            return
        try:
            is_due = self._is_due(self._consumer, stopping=stopping)
        except HandlerFailed as failed:
            self._meter.failed += 1
            failed.tell(self.failures + 1, self.pause())
            return
        if is_due:
            await self.handle(())

    def refused(self, why: str) -> float:
        """Redis does not take the results: a failure like a handler's. Gives the pause, s."""
        assert self.commit is not None
        error = ResultsRefused(why)
        if self._sent_back is not None:
            self._keep_letter(self._sent_back, error)
            return 0.0
        if self._alone is None:
            self._careful = max(self._careful, self.commit.handled)
            return self.pause()
        entry, tries = self._alone
        self.failures = tries - 1
        is_last = self._dead is None and tries >= self._kind.attempts
        aside = is_last and self._set_aside(entry, tries, error)
        delay_s = self.pause()
        if aside:
            self._retry_at = delay_s = 0.0
        return delay_s

    def doubt(self) -> None:
        """It is not known whether the lease still stands: a commit of nothing will tell."""
        if self.commit is None:
            self.commit = Commit(self.lease, self.position, self.position, 0, ())

    async def committed(self, missed: int) -> None:
        """Redis has it. Raises StopWorker."""
        assert self.commit is not None
        handled = self.commit.handled
        self.position, self.commit, self._sent_back = self.commit.position, None, None
        self.state.confirm()
        if handled:
            self._meter.done(self.stream, handled, self.position)
            self.failures = 0
            self._dead = None
            if self._before:
                self._before = max(0, self._before - handled)
            else:
                self._careful = max(0, self._careful - handled)
        if missed:
            self._meter.missed += missed
            if self._dispatcher is not None:
                told = Missed(self.stream, missed, self.position)
                await self._dispatcher.tell_missed(told)

    def send_again(self, lease: Lease) -> Commit:
        """Redis has forgotten all: the same commit under a new lease, with the whole state."""
        assert self.commit is not None
        self.lease = lease
        writes = (*self.state.saved_writes("state"), *self.commit.writes)
        self.commit = self.commit._replace(lease=lease, writes=writes)
        return self.commit

    def begin_anew(self) -> None:
        """Redis was emptied: results are gone, too; an object made anew gives all of them."""
        self._consumer = self._dispatcher = None

    def caught_up(self) -> None:
        """There was nothing more to read: no entry behind here was ever in anybody's hands."""
        self._careful = 0

    def pause(self) -> float:
        """Set the object aside for some seconds; it is made anew from what Redis has."""
        self.failures += 1
        delay_s = retry_delay_s(self.failures)
        self._let_go()
        self._retry_at = time.monotonic() + delay_s
        return delay_s

    def _let_go(self) -> None:
        """Of the object, with all that is not in Redis."""
        self._consumer = self._dispatcher = self.commit = None
        self._retry_at = 0.0
        self.state.discard()

    def _is_due(self, consumer: Consumer, *, stopping: bool) -> bool:
        try:
            return consumer.due(stopping=stopping)
        except Exception as error:
            raise HandlerFailed(self.stream, self.position) from error

    async def _hand_over(self, entries: Sequence[Entry], results: Results) -> int:
        """How many were handled: not all, where it takes long."""
        assert self._dispatcher is not None
        if self._dispatcher.takes_batches:
            await self._dispatcher.handle(self.stream, entries, results)
            return len(entries)
        began = breathed = time.monotonic()
        for done, entry in enumerate(entries, 1):
            if (rest := self._dispatcher.hand(self.stream, [entry], results)) is not None:
                await rest
            now = time.monotonic()
            if now - began > COMMIT_EVERY_S:
                return done
            if now - breathed > BREATHE_EVERY_S:
                await breathe(now - breathed)
                breathed = time.monotonic()
        return len(entries)

    def _end_batch(self, entries: Sequence[Entry], writes: Sequence[Write]) -> None:
        position = entries[-1][0] if entries else self.position
        self.commit = Commit(self.lease, self.position, position, len(entries), writes)

    def _set_aside(self, entry: Entry, attempts: int, error: BaseException | None) -> bool:
        """Make a dead letter of it with the next commit, if the consumer wants that."""
        if not sets_aside(self._kind):
            return False
        self._dead = entry[0], self._letter(entry, attempts, error)
        return True

    def _letter(self, entry: Entry, attempts: int, error: BaseException | None) -> Write:
        assert error is not None
        self._meter.dead += 1
        _log.warning("set_aside", stream=self.stream, entry_id=entry[0], attempts=attempts)
        return dead_letter(self.stream, *entry, attempts=attempts, error=error, worker=self._worker)

    def _write(self, results: Results, entry_id: str, entries: int = 1) -> list[Write]:
        """What the consumer has to write at a batch's end; gives the writes of its state. Where
        that fails, any of the entries may be at fault."""
        assert self._consumer is not None
        try:
            self._consumer.write(results)
            return self.state.take_writes("state")
        except Exception as error:
            raise HandlerFailed(self.stream, entry_id, entries) from error


def _done(letter: Letter) -> Write:
    return Write("XDEL", "dead", (letter.letter_id,))
