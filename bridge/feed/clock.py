"""Estimates the exchange's clock.

It is requested over REST; the fastest of the recent responses counts. Signatures use it, and
records with times of the exchange; frames have the time of this machine. A wrong wall clock is
reported, not corrected.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import structlog

from bridge.feed.rest import Rest, RestError
from bridge.runtime.skew import SKEWED_MS, describe_skew

log = structlog.get_logger(__name__)

PATH = "/api/v1/time"  # text: ms since 1970
EVERY_S = 60.0
FIRST_EVERY_S = 2.0  # until KEPT samples are known
POLL_S = 1.0  # how often to check whether this machine's clock was set
SET_US = 500_000  # the least change of this machine's clock that is noticed
KEPT = 5
MOST_DIGITS = 13  # until the year 2286


@dataclass(frozen=True, slots=True)
class ClockSample:
    """How far the exchange's clock is ahead of this machine's, and the possible error."""

    offset_us: int
    unsure_us: int


class ExchangeClock:
    """The exchange's clock; this machine's until the first sample.

    `learned` is set after each sample.
    """

    def __init__(self, clock_us: Callable[[], int]) -> None:
        self.offset_us: int | None = None
        self.learned = asyncio.Event()
        self._clock_us = clock_us
        self._samples: deque[ClockSample] = deque(maxlen=KEPT)
        self._is_skewed = False
        self._measure_now = asyncio.Event()

    def now_us(self) -> int:
        """The exchange's time, µs since 1970."""
        return self._clock_us() + (self.offset_us or 0)

    def now_ms(self) -> int:
        """The exchange's time, ms since 1970."""
        return self.now_us() // 1000

    def suspect(self) -> None:
        """Measure now, since the known offset may be wrong."""
        self._measure_now.set()

    async def run(self, rest: Rest) -> None:
        """Measure repeatedly, until cancelled."""
        while True:
            with suppress(RestError, ValueError):
                self.learn(await self._measure(rest))
            self._measure_now.clear()
            pause_s = EVERY_S if len(self._samples) == KEPT else FIRST_EVERY_S
            await self._pause(pause_s)

    async def _pause(self, pause_s: float) -> None:
        """Pause, at most until `suspect` is called or this machine's clock is set: an offset from
        before that would make signatures invalid and the clock seem wrong.
        """
        loop = asyncio.get_running_loop()
        until_s, ahead_us = loop.time() + pause_s, self._ahead_us(loop)
        while not self._measure_now.is_set() and loop.time() < until_s:
            if abs(self._ahead_us(loop) - ahead_us) >= SET_US:
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(min(POLL_S, until_s - loop.time())):
                    await self._measure_now.wait()

    def _ahead_us(self, loop: asyncio.AbstractEventLoop) -> int:
        """How far this machine's wall clock is ahead of the loop's steady clock."""
        return self._clock_us() - int(loop.time() * 1e6)

    async def _measure(self, rest: Rest) -> ClockSample:
        loop = asyncio.get_running_loop()
        before_s = loop.time()
        body = await rest.get(PATH, fresh=True)
        # The duration is by the loop's clock, since the wall clock may have been set meanwhile; the
        # offset is from the wall clock's present time.
        half_us = int((loop.time() - before_s) * 1e6) // 2
        after_us = self._clock_us()
        if len(body.strip()) > MOST_DIGITS:
            raise ValueError("the reply is no time")
        # the response is truncated to the millisecond: half of one is added, the mean error
        exchange_us = int(body) * 1000 + 500
        return ClockSample(exchange_us - (after_us - half_us), half_us)

    def learn(self, sample: ClockSample) -> None:
        """Take a sample; of the last few the most certain counts. A sample that contradicts them
        shows that a clock was set: they are dropped.
        """
        best = min(self._samples, key=lambda each: each.unsure_us, default=sample)
        if abs(sample.offset_us - best.offset_us) > sample.unsure_us + best.unsure_us + 50_000:
            self._samples.clear()
        self._samples.append(sample)
        offset_us = min(self._samples, key=lambda each: each.unsure_us).offset_us
        self.offset_us = offset_us
        self._report(offset_us / 1000)
        self.learned.set()

    def _report(self, offset_ms: float) -> None:
        is_skewed = abs(offset_ms) >= SKEWED_MS
        if is_skewed != self._is_skewed:
            if is_skewed:
                log.warning(
                    "clock_skewed", offset_ms=round(offset_ms), found=describe_skew(offset_ms)
                )
            else:
                log.info("clock_agrees", offset_ms=round(offset_ms))
        self._is_skewed = is_skewed
