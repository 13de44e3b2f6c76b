"""An event loop that pauses after a wake-up by a socket, to batch what arrives in the meantime.

A single message wakes the process twice: when it arrives, and when Redis has replied. A wake-up
costs more than the message itself, since the processor sleeps between two messages and its caches
go cold. Messages that arrive within the pause are read, written to the journal and sent together.
Network cards call this interrupt coalescing, Kafka's producers `linger.ms`.

After an idle time the first message is taken at once, and while there is always something to read
there is no pause at all. A timer that is due sooner ends the pause.
"""

import asyncio
import selectors
import time
from collections.abc import Callable, Coroutine
from typing import Any

_Events = list[tuple[selectors.SelectorKey, int]]


class LingeringSelector(selectors.DefaultSelector):
    """Pauses `linger_s` where the last call found events and no more are ready. `sleep` blocks for
    a number of seconds.
    """

    def __init__(self, linger_s: float, sleep: Callable[[float], None] = time.sleep) -> None:
        super().__init__()
        self._linger_s = linger_s
        self._sleep = sleep
        self._had_events = False  # at the last call

    def select(self, timeout: float | None = None) -> _Events:
        """Ready events, as `selectors` defines it."""
        pause_s = self._linger_s if timeout is None else min(self._linger_s, timeout)
        if self._had_events and pause_s > 0:
            if events := super().select(0):
                return events
            self._sleep(pause_s)
            timeout = None if timeout is None else timeout - pause_s
        events = super().select(timeout)
        self._had_events = bool(events)
        return events


def run_lingering(main: Coroutine[Any, Any, int], linger_s: float) -> int:
    """`asyncio.run` on a loop that lingers `linger_s`; 0: on the default loop."""
    with asyncio.Runner(loop_factory=_factory(linger_s)) as runner:
        return runner.run(main)


def _factory(linger_s: float) -> Callable[[], asyncio.AbstractEventLoop] | None:
    if not linger_s:
        return None
    return lambda: asyncio.SelectorEventLoop(LingeringSelector(linger_s))
