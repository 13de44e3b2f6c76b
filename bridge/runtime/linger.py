"""An event loop that, woken by a socket, waits a little for more before it asks for events again.

A message that comes alone wakes the process twice: when it arrives, and when Redis has replied. To
wake up costs more than the message itself, since between two messages the processor sleeps and its
caches forget. What comes within the pause is read, written to the journal and sent together. It is
what network cards call interrupt coalescing, and Kafka's producers `linger.ms`.

After a rest the first message is taken at once, and where there is always something to read there
is no pause at all. A timer that is due sooner ends it.
"""

import asyncio
import selectors
import time
from collections.abc import Callable, Coroutine
from typing import Any

_Events = list[tuple[selectors.SelectorKey, int]]


class LingeringSelector(selectors.DefaultSelector):
    """Waits `linger_s` where the last events were the last there are. `sleep` waits so many
    seconds.
    """

    def __init__(self, linger_s: float, sleep: Callable[[float], None] = time.sleep) -> None:
        super().__init__()
        self._linger_s = linger_s
        self._sleep = sleep
        self._has_found = False  # the last time

    def select(self, timeout: float | None = None) -> _Events:
        """Events, as the loop asks for them."""
        pause_s = self._linger_s if timeout is None else min(self._linger_s, timeout)
        if self._has_found and pause_s > 0:
            if found := super().select(0):
                return found
            self._sleep(pause_s)
            timeout = None if timeout is None else timeout - pause_s
        found = super().select(timeout)
        self._has_found = bool(found)
        return found


def run_lingering(main: Coroutine[Any, Any, int], linger_s: float) -> int:
    """`asyncio.run`, on a loop that waits so long for more; 0: on the usual one."""
    with asyncio.Runner(loop_factory=_factory(linger_s)) as runner:
        return runner.run(main)


def _factory(linger_s: float) -> Callable[[], asyncio.AbstractEventLoop] | None:
    if not linger_s:
        return None
    return lambda: asyncio.SelectorEventLoop(LingeringSelector(linger_s))
