"""Keeps one group of streams heard: one connection after another, two while one replaces the other.

A connection that ends is made again, later and later while nothing good comes of it. One that is
old, or that does not bring what it should, is replaced without a break: the new one is connected,
subscribed and heard before the old one goes.
"""

import asyncio
import random
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import structlog

from bridge.contract.streams import Stream
from bridge.feed.connection import Connection, FeedLost
from bridge.feed.means import Means
from bridge.protocol.subscriptions import State
from bridge.runtime.backoff import Backoff

log = structlog.get_logger(__name__)

# A connection was a good one if it brought so many frames and lived for so long, lest an exchange
# that greets and hangs up is called without a pause; or if it was answered and lived for longer.
GOOD_FRAMES = 10
GOOD_LIFE_S = 5.0
GOOD_QUIET_LIFE_S = 60.0
LONGEST_RETRY_AFTER_S = 600.0  # whatever the exchange asks for
OVERLAP_US = 1_200_000  # both are listened to for so long, more than what may be under way
TAKE_OVER_US = 15_000_000  # a replacement that does not hear all by then takes over all the same
PATIENCE_US = 60_000_000  # so long it is waited for proof that its end leaves no deafness
LATELY_US = 60_000_000  # what the old one has heard so lately, the new one must hear first
LOOK_S = 0.2


@dataclass(slots=True)
class _Life:
    """A connection, the task that runs it, and how it ended."""

    connection: Connection
    task: "asyncio.Task[FeedLost]"
    ends_s: float  # when it is to be replaced, on the loop's clock

    @property
    def lost(self) -> FeedLost | None:
        return self.task.result() if self.task.done() else None


class Lane:
    """One group of streams. `run` it until cancelled; it ends by itself after `close`."""

    def __init__(
        self, name: str, streams: Iterable[Stream], means: Means, chance: random.Random
    ) -> None:
        self.name = name
        self.streams = {stream.name: stream for stream in streams}
        self.attempts = 0
        self.trouble = "not connected yet"
        self._means = means
        self._chance = chance
        settings = means.settings
        self._backoff = Backoff(settings.reconnect_initial_s, settings.reconnect_max_s, chance)
        self._changed = asyncio.Event()
        self._lives: list[_Life] = []  # the last one is the newest
        self._renewal = ""  # why a replacement is wanted
        self._is_closing = False

    async def run(self) -> None:
        """Connect, hear, connect again."""
        async with asyncio.TaskGroup() as tasks:
            life = self._begin(tasks)
            while not self._is_closing:  # looks before it waits: the last look may have been short
                if life.task.done():
                    await self._pause_after(life)
                    life = self._begin(tasks)
                elif self._is_due(life):
                    life = await self._replace(tasks, life)
                else:
                    left_s = life.ends_s - asyncio.get_running_loop().time()
                    await self._news(left_s if left_s > 0 else LOOK_S)
            for each in self._lives:
                await each.connection.retire()
                each.task.cancel()

    @property
    def connection(self) -> Connection | None:
        """The connection that counts: the old one while another replaces it."""
        return self._lives[0].connection if self._lives else None

    @property
    def is_connected(self) -> bool:
        return any(life.connection.is_connected for life in self._lives)

    def add(self, streams: Iterable[Stream]) -> None:
        """Hear these, too."""
        new = [stream for stream in streams if stream.name not in self.streams]
        self.streams |= {stream.name: stream for stream in new}
        for life in self._lives:
            life.connection.add(new)

    def remove(self, names: Iterable[str]) -> None:
        """Hear these no more."""
        gone = [name for name in names if self.streams.pop(name, None)]
        for life in self._lives:
            life.connection.remove(gone)

    def renew(self, reason: str) -> None:
        """Replace the connection, without a break."""
        self._renewal = self._renewal or reason
        self._changed.set()

    def close(self) -> None:
        """Nothing is to be heard here any more."""
        self._is_closing = True
        self._changed.set()

    def refused(self) -> Mapping[str, str]:
        """Streams that the exchange would not give, and why."""
        connection = self.connection
        rejected = connection.subscriptions.of(State.REJECTED) if connection else ()
        return {each.stream.name: each.reason for each in rejected}

    def status(self) -> Mapping[str, Any]:
        """As `python -m bridge status` shows it."""
        connection = self.connection
        subscriptions = connection.subscriptions if connection else None
        counted = {state.value: subscriptions.of(state) if subscriptions else [] for state in State}
        return {
            "name": self.name,
            "connected": self.is_connected,
            "trouble": "" if self.is_connected else self.trouble,
            "attempts": self.attempts,
            "frame_us": connection.last_frame_us if connection else 0,
            "wanted": len(self.streams),
            "confirmed": len(counted[State.CONFIRMED]),
            "pending": [each.stream.name for each in counted[State.PENDING]],
            "refused": self.refused(),
            "silent": {each.stream.name: each.reason for each in counted[State.SILENT]},
        }

    # ---- inside --------------------------------------------------------------------------------

    def _begin(self, tasks: asyncio.TaskGroup) -> _Life:
        self.attempts += 1
        connection = Connection(self.name, self.streams.values(), self._means, self._changed.set)
        task = tasks.create_task(_live(connection), name=f"{self.name}-{self.attempts}")
        task.add_done_callback(lambda _: self._changed.set())
        life = _Life(connection, task, self._end_s())
        self._lives.append(life)
        return life

    def _end_s(self) -> float:
        """Connections of one age do not all go at once."""
        age_s = self._means.settings.max_connection_age_s
        if age_s is None:
            return float("inf")
        return asyncio.get_running_loop().time() + age_s * self._chance.uniform(0.9, 1.0)

    def _is_due(self, life: _Life) -> bool:
        if asyncio.get_running_loop().time() >= life.ends_s:
            self._renewal = self._renewal or "it is old"
        return bool(self._renewal) and life.connection.is_connected

    async def _news(self, limit_s: float) -> None:
        """Wait for what nobody has looked at yet; look when it returns, before anything else."""
        with suppress(TimeoutError):
            async with asyncio.timeout(limit_s if limit_s != float("inf") else None):
                await self._changed.wait()
        self._changed.clear()

    async def _pause_after(self, life: _Life) -> None:
        """After a goodbye of the exchange on a good one at once; else later and later until one was
        good.
        """
        lost = life.lost
        assert lost is not None
        self._lives.remove(life)
        is_good = _was_good(life.connection)
        if is_good:
            self._backoff.reset()
        delay_s = 0.0 if lost.is_closed and is_good else self._backoff.next_s()
        if lost.retry_after_s is not None:
            hold_s = min(lost.retry_after_s, LONGEST_RETRY_AFTER_S)
            self._means.handshakes.hold(asyncio.get_running_loop().time() + hold_s)
            delay_s = max(delay_s, hold_s)
        if str(lost) != self.trouble or life.connection.was_connected:
            log.warning(
                "feed_lost", connection=self.name, reason=str(lost), reconnect_s=round(delay_s, 2)
            )
        self.trouble = str(lost)
        until_s = asyncio.get_running_loop().time() + delay_s
        while not self._is_closing and (left_s := until_s - asyncio.get_running_loop().time()) > 0:
            await self._news(left_s)

    async def _replace(self, tasks: asyncio.TaskGroup, old: _Life) -> _Life:
        """Make before break. Returns the connection that goes on."""
        reason, self._renewal = self._renewal, ""
        log.info("feed_replacing", connection=self.name, reason=reason)
        new = self._begin(tasks)
        while not self._is_closing:
            if (lost := new.lost or _refusal(old.connection, new.connection)) is not None:
                return await self._not_replaced(old, new, lost)
            if old.task.done():
                await self._forget(old)
                return new
            if self._has_taken_over(old.connection, new.connection):
                await old.connection.retire()
                await asyncio.wait([old.task])
                self._lives.remove(old)
                self._backoff.reset()
                log.info("feed_replaced", connection=self.name)
                return new
            await self._news(LOOK_S)
        return new

    async def _not_replaced(self, old: _Life, new: _Life, lost: FeedLost) -> _Life:
        """The old one goes on, and it is tried again later."""
        await new.connection.retire()
        await asyncio.wait([new.task])
        delay_s = max(self._backoff.next_s(), min(lost.retry_after_s or 0, LONGEST_RETRY_AFTER_S))
        log.warning("feed_not_replaced", connection=self.name, reason=str(lost),
                    retry_s=round(delay_s, 2))  # fmt: skip
        self._lives.remove(new)
        old.ends_s = asyncio.get_running_loop().time() + delay_s
        return old

    async def _forget(self, old: _Life) -> None:
        self._lives.remove(old)
        log.warning("feed_lost", connection=self.name, reason=str(old.lost), reconnect_s=0)

    def _has_taken_over(self, old: Connection, new: Connection) -> bool:
        """Is all that the old one heard lately heard on the new one, and for long enough?"""
        if not new.answered_us:
            return False
        now_us = self._means.clock_us()
        since_us = now_us - new.answered_us
        if since_us >= PATIENCE_US:
            return True
        heard = new.subscriptions.by_name
        is_heard = since_us >= TAKE_OVER_US or all(
            (twin := heard.get(name)) is None or twin.heard_us
            for name, each in old.subscriptions.by_name.items()
            if each.heard_us and now_us - each.heard_us < LATELY_US
        )
        return since_us >= OVERLAP_US and is_heard and old.may_leave()


def _was_good(connection: Connection) -> bool:
    """Of one that has ended: is it no failure that it has?"""
    is_busy = connection.good_frames >= GOOD_FRAMES and connection.lived_s >= GOOD_LIFE_S
    return is_busy or (connection.answered_us > 0 and connection.lived_s >= GOOD_QUIET_LIFE_S)


def _refusal(old: Connection, new: Connection) -> FeedLost | None:
    """Does the exchange refuse on the new one what it grants on the old one?"""
    granted = old.subscriptions.by_name
    refused = [
        each
        for each in new.subscriptions.of(State.REJECTED)
        if (twin := granted.get(each.stream.name)) and twin.state is not State.REJECTED
    ]
    if not refused:
        return None
    return FeedLost(f"{refused[0].stream.name} is refused on it: {refused[0].reason}")


async def _live(connection: Connection) -> FeedLost:
    try:
        await connection.run()
    except FeedLost as lost:
        return lost
    raise AssertionError("a connection ends with a reason")
