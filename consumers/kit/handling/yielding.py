"""Pacing of calls that never yield: turns for other tasks, and a maximum duration.

Handlers may be plain functions, which block the event loop while they run. The batch runner checks
the pace between two calls.
"""

import asyncio
import time

from consumers.kit.stop import Stop

YIELD_EVERY_S = 0.05
RUN_S = 1.0  # maximum run; then the handled part of a slow batch is settled or committed
_TURNS = 10
_SHARE = 20  # 1/20 of the time without a turn is slept, so that replies can arrive
_LONGEST_S = 0.05


async def yield_to_loop(without_s: float) -> None:
    """Give other tasks some turns, after `without_s` seconds in which they had none.

    A heartbeat needs some twenty turns, with replies of Redis in between; turns alone pass before a
    reply arrives. So after a long time without turns this sleeps for a fraction of that time.
    """
    if without_s > 2 * YIELD_EVERY_S:
        await asyncio.sleep(min(_LONGEST_S, without_s / _SHARE))
    for _ in range(_TURNS):
        await asyncio.sleep(0)


class Pace:
    """Measures one run of calls: from construction until `is_over`, with turns in between. It also
    ends when `stop` is set."""

    __slots__ = ("_ends_at", "_stop", "_yielded_at", "is_over", "next_at")

    def __init__(self, stop: Stop | None = None) -> None:
        self._stop = stop
        now = time.monotonic()
        self._yielded_at = now
        self._ends_at = now + RUN_S
        self.next_at = now + YIELD_EVERY_S  # when `keep` has something to do, by monotonic()
        self.is_over = False

    async def keep(self, now: float) -> bool:
        """Yield to other tasks, unless the run has to end. Returns whether it has to. Call it after
        `next_at`."""
        if now > self._ends_at or (self._stop is not None and self._stop.is_set):
            self.is_over = True
            return True
        await yield_to_loop(now - self._yielded_at)
        self._yielded_at = time.monotonic()
        self.next_at = self._yielded_at + YIELD_EVERY_S
        return False
