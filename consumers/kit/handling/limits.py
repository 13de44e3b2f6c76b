"""Limits on one worker's handler calls: concurrency, and calls per second.

All streams of a worker share one object.
"""

import asyncio
import time

from consumers.kit.api.consumer import Consumer


class RateLimit:
    """Spaces calls evenly at `per_s` per second; after an idle time it allows a burst of 0.1 s."""

    def __init__(self, per_s: float) -> None:
        self._each_s = 1 / per_s
        self._burst_s = max(0.0, 0.1 - self._each_s)
        self._next_s = 0.0  # when the next call is due, by monotonic()

    def reserve(self, now_s: float) -> float:
        """Reserve the next call. Returns the time to wait for it, s."""
        at_s = max(self._next_s, now_s - self._burst_s)
        self._next_s = at_s + self._each_s
        return max(0.0, at_s - now_s)


class Limits:
    """The limits that a consumer's class sets."""

    def __init__(self, kind: type[Consumer]) -> None:
        self.rate = None if kind.rate_limit is None else RateLimit(kind.rate_limit)
        self.concurrency = kind.concurrency
        self.slots = asyncio.Semaphore(kind.concurrency)

    async def may_call(self) -> None:
        """Wait until the rate allows one more call."""
        if self.rate is not None and (wait_s := self.rate.reserve(time.monotonic())):
            await asyncio.sleep(wait_s)
