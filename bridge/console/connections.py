"""Connections of a console: not too many, and none that only keeps its place.

uvicorn waits without an end for a client that says nothing, or half a request, or that takes no
answer; some hundreds of them would use up what a process may open, and nobody else would get in.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

MOST_CONNECTIONS = 128  # who comes then is turned away
POLL_S = 5.0  # for a client to say what it wants
MOST_POLLS = 6  # at one request: for an answer to be made and taken; events have their own bound
EVENTS = "/events"


class Connection(H11Protocol):
    """One client's."""

    _timer: asyncio.TimerHandle | None = None
    _seen: Any = None  # the request that was in hand when it was looked at last
    _idle_polls = 0  # in a row at which nothing else was

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Somebody has come."""
        super().connection_made(transport)
        if len(self.connections) > MOST_CONNECTIONS:
            transport.abort()
        else:
            self._timer = self.loop.call_later(POLL_S, self._poll)

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        super().connection_lost(exc)
        if self._timer is not None:
            self._timer.cancel()

    def _poll(self) -> None:
        self._idle_polls = self._idle_polls + 1 if self.cycle is self._seen else 1
        self._seen = self.cycle
        if self._has_waited_enough():
            self.transport.abort()  # what was not taken goes with it
        else:
            self._timer = self.loop.call_later(POLL_S, self._poll)

    def _has_waited_enough(self) -> bool:
        if self.cycle is None:
            return True
        if self.cycle.response_complete:
            return self._idle_polls > 1
        return self._idle_polls > MOST_POLLS and self.scope["path"] != EVENTS
