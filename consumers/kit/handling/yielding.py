"""How long calls that never yield may go on: turns for other tasks, and an end.

Handlers may be plain functions, which hold up the event loop while they run. Between two of them
the runner of batches looks here.
"""

import asyncio
import time

from consumers.kit.stop import Stop

YIELD_EVERY_S = 0.05
RUN_S = 1.0  # then what is done is settled or committed, so that a slow batch does not wait whole
_TURNS = 10
_SHARE = 20  # of the time without a turn that is slept, so that replies can arrive: 1/20
_LONGEST_S = 0.05


async def yield_to_loop(without_s: float) -> None:
    """Give other tasks some turns, after `without_s` seconds in which they had none.

    A heartbeat needs some twenty turns, with replies of Redis in between; turns alone are over
    before a reply is there. So after a long time without any, this sleeps for a part of it.
    """
    if without_s > 2 * YIELD_EVERY_S:
        await asyncio.sleep(min(_LONGEST_S, without_s / _SHARE))
    for _ in range(_TURNS):
        await asyncio.sleep(0)


class Pace:
    """Measures one run of calls: from its making until `is_over`, with turns in between. A stop
    ends it, too, where one is given."""

    __slots__ = ("_ends_at", "_stop", "_yielded_at", "is_over", "next_at")

    def __init__(self, stop: Stop | None = None) -> None:
        self._stop = stop
        now = time.monotonic()
        self._yielded_at = now
        self._ends_at = now + RUN_S
        self.next_at = now + YIELD_EVERY_S  # when `keep` has something to do, by monotonic()
        self.is_over = False

    async def keep(self, now: float) -> bool:
        """Yield if it is time to; whether the run is to end. Call it once `next_at` has passed."""
        if now > self._ends_at or (self._stop is not None and self._stop.is_set):
            self.is_over = True
            return True
        await yield_to_loop(now - self._yielded_at)
        self._yielded_at = time.monotonic()
        self.next_at = self._yielded_at + YIELD_EVERY_S
        return False
