"""How often the exchange may be asked, and who goes first.

A window allows so many requests in any span of that length, however the exchange counts. The gate
lets requests pass in order of urgency, each when all of its windows have room; one that waits for
the narrow window of historical data holds nobody up behind it.
"""

import asyncio
from bisect import insort
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import count

from bridge.runtime.backoff import Backoff

AT_ONCE = 8  # requests under way


class Urgency(IntEnum):
    """Who goes first where many want to ask."""

    ACCOUNT = 0
    DEPTH = 1
    TRADES = 2
    OTHER = 3


class Window:
    """At most `limit` requests in any `span_s` seconds (times are the caller's, in seconds).

    `busy`: for how long it is closed where the exchange does not say.
    """

    def __init__(self, limit: int, span_s: float, busy: Backoff) -> None:
        self.busy = busy
        self._span_s = span_s
        self._taken: deque[float] = deque(maxlen=limit)
        self._limit = limit
        self._closed_until_s = 0.0
        self.closed_at_s = -1.0  # when the exchange last said that it was too often

    def free_at_s(self) -> float:
        """When the next request may go."""
        full = len(self._taken) == self._limit
        return max(self._closed_until_s, self._taken[0] + self._span_s if full else 0.0)

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
    """Where every request waits for its turn."""

    def __init__(self, at_once: int = AT_ONCE) -> None:
        self._free = at_once
        self._waiting: list[_Ticket] = []
        self._numbers = count()
        self._alarm: asyncio.TimerHandle | None = None

    @asynccontextmanager
    async def turn(self, urgency: Urgency, windows: Sequence[Window]) -> AsyncIterator[None]:
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
                return  # whoever leaves looks again
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
