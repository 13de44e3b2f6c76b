"""The exchange's clock, as far as this side can know it.

Asked for over REST and told by the answer that came quickest of late. Signatures are made with it,
and what is said about times of the exchange; frames keep the time of this machine. A wall clock
that is wrong is reported, not put right: that is the system's business.
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
FIRST_EVERY_S = 2.0  # until there are enough to choose from
POLL_S = 1.0  # whether this machine's clock was set
SET_US = 500_000  # by so much
KEPT = 5
MOST_DIGITS = 13  # until the year 2286


@dataclass(frozen=True, slots=True)
class ClockSample:
    """How far the exchange's clock is ahead of this machine's, and how wrong that may be."""

    offset_us: int
    unsure_us: int


class ExchangeClock:
    """`now_us()` is the exchange's time; this machine's where nothing is known yet.

    `learned` is set whenever the exchange has been asked.
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
        """The same in ms."""
        return self.now_us() // 1000

    def suspect(self) -> None:
        """Something speaks against what is known: ask now."""
        self._measure_now.set()

    async def run(self, rest: Rest) -> None:
        """Ask again and again, until cancelled."""
        while True:
            with suppress(RestError, ValueError):
                self.learn(await self._measure(rest))
            self._measure_now.clear()
            pause_s = EVERY_S if len(self._samples) == KEPT else FIRST_EVERY_S
            await self._pause(pause_s)

    async def _pause(self, pause_s: float) -> None:
        """So long at most: until something speaks against what is known, or this machine's clock is
        set. With an offset from before that, signatures are refused and the clock is called wrong.
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
        """This machine's clock, of the one that no one can set."""
        return self._clock_us() - int(loop.time() * 1e6)

    async def _measure(self, rest: Rest) -> ClockSample:
        loop = asyncio.get_running_loop()
        before_s = loop.time()
        body = await rest.get(PATH, fresh=True)
        # How long it took is by the loop's clock: the wall clock may have been set meanwhile, and
        # the offset is from what it says now.
        half_us = int((loop.time() - before_s) * 1e6) // 2
        after_us = self._clock_us()
        if len(body.strip()) > MOST_DIGITS:
            raise ValueError("the reply is no time")
        # the answer is cut to the millisecond: half of one more on average
        exchange_us = int(body) * 1000 + 500
        return ClockSample(exchange_us - (after_us - half_us), half_us)

    def learn(self, sample: ClockSample) -> None:
        """Take the surest of the last few; what contradicts them came after a clock was set."""
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
