"""Limits how often the exchange is called, and orders requests.

There are three parts: a rate limiter for sockets, a window that limits the REST requests in any
span of time, and a gate that admits requests in order of urgency. Times are seconds by the event
loop's clock.
"""

import asyncio
from bisect import insort
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import IntEnum
from itertools import count

from bridge.runtime.backoff import Backoff

AT_ONCE = 8  # concurrent requests


class RateLimiter:
    """Admits a burst, then an even rate, first come, first served, for all connections together: so
    the exchange is not overloaded when many of them break at once.

    `await acquire()` before each call; `hold` when the exchange reports too many.
    """

    def __init__(self, per_second: float, burst: int) -> None:
        self._interval_s = 1 / per_second
        self._burst = burst
        self._due_s = float("-inf")  # when the next one would be due at an even pace
        self._blocked_until_s = float("-inf")

    async def acquire(self) -> None:
        """Wait for this one's turn."""
        loop = asyncio.get_running_loop()
        due_s = self.take(loop.time())
        await asyncio.sleep(due_s - loop.time())
        while due_s < self._blocked_until_s:  # held while this one waited: it takes another turn
            due_s = self.take(loop.time())
            await asyncio.sleep(due_s - loop.time())

    def take(self, now_s: float) -> float:
        """Reserve a turn. Returns its time."""
        begin_s = max(now_s, self._blocked_until_s)
        due_s = max(self._due_s, begin_s - (self._burst - 1) * self._interval_s)
        self._due_s = due_s + self._interval_s
        return max(begin_s, due_s)

    def hold(self, until_s: float) -> None:
        """Admit no call before then, and after that at an even rate."""
        self._blocked_until_s = max(self._blocked_until_s, until_s)
        self._due_s = max(self._due_s, self._blocked_until_s)


class Urgency(IntEnum):
    """The order of waiting requests."""

    ACCOUNT = 0
    DEPTH = 1
    TRADES = 2
    OTHER = 3


class Window:
    """At most `limit` requests in any `window_s` seconds.

    `busy`: how long it is closed if the exchange gives no time.
    """

    def __init__(self, limit: int, window_s: float, busy: Backoff) -> None:
        self.busy = busy
        self._window_s = window_s
        self._taken: deque[float] = deque(maxlen=limit)
        self._limit = limit
        self._closed_until_s = 0.0
        self.closed_at_s = -1.0  # when the exchange last reported too many requests

    def free_at_s(self) -> float:
        """When the next request may be sent."""
        full = len(self._taken) == self._limit
        return max(self._closed_until_s, self._taken[0] + self._window_s if full else 0.0)

    def take(self, now_s: float) -> None:
        """Count a request that is sent now."""
        self._taken.append(now_s)

    def close(self, now_s: float, until_s: float) -> None:
        """Admit no request before `until_s`: the exchange reported too many."""
        self.closed_at_s = now_s
        self._closed_until_s = max(self._closed_until_s, until_s)


@dataclass(order=True, slots=True)
class _Ticket:
    urgency: Urgency
    number: int
    windows: Sequence[Window] = field(compare=False)
    turn: "asyncio.Future[None]" = field(compare=False)


class Gate:
    """Admits requests in order of urgency, each when all of its windows have room. A request that
    waits for the small window of historical data does not delay those behind it.
    """

    def __init__(self, at_once: int = AT_ONCE) -> None:
        self._free = at_once
        self._waiting: list[_Ticket] = []
        self._numbers = count()
        self._alarm: asyncio.TimerHandle | None = None

    @asynccontextmanager
    async def acquire(self, urgency: Urgency, windows: Sequence[Window]) -> AsyncIterator[None]:
        """Wait until this request is admitted; it ends with the block."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        ticket = _Ticket(urgency, next(self._numbers), windows, turn)
        insort(self._waiting, ticket)
        self._admit()
        try:
            await turn
            yield
        finally:
            if ticket in self._waiting:
                self._waiting.remove(ticket)  # cancelled before its turn
            else:
                self._free += 1
            self._admit()

    def _admit(self) -> None:
        """Admit the requests that are due, and set a timer for the next one."""
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        next_s = float("inf")
        for ticket in list(self._waiting):
            if not self._free:
                return  # the next request that ends calls this again
            due_s = max(window.free_at_s() for window in ticket.windows)
            if due_s > now_s:
                next_s = min(next_s, due_s)
                continue
            for window in ticket.windows:
                window.take(now_s)
            self._free -= 1
            self._waiting.remove(ticket)
            ticket.turn.set_result(None)
        if self._waiting:
            self._alarm = loop.call_at(next_s, self._admit)


def retry_after_s(value: str) -> float | None:
    """The pause that a Retry-After header requests, in seconds; a date is compared with this
    machine's wall clock. None: it is missing or invalid.
    """
    value = value.strip()
    if value.isascii() and value.isdigit() and len(value) < 10:
        return float(value)
    with suppress(ValueError, OverflowError):  # OverflowError: a year or offset of twenty digits
        until = parsedate_to_datetime(value)
        if until.tzinfo is not None:
            return max(0.0, (until - datetime.now(UTC)).total_seconds())
    return None
