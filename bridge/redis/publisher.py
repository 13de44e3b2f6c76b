"""Drives the outbox over one connection: sends its requests, and passes it the replies.

`pump` runs in the callbacks of the two sockets: when frames of the exchange have been taken, and
when Redis has replied. So a message costs two turns of the event loop, without a task, a timeout
object or a timer of its own. One timer per connection is for missing replies, and for entries that
are due by time alone. It is set again if something is due earlier, and when it fired too early:
normally every few seconds.

If Redis is unavailable, this reconnects repeatedly while the queues keep new entries.
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

SHORTEST_S = 0.02  # between two checks for entries that are due by time alone
LOG_EVERY_S = 30.0  # while Redis is unavailable


class Recovery(Protocol):
    """The interface to the ingest: the journal is flushed before publishing, and recovers what
    Redis has lost.
    """

    def before_publishing(self) -> None:
        """Flush the journal: the records of what is published next must be in it."""
        ...

    def redis_changed(self, change: Change, queue: StreamQueue) -> None:
        """Handle a change of a stream in Redis."""
        ...

    def behind_bytes(self) -> int:
        """How many bytes of the journal are not in the queues yet."""
        ...

    def waits_for(self, queues: Sequence[StreamQueue]) -> bool:
        """Whether other streams are not backfilled until Redis takes entries of these queues."""
        ...

    def suspend(self, queues: Sequence[StreamQueue], reason: str) -> int:
        """Suspend those of these queues whose streams the journal has, until Redis accepts them
        again. Returns how many.
        """
        ...


class Publisher:
    """One bridge's writer to one Redis, or to one `shard` of several: then at most `kept_bytes` of
    its streams stay in memory while its node is unavailable, if the journal has them.
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
        self._deadline_s = float("inf")  # of the request in flight, by the loop's clock
        self._loop: asyncio.AbstractEventLoop  # set by `run`
        self._timer: asyncio.TimerHandle | None = None
        self._rings_s = float("inf")  # when the timer fires
        self._fatal: Fatal | None = None
        self._ended = asyncio.Event()  # the connection has ended
        self._woken = asyncio.Event()  # the connection has ended, or the timer has fired
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
        """The address of the present or last server; before the first connection, of the URL."""
        return self._address

    def pump(self) -> None:
        """Send waiting entries, unless a reply is awaited: then its arrival does."""
        if self._connection is not None and self._deadline_s == float("inf"):
            self._step(())

    async def progress(self, limit_s: float) -> None:
        """Wait for the next reply of Redis, at most so long."""
        self._progress.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await self._progress.wait()

    async def drain(self, limit_s: float | None) -> None:
        """Wait until no entry waits for Redis, at most so long."""
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
        """Publish over a connection until its end."""
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
        """Give up on a missing reply, or send entries that are due by time alone."""
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
        """Have the timer fire at `at_s` of the loop's clock at the latest."""
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
        """Log a trouble with the registry, once while it lasts; publishing continues."""
        trouble = self._outbox.registry_trouble
        if trouble:
            self._log.warning("registry_unwritable", reason=trouble)
        self._logged_registry = trouble

    def _log_durability(self) -> None:
        """Log whether the durability is reached: while it is not, nothing is published."""
        missing = self._outbox.not_durable
        if missing:
            self._log.warning("not_durable", reason=missing, pending=self._table.pending())
        else:
            self._log.info("durable_again")
        self._logged_not_durable = bool(missing)

    def _step(self, replies: Sequence[Reply]) -> None:
        """Pass replies to the outbox, and send its next request."""
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
        """Log that Redis works again: it accepted entries, or none wait. An accepted connection
        alone proves nothing.
        """
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
        """Close the connection: a late reply would be mistaken for that of another request."""
        connection = self._connection
        self.lost(reason)
        if connection is not None:
            connection.close()

    def _log_unavailable(self, reason: str) -> None:
        """Log the reason, repeatedly while it lasts: the status in Redis cannot show it."""
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
        self._suspend_over_limit(reason)

    def _suspend_over_limit(self, reason: str) -> None:
        """Suspend this shard's streams if they use too much memory: other shards need it."""
        if self._kept_bytes is None:
            return
        queues = list(self._table)
        is_over = self._table.pending_bytes() > self._kept_bytes
        if not (is_over or self._recovery.waits_for(queues)):
            return
        left = self._recovery.suspend(queues, f"its node is unavailable: {reason}")
        if left:
            self._log.warning("shard_left_to_the_journal", streams=left, reason=reason)
