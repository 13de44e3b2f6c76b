"""Keeps one group of streams received: successive connections, two while one replaces the first.

A connection that ends is made again, with growing pauses while connections fail. One that is old or
stale is replaced without an outage: the new one is connected, subscribed and receives messages
before the old one is closed.
"""

import asyncio
import random
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import structlog

from bridge.contract.streams import Stream
from bridge.core.counters import EndCause
from bridge.feed.connection import Connection, Connector
from bridge.feed.handshake import Ended
from bridge.protocol.subscriptions import State
from bridge.runtime.backoff import Backoff

log = structlog.get_logger(__name__)

# A connection was good if it received so many frames and lived for so long (so that an exchange
# that closes after a greeting is not called without a pause), or was answered and lived longer.
GOOD_FRAMES = 10
GOOD_LIFE_S = 5.0
GOOD_QUIET_LIFE_S = 60.0
LONGEST_RETRY_AFTER_S = 600.0  # limits Retry-After
OVERLAP_S = 1.2  # the least time for which both receive: longer than messages are in flight
TAKE_OVER_S = 15.0  # after this a replacement takes over even if some streams have no message
LONGEST_OVERLAP_S = 60.0  # the longest wait for proof that closing the old one makes no outage
LATELY_S = 60.0  # the new one must have messages of streams that the old one received so lately
POLL_S = 0.2


@dataclass(slots=True)
class _Run:
    """A connection and the task that runs it."""

    connection: Connection
    task: "asyncio.Task[Ended]"
    due_s: float  # when it is to be replaced, by the loop's clock

    @property
    def ended(self) -> Ended | None:
        return self.task.result() if self.task.done() else None

    def postpone(self, due_s: float) -> None:
        """Set another time for its replacement."""
        self.due_s = due_s


class Session:
    """One group of streams. `run` it until cancelled; it ends after `close`."""

    def __init__(
        self, name: str, streams: Iterable[Stream], connector: Connector, chance: random.Random
    ) -> None:
        self.name = name
        self.streams = {stream.name: stream for stream in streams}
        self.attempts = 0
        self.trouble = "not connected yet"
        self._connector = connector
        self._chance = chance
        settings = connector.settings
        self._backoff = Backoff(settings.reconnect_initial_s, settings.reconnect_max_s, chance)
        self._changed = asyncio.Event()
        self._runs: list[_Run] = []  # the last one is the newest
        self._replacement = ""  # why a replacement is due
        self._is_closing = False

    async def run(self) -> None:
        """Connect, receive, and connect again."""
        async with asyncio.TaskGroup() as tasks:
            run = self._begin(tasks)
            while not self._is_closing:  # checks before it waits: no change may be missed
                if run.task.done():
                    await self._pause_after(run)
                    run = self._begin(tasks)
                elif self._is_due(run):
                    run = await self._replace(tasks, run)
                    self._replacement = ""  # orders given meanwhile were about the old one
                else:
                    left_s = run.due_s - _now_s()
                    await self._news(left_s if left_s > 0 else POLL_S)
            for each in self._runs:
                await each.connection.close()
                each.task.cancel()

    @property
    def connection(self) -> Connection | None:
        """The current connection: the old one while another replaces it."""
        return self._runs[0].connection if self._runs else None

    @property
    def is_connected(self) -> bool:
        return any(run.connection.is_connected for run in self._runs)

    def add(self, streams: Iterable[Stream]) -> None:
        """Receive these streams, too."""
        new = [stream for stream in streams if stream.name not in self.streams]
        self.streams |= {stream.name: stream for stream in new}
        for run in self._runs:
            run.connection.add(new)

    def remove(self, names: Iterable[str]) -> None:
        """Stop receiving these streams."""
        removed = [name for name in names if self.streams.pop(name, None)]
        for run in self._runs:
            run.connection.remove(removed)

    def replace(self, reason: str) -> None:
        """Replace the connection, without an outage."""
        self._replacement = self._replacement or reason
        self._changed.set()

    def close(self) -> None:
        """End the session."""
        self._is_closing = True
        self._changed.set()

    def refused(self) -> Mapping[str, str]:
        """Streams that the exchange refuses → the reason."""
        connection = self.connection
        rejected = connection.subscriptions.of(State.REJECTED) if connection else ()
        return {each.stream.name: each.reason for each in rejected}

    def status(self) -> Mapping[str, Any]:
        """The session's part of the bridge's status."""
        connection = self.connection
        subscriptions = connection.subscriptions if connection else None
        by_state = {state: subscriptions.of(state) if subscriptions else [] for state in State}
        return {
            "name": self.name,
            "connected": self.is_connected,
            "answered": connection is not None and connection.answered_s is not None,
            "trouble": "" if self.is_connected else self.trouble,
            "attempts": self.attempts,
            "received_us": connection.received_us if connection else 0,
            "wanted": len(self.streams),
            "confirmed": len(by_state[State.CONFIRMED]),
            "pending": [each.stream.name for each in by_state[State.PENDING]],
            "refused": self.refused(),
            "stale": {each.stream.name: each.reason for each in by_state[State.STALE]},
        }

    # ---- inside --------------------------------------------------------------------------------

    def _begin(self, tasks: asyncio.TaskGroup) -> _Run:
        self.attempts += 1
        connection = Connection(self.name, self.streams.values(), self._connector, self._changed)
        task = tasks.create_task(connection.run(), name=f"{self.name}-{self.attempts}")
        run = _Run(connection, task, self._due_s())
        self._runs.append(run)
        return run

    def _due_s(self) -> float:
        """When to replace a new connection; random, so that not all are replaced at once."""
        age_s = self._connector.settings.max_connection_age_s
        if age_s is None:
            return float("inf")
        return _now_s() + age_s * self._chance.uniform(0.9, 1.0)

    def _is_due(self, run: _Run) -> bool:
        if _now_s() >= run.due_s:
            self._replacement = self._replacement or "it is old"
        return bool(self._replacement) and run.connection.is_connected

    async def _news(self, limit_s: float) -> None:
        """Wait for the next change; the caller checks the state before it waits again."""
        with suppress(TimeoutError):
            async with asyncio.timeout(limit_s if limit_s != float("inf") else None):
                await self._changed.wait()
        self._changed.clear()

    async def _pause_after(self, run: _Run) -> None:
        """Pause after a connection has ended: not at all if it was good and the exchange closed it;
        else with growing pauses until one was good.
        """
        ended = run.ended
        assert ended is not None
        self._runs.remove(run)
        self._connector.ends[ended.cause] += 1
        is_good = _was_good(run.connection)
        if is_good:
            self._backoff.reset()
        delay_s = 0.0 if ended.is_closed and is_good else self._backoff.next_s()
        if ended.retry_after_s is not None:
            hold_s = min(ended.retry_after_s, LONGEST_RETRY_AFTER_S)
            self._connector.handshakes.hold(_now_s() + hold_s)
            delay_s = max(delay_s, hold_s)
        if ended.reason != self.trouble or run.connection.was_connected:
            log.warning(
                "feed_lost",
                connection=self.name,
                reason=ended.reason,
                reconnect_s=round(delay_s, 2),
            )
        self.trouble = ended.reason
        until_s = _now_s() + delay_s
        while not self._is_closing and (left_s := until_s - _now_s()) > 0:
            await self._news(left_s)

    async def _replace(self, tasks: asyncio.TaskGroup, old: _Run) -> _Run:
        """Connect a replacement before closing the old one. Returns the run that continues."""
        reason, self._replacement = self._replacement, ""
        log.info("feed_replacing", connection=self.name, reason=reason)
        new = self._begin(tasks)
        while not self._is_closing:
            if (ended := new.ended or _refusal(old.connection, new.connection)) is not None:
                return await self._not_replaced(old, new, ended)
            if old.ended is not None:
                self._connector.ends[old.ended.cause] += 1
                self._runs.remove(old)
                log.warning(
                    "feed_lost", connection=self.name, reason=old.ended.reason, reconnect_s=0
                )
                return new
            if _has_taken_over(old.connection, new.connection):
                await old.connection.close()
                await asyncio.wait([old.task])
                self._connector.ends[EndCause.REPLACED] += 1
                self._runs.remove(old)
                self._backoff.reset()
                log.info("feed_replaced", connection=self.name)
                return new
            await self._news(POLL_S)
        return new

    async def _not_replaced(self, old: _Run, new: _Run, ended: Ended) -> _Run:
        """Continue with the old connection, and try again later."""
        await new.connection.close()
        await asyncio.wait([new.task])
        delay_s = max(self._backoff.next_s(), min(ended.retry_after_s or 0, LONGEST_RETRY_AFTER_S))
        log.warning("feed_not_replaced", connection=self.name, reason=ended.reason,
                    retry_s=round(delay_s, 2))  # fmt: skip
        self._connector.ends[ended.cause] += 1
        self._runs.remove(new)
        old.postpone(_now_s() + delay_s)
        return old


def _now_s() -> float:
    return asyncio.get_running_loop().time()


def _was_good(connection: Connection) -> bool:
    """Whether an ended connection was good, see GOOD_FRAMES."""
    is_busy = connection.good_frames >= GOOD_FRAMES and connection.lived_s >= GOOD_LIFE_S
    was_answered = connection.answered_s is not None
    return is_busy or (was_answered and connection.lived_s >= GOOD_QUIET_LIFE_S)


def _has_taken_over(old: Connection, new: Connection) -> bool:
    """Whether the new connection receives all that the old one received lately, for long enough."""
    if new.answered_s is None:
        return False
    now_s = _now_s()
    since_s = now_s - new.answered_s
    if since_s >= LONGEST_OVERLAP_S:
        return True
    by_name = new.subscriptions.by_name
    is_received = since_s >= TAKE_OVER_S or all(
        (sibling := by_name.get(name)) is None or sibling.received_s is not None
        for name, each in old.subscriptions.by_name.items()
        if each.received_s is not None and now_s - each.received_s < LATELY_S
    )
    return since_s >= OVERLAP_S and is_received and old.may_close()


def _refusal(old: Connection, new: Connection) -> Ended | None:
    """The end of a new connection on which the exchange refuses a stream that it grants on the old
    one; None: it does not.
    """
    granted = old.subscriptions.by_name
    refused = [
        each
        for each in new.subscriptions.of(State.REJECTED)
        if (sibling := granted.get(each.stream.name)) and sibling.state is not State.REJECTED
    ]
    if not refused:
        return None
    why = f"{refused[0].stream.name} is refused on the new one: {refused[0].reason}"
    return Ended(why, EndCause.REFUSED)
