"""This machine's clocks: the wall clock, and a steady one that cannot be set."""

import time
from typing import Protocol


class Clock(Protocol):
    """Times in µs."""

    def wall_us(self) -> int:
        """Wall-clock time since 1970; may step. For receive times."""
        ...

    def now_us(self) -> int:
        """Steady time, about since 1970; never steps. For timeouts and delays."""
        ...


class SystemClock:
    """The machine's clocks. The steady clock starts at the wall clock's time and runs by itself."""

    def __init__(self) -> None:
        self._offset_us = time.time_ns() // 1000 - time.monotonic_ns() // 1000

    def wall_us(self) -> int:
        return time.time_ns() // 1000

    def now_us(self) -> int:
        return time.monotonic_ns() // 1000 + self._offset_us
