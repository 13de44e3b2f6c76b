"""Connections of a console: a limited number, and no idle ones.

uvicorn waits without end for a client that sends nothing, or half a request, or does not read its
answer; some hundreds of them would use up the process's file descriptors and lock out all others.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

MOST_CONNECTIONS = 128  # further ones are refused
POLL_S = 5.0  # for a client to send its request
MOST_POLLS = 6  # with the same request: to make and deliver an answer; events have their own limit
EVENTS = "/events"


class Connection(H11Protocol):
    """One client's connection, polled for progress."""

    _timer: asyncio.TimerHandle | None = None
    _seen: Any = None  # the request at the last poll
    _idle_polls = 0  # consecutive polls with the same request

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept the connection, or abort it above the limit."""
        super().connection_made(transport)
        if len(self.connections) > MOST_CONNECTIONS:
            transport.abort()
        else:
            self._timer = self.loop.call_later(POLL_S, self._poll)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection has ended: stop polling."""
        super().connection_lost(exc)
        if self._timer is not None:
            self._timer.cancel()

    def _poll(self) -> None:
        self._idle_polls = self._idle_polls + 1 if self.cycle is self._seen else 1
        self._seen = self.cycle
        if self._has_waited_enough():
            self.transport.abort()  # discards unsent data
        else:
            self._timer = self.loop.call_later(POLL_S, self._poll)

    def _has_waited_enough(self) -> bool:
        if self.cycle is None:
            return True
        if self.cycle.response_complete:
            return self._idle_polls > 1
        return self._idle_polls > MOST_POLLS and self.scope["path"] != EVENTS
