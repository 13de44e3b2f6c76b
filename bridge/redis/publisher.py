"""Drives the outbox over one connection: writes what it wants sent, hands it what comes back.

`pump` runs in the callbacks of the two sockets: when frames of the exchange have been taken, and
when Redis has replied. So a single message costs two turns of the event loop, and there is no task,
time-out object or timer for each. One timer looks after the connection: replies that do not come,
and entries that are due by time alone. It is set anew where something is due earlier, and where it
rang too early: while all goes well, every few seconds.

Redis unavailable is no reason to stop: this connects again and again while the queues hold what
comes.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Protocol

import structlog

from bridge.core.queue import QueueTable, StreamQueue
from bridge.errors import Fatal
from bridge.redis.append import Reply
from bridge.redis.connection import ConnectionLost, RedisConnection, Target, connect
from bridge.redis.outbox import Change, Outbox, Request
from bridge.runtime.backoff import Backoff
from bridge.runtime.clock import Clock
from bridge.runtime.refusals import Refused

log = structlog.get_logger(__name__)

SHORTEST_S = 0.02  # between two looks at what time alone makes due
LOG_EVERY_S = 30.0  # while Redis is unavailable: how much waits


class Recovery(Protocol):
    """What keeps the journal: it is flushed before anything is published, and makes up for what
    Redis has lost.
    """

    def before_publishing(self) -> None:
        """What is published next must be with the operating system."""
        ...

    def redis_changed(self, change: Change, queue: StreamQueue) -> None:
        """Redis has lost entries of a stream, suspended it, or takes it again."""
        ...

    def behind_bytes(self) -> int:
        """How much of the journal is not in the queues yet."""
        ...

    def suspend(self, queues: Sequence[StreamQueue], reason: str) -> int:
        """Suspend those of these queues whose streams the journal has, for this reason, until Redis
        takes them again. Returns how many.
        """
        ...


class Publisher:
    """One bridge's writer to one Redis, or to one `shard` of several: then no more than
    `kept_bytes` of its streams wait in memory while its node is unavailable, where the journal has
    them.
    """

    def __init__(
        self,
        outbox: Outbox,
        table: QueueTable,
        recovery: Recovery,
        target: Target,
        *,
        connect_timeout_s: float,
        clock: Clock,
        backoff: Backoff,
        shard: int | None = None,
        kept_bytes: int | None = None,
    ) -> None:
        self._log = log if shard is None else log.bind(shard=shard)
        self._kept_bytes = kept_bytes
        self._outbox = outbox
        self._table = table
        self._recovery = recovery
        self._target = target
        self._connect_timeout_s = connect_timeout_s
        self._clock = clock
        self._backoff = backoff
        self._connection: RedisConnection | None = None
        self._address = target.address
        self._deadline_s = float("inf")  # of the request on its way, by the loop's clock
        self._loop: asyncio.AbstractEventLoop  # that it runs in
        self._timer: asyncio.TimerHandle | None = None
        self._rings_s = float("inf")  # the timer does
        self._fatal: Fatal | None = None
        self._ended = asyncio.Event()  # the connection has
        self._woken = asyncio.Event()  # it has, or the timer rings
        self._progress = asyncio.Event()
        self._logged_s = float("-inf")
        self._logged = ""
        self._logged_registry = ""
        self._logged_not_durable = False

    async def run(self) -> None:
        """Publish until cancelled. Raises Fatal only (another account owns the prefix)."""
        self._loop = asyncio.get_running_loop()
        while True:
            try:
                connection = await connect(self._target, self._connect_timeout_s)
            except ConnectionLost as lost:
                self._log_unavailable(str(lost))
            else:
                await self._live(connection)
            if self._fatal is not None:
                raise self._fatal
            await asyncio.sleep(self._backoff.next_s())

    @property
    def address(self) -> str:
        """Of the server that it is connected to, or was last; before, what the URL names."""
        return self._address

    def pump(self) -> None:
        """Send what waits, unless a reply is awaited: then that does."""
        if self._connection is not None and self._deadline_s == float("inf"):
            self._step(())

    async def progress(self, limit_s: float) -> None:
        """Wait until Redis has answered something, at most so long."""
        self._progress.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await self._progress.wait()

    async def drain(self, limit_s: float | None) -> None:
        """Wait until nothing waits for Redis any more, at most so long."""
        for queue in self._table:
            queue.drain()
        self.pump()
        with suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                while self._table.pending():
                    await self.progress(SHORTEST_S)

    # ---- the connection's callbacks ------------------------------------------------------------

    def replied(self, replies: Sequence[Reply]) -> None:
        self._deadline_s = float("inf")
        self._progress.set()
        self._step(replies)

    def lost(self, reason: str) -> None:
        if self._connection is not None:
            self._connection = None
            self._deadline_s = float("inf")
            self._log_unavailable(reason)
            self._ended.set()
            self._woken.set()

    # ---- inside --------------------------------------------------------------------------------

    async def _live(self, connection: RedisConnection) -> None:
        """From the connection's first request to its end."""
        self._ended.clear()
        self._woken.clear()
        self._connection, self._address = connection, connection.address
        self._outbox.connected(self._clock.now_us())
        connection.attach(self)
        try:
            self.pump()
            while not self._ended.is_set():
                await self._woken.wait()
                self._woken.clear()
                self._check()
        finally:
            self._connection = None
            self._deadline_s = float("inf")
            self._set_timer(None)
            connection.close()
            if self._outbox.is_connected:  # cancelled
                self._outbox.disconnected("stopped")

    def _check(self) -> None:
        """Miss replies, and send what time alone makes due."""
        if self._connection is None:
            return
        if self._deadline_s == float("inf"):
            self.pump()
        elif self._loop.time() >= self._deadline_s:
            self._give_up("Redis did not answer in time")
        else:
            self._ring_at(self._deadline_s)

    def _ring(self) -> None:
        self._set_timer(None)
        self._woken.set()

    def _ring_at(self, at_s: float) -> None:
        """At that time of the loop's clock at the latest."""
        if at_s < self._rings_s:
            self._set_timer(at_s)

    def _set_timer(self, at_s: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if at_s is None else self._loop.call_at(at_s, self._ring)
        self._rings_s = float("inf") if at_s is None else at_s

    def _ring_when_due(self, now_us: int) -> None:
        left_s = max((self._outbox.due_us() - now_us) / 1e6, SHORTEST_S)
        self._ring_at(self._loop.time() + left_s)

    def _log_registry(self) -> None:
        """Say it once while it lasts: publishing goes on all the same."""
        trouble = self._outbox.registry_trouble
        if trouble:
            self._log.warning("registry_unwritable", reason=trouble)
        self._logged_registry = trouble

    def _log_durability(self) -> None:
        """It is not as durable as wanted, or it is again: while it is not, nothing is published."""
        missing = self._outbox.not_durable
        if missing:
            self._log.warning("not_durable", reason=missing, pending=self._table.pending())
        else:
            self._log.info("durable_again")
        self._logged_not_durable = bool(missing)

    def _step(self, replies: Sequence[Reply]) -> None:
        """One exchange with the outbox."""
        outbox, now_us = self._outbox, self._clock.now_us()
        try:
            request = outbox.replies(replies, now_us) if replies else outbox.commands(now_us)
            if bool(outbox.not_durable) is not self._logged_not_durable:
                self._log_durability()
            for change, queue in outbox.changes():
                self._recovery.redis_changed(change, queue)
            if self._logged and outbox.trouble != self._logged:
                self._works_again()
            if outbox.registry_trouble != self._logged_registry:
                self._log_registry()
            if request is None:
                self._ring_when_due(now_us)
            else:
                self._send(request)
        except Refused as refused:
            self._give_up(str(refused))
        except Fatal as fatal:
            self._fatal = fatal
            self._give_up(str(fatal))

    def _works_again(self) -> None:
        """Redis took what was sent, or nothing waits for it: that it let us in proves nothing."""
        self._backoff.reset()
        self._log.info("redis_connected", target=self.address, pending=self._table.pending())
        self._logged = ""

    def _send(self, request: Request) -> None:
        assert self._connection is not None
        if request.publishes:
            self._recovery.before_publishing()
        self._deadline_s = self._loop.time() + request.limit_s
        self._ring_at(self._deadline_s)
        self._connection.send(request.packed, request.replies)

    def _give_up(self, reason: str) -> None:
        """Close the connection: a late reply would come out of step."""
        connection = self._connection
        self.lost(reason)
        if connection is not None:
            connection.close()

    def _log_unavailable(self, reason: str) -> None:
        """Say it once, and again and again while it lasts: status cannot tell of it meanwhile."""
        self._outbox.disconnected(reason)
        now_s = self._loop.time()
        if reason != self._logged or now_s - self._logged_s >= LOG_EVERY_S:
            self._log.warning(
                "redis_unavailable",
                reason=reason,
                pending=self._table.pending(),
                pending_bytes=self._table.pending_bytes(),
                behind_bytes=self._recovery.behind_bytes(),
            )
            self._logged_s = now_s
        self._logged = reason
        self._leave_to_the_log(reason)

    def _leave_to_the_log(self, reason: str) -> None:
        """The streams of this shard, where they take too much memory: those of others need it."""
        if self._kept_bytes is None or self._table.pending_bytes() <= self._kept_bytes:
            return
        left = self._recovery.suspend(list(self._table), f"its node is unavailable: {reason}")
        if left:
            self._log.warning("shard_left_to_the_journal", streams=left, reason=reason)
