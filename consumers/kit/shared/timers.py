"""Timers of a shared consumer: one worker of the group runs them, while it holds their lease.

A timer's writes and its due time are committed in one step with the fencing token of that lease: a
worker that was counted as dead and resumes late changes nothing.
"""

import time
from collections.abc import Sequence

import structlog
from redis.exceptions import ResponseError

from bridge.runtime.refusals import is_of_a_key
from bridge.runtime.time_range import BEGINNING
from consumers.kit.api.consumer import Consumer
from consumers.kit.api.timers import Tick, last_tick_ms, tick_ms, timers_of
from consumers.kit.handling.batch import BatchRunner, Part, tick_write
from consumers.kit.membership import Membership
from consumers.kit.ordered.lease import Answer, Commit, CommitStatus, Lease, Leases
from consumers.kit.policy import retry_delay_s

_log = structlog.get_logger()
NAME = "timers"  # used like a stream's name in the keys of their lease and results


class GroupTimers:
    """The timers of a group, in one worker."""

    def __init__(
        self,
        consumer: Consumer,
        runner: BatchRunner,
        leases: Leases,
        membership: Membership,
        shard: int = 0,
    ) -> None:
        # Timers belong to the group, not to each shard: they are kept in the first shard.
        self._timers = {} if shard else timers_of(type(consumer))
        self._runner = runner
        self._leases = leases
        self._membership = membership
        self._lease: Lease | None = None
        self._ticks: dict[str, int] = {}
        self._last_beat = 0
        self._unusable = ""  # the reason why their keys cannot be used
        self._failures: dict[str, int] = {}  # timer → failures in a row
        self._retry_at: dict[str, float] = {}  # timer → end of its pause, by monotonic()

    @property
    def held(self) -> Sequence[Lease]:
        """The lease, if this worker has it."""
        return [self._lease] if self._lease else []

    async def run(self) -> None:
        """Run the timers that are due, if this worker has the lease. Raises StopWorker."""
        now_ms = self._membership.now_ms
        if not self._timers or now_ms is None or not await self._is_ours():
            return
        for name, interval_ms in self._timers.items():
            if time.monotonic() < self._retry_at.get(name, 0.0):
                continue  # a timer that fails delays no other
            at_ms = tick_ms(now_ms, interval_ms)
            last_ms = last_tick_ms(self._ticks.get(name), now_ms)
            if last_ms is None:  # first use: the timer runs from the next due time on
                await self._commit(name, at_ms, Part((), [tick_write(name, at_ms)]))
            elif at_ms > last_ms:
                part = await self._runner.run_tick(name, Tick("", at_ms * 1000))
                await self._commit(name, at_ms, part)
            if self._lease is None:
                return

    async def leave(self) -> None:
        """Release the lease, so that another worker can run the timers."""
        held, self._lease = self.held, None
        await self._leases.release(held)

    async def _is_ours(self) -> bool:
        if self._lease is None and self._last_beat != self._membership.beats:
            self._last_beat = self._membership.beats
            try:
                await self._take()
            except ResponseError as error:
                if not is_of_a_key(error):
                    raise
                await self._report_unusable(error)
        return self._lease is not None

    async def _take(self) -> None:
        self._lease = await self._leases.acquire(NAME, BEGINNING, is_stream=False)
        if self._lease is not None:
            self._ticks = await self._leases.ticks(NAME)

    async def _report_unusable(self, error: ResponseError) -> None:
        """Log once that the timers' keys have another type: entries are handled without timers."""
        await self.leave()
        if self._unusable != str(error):
            self._unusable = str(error)
            _log.warning("stream_unusable", stream=NAME, error=str(error))

    async def _commit(self, name: str, at_ms: int, part: Part) -> None:
        if part.failed is not None:
            delay_s = self._pause(name)
            part.failed.log(self._failures[name], delay_s)
            return
        # If the answer is lost, the lease is acquired again, and the due times are read again.
        lease, self._lease = self._lease, None
        assert lease is not None
        commit = Commit(lease, lease.position, lease.position, 0, part.writes)
        [answer] = await self._leases.commit([commit])
        if isinstance(answer, Answer) and answer.status is CommitStatus.OK:
            self._lease = lease
            self._ticks[name] = at_ms
            self._failures.pop(name, None)
        elif isinstance(answer, Exception):
            self._lease = lease
            delay_s = self._pause(name)
            _log.warning("timer_refused", timer=name, error=str(answer), retry_s=delay_s)

    def _pause(self, name: str) -> float:
        """Pause a timer that has failed. Returns the pause, s."""
        self._failures[name] = failures = self._failures.get(name, 0) + 1
        delay_s = retry_delay_s(failures)
        self._retry_at[name] = time.monotonic() + delay_s
        return delay_s
