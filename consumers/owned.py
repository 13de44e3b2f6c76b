"""A stream in this worker's hands: its lease, its position, and the consumer object that reads it.

Turns a batch of entries into one commit. Nothing of a batch is in Redis before the commit is: after
any doubt the object is thrown away, and a new one goes on from what Redis has.
"""

import time
from collections.abc import Callable, Sequence

from consumers.consumer import Consumer
from consumers.dispatch import Dispatcher, Entry, HandlerFailed
from consumers.lease import Commit, Lease
from consumers.meter import Meter
from consumers.policy import retry_delay_s
from consumers.results import Results, State


class Owned:
    """One stream that this worker owns."""

    def __init__(self, lease: Lease, build: Callable[[], Consumer], meter: Meter) -> None:
        self.lease = lease
        self.position = lease.position
        self.commit: Commit | None = None  # made, not yet confirmed by Redis
        self.state = State()
        self._build = build
        self._meter = meter
        self._consumer: Consumer | None = None
        self._dispatcher: Dispatcher | None = None
        self.failures = 0
        self._retry_at = 0.0
        self._sizes: list[int] = []  # of the next batches, where an entry is known to fail

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

    def begin(self, saved: State) -> None:
        """Make the object, with the state that belongs to the position."""
        consumer = self._build()
        consumer.stream = self.stream
        consumer.state = self.state = saved
        try:
            consumer.load()
        except Exception as error:
            raise HandlerFailed(self.stream, self.position) from error
        self._consumer = consumer
        self._dispatcher = Dispatcher(consumer, self._meter)

    def made(self) -> str:
        return self._consumer.made() if self._consumer else ""

    async def handle(self, entries: Sequence[Entry]) -> None:
        """Handle a batch; what comes of it is in `commit`. No entries: what there is to write.

        Raises StopWorker. A handler that fails pauses the stream: nothing is skipped.
        """
        assert self._consumer is not None
        assert self._dispatcher is not None
        entries = entries[: self._sizes[0]] if self._sizes else entries
        results = Results()
        done = 0
        try:
            if self._dispatcher.takes_batches:
                await self._dispatcher.handle_batch(self.stream, entries, results)
            else:
                for entry_id, fields in entries:
                    await self._dispatcher.handle(self.stream, entry_id, fields, results)
                    done += 1
            self._write(results, entries[-1][0] if entries else self.position)
        except HandlerFailed as failed:
            self._pause(failed, done, len(entries))
            return
        self.commit = Commit(
            lease=self.lease,
            expected=self.position,
            position=entries[-1][0] if entries else self.position,
            handled=len(entries),
            writes=(*results.writes, *self.state.take_writes("state")),
        )

    async def write_if_due(self, *, stopping: bool = False) -> None:
        """What the consumer has to write although nothing has come, if anything, is in `commit`."""
        if self._consumer is None or self.commit is not None:
            return
        try:
            is_due = self._is_due(self._consumer, stopping=stopping)
        except HandlerFailed as failed:
            self._pause(failed, 0, 0)
            return
        if is_due:
            await self.handle(())

    def doubt(self) -> None:
        """It is not known whether the lease still stands: a commit of nothing will tell."""
        if self.commit is None:
            self.commit = Commit(self.lease, self.position, self.position, 0, ())

    def committed(self) -> None:
        """Redis has it."""
        assert self.commit is not None
        if self.commit.handled:
            self._meter.done(self.stream, self.commit.handled, self.commit.position)
            self.failures = 0
            del self._sizes[:1]
        self.position, self.commit = self.commit.position, None

    def send_again(self, lease: Lease) -> Commit:
        """Redis has forgotten all: the same commit under a new lease, with the whole state."""
        assert self.commit is not None
        self.lease = lease
        self.state.touch_all()
        kept = [write for write in self.commit.writes if write.part != "state"]
        writes = (*kept, *self.state.take_writes("state"))
        self.commit = self.commit._replace(lease=lease, writes=writes)
        return self.commit

    def pause(self) -> float:
        """Set the object aside for some seconds; it is made anew from what Redis has."""
        self.failures += 1
        delay_s = retry_delay_s(self.failures)
        self._retry_at = time.monotonic() + delay_s
        self._consumer = self._dispatcher = self.commit = None
        return delay_s

    def _is_due(self, consumer: Consumer, *, stopping: bool) -> bool:
        try:
            return consumer.due(stopping=stopping)
        except Exception as error:
            raise HandlerFailed(self.stream, self.position) from error

    def _pause(self, failed: HandlerFailed, done: int, entries: int) -> None:
        self._meter.failed += 1
        self._sizes = _smaller(self._sizes, failed.entries, done, entries)
        delay_s = self.pause()
        failed.tell(self.failures, delay_s)

    def _write(self, results: Results, entry_id: str) -> None:
        assert self._consumer is not None
        try:
            self._consumer.write(results)
        except Exception as error:
            raise HandlerFailed(self.stream, entry_id) from error


def _smaller(sizes: list[int], failed: int, done: int, entries: int) -> list[int]:
    """The sizes of the next batches after a failure, so that what fails is soon alone."""
    if failed > 1:  # a list of them: any one may be it
        return [1] * entries
    if entries <= 1:
        return sizes or [1]
    return [done, 1] if 0 < done < entries else [1]
