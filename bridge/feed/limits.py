"""How often the exchange may be called, and which request goes first.

Three things decide when something may be sent: a rate limiter for what goes over sockets, a window
of so many REST requests in any span of time, and a gate that lets requests pass in order of
urgency. Times are the event loop's, in seconds.
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

AT_ONCE = 8  # requests under way


class RateLimiter:
    """A few at once, then at an even pace, in order of asking, for all connections together:
    however many of them break at the same time, the exchange is not hammered.

    `await turn()` before each; `hold` when the exchange said that it is too often.
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
        if self._blocked_until_s > loop.time():  # held while this one waited
            await asyncio.sleep(self._blocked_until_s - loop.time())

    def take(self, now_s: float) -> float:
        """When the one that asks now may go."""
        begin_s = max(now_s, self._blocked_until_s)
        due_s = max(self._due_s, begin_s - (self._burst - 1) * self._interval_s)
        self._due_s = due_s + self._interval_s
        return max(begin_s, due_s)

    def hold(self, until_s: float) -> None:
        """None goes before then, and after that at an even pace."""
        self._blocked_until_s = max(self._blocked_until_s, until_s)
        self._due_s = max(self._due_s, self._blocked_until_s)


class Urgency(IntEnum):
    """Which request goes first where many wait."""

    ACCOUNT = 0
    DEPTH = 1
    TRADES = 2
    OTHER = 3


class Window:
    """At most `limit` requests in any `window_s` seconds, however the exchange counts.

    `busy`: for how long it is closed where the exchange does not say.
    """

    def __init__(self, limit: int, window_s: float, busy: Backoff) -> None:
        self.busy = busy
        self._window_s = window_s
        self._taken: deque[float] = deque(maxlen=limit)
        self._limit = limit
        self._closed_until_s = 0.0
        self.closed_at_s = -1.0  # when the exchange last said that it was too often

    def free_at_s(self) -> float:
        """When the next request may go."""
        full = len(self._taken) == self._limit
        return max(self._closed_until_s, self._taken[0] + self._window_s if full else 0.0)

    def take(self, now_s: float) -> None:
        """A request goes now."""
        self._taken.append(now_s)

    def close(self, now_s: float, until_s: float) -> None:
        """The exchange said that it was too often: nothing goes before then."""
        self.closed_at_s = now_s
        self._closed_until_s = max(self._closed_until_s, until_s)


@dataclass(order=True, slots=True)
class _Ticket:
    urgency: Urgency
    number: int
    windows: Sequence[Window] = field(compare=False)
    turn: "asyncio.Future[None]" = field(compare=False)


class Gate:
    """Where every request waits for its turn: in order of urgency, each when all of its windows
    have room. One that waits for the narrow window of historical data holds up none behind it.
    """

    def __init__(self, at_once: int = AT_ONCE) -> None:
        self._free = at_once
        self._waiting: list[_Ticket] = []
        self._numbers = count()
        self._alarm: asyncio.TimerHandle | None = None

    @asynccontextmanager
    async def acquire(self, urgency: Urgency, windows: Sequence[Window]) -> AsyncIterator[None]:
        """Wait until this request may go; inside the block it is under way."""
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
        """Let those pass whose turn it is, and look again when the next one's comes."""
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        next_s = float("inf")
        for ticket in list(self._waiting):
            if not self._free:
                return  # the next one that ends admits again
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
    """What a Retry-After header asks for: seconds, or a date, which is compared with this machine's
    wall clock. None where it says nothing that can be used.
    """
    value = value.strip()
    if value.isascii() and value.isdigit() and len(value) < 10:
        return float(value)
    with suppress(ValueError, OverflowError):  # the latter: a year or an offset of twenty digits
        until = parsedate_to_datetime(value)
        if until.tzinfo is not None:
            return max(0.0, (until - datetime.now(UTC)).total_seconds())
    return None
