"""This side's two clocks: one that says what time it is, one that no one can set."""

import time
from typing import Protocol


class Clock(Protocol):
    """Times in µs."""

    def wall_us(self) -> int:
        """Since 1970, as the machine says just now: to stamp what comes."""
        ...

    def now_us(self) -> int:
        """Steady: about since 1970, but it never steps: for everything that waits."""
        ...


class SystemClock:
    """The machine's. The steady clock begins with the wall clock and goes on by itself."""

    def __init__(self) -> None:
        self._offset_us = time.time_ns() // 1000 - time.monotonic_ns() // 1000

    def wall_us(self) -> int:
        return time.time_ns() // 1000

    def now_us(self) -> int:
        return time.monotonic_ns() // 1000 + self._offset_us
