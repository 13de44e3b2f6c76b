"""Retry delays: exponential, capped, with jitter (pure)."""

import random


class Backoff:
    """Delays in seconds. Reset it only after data has arrived, not after a mere connect."""

    def __init__(self, initial_s: float, max_s: float, chance: random.Random) -> None:
        self._initial_s = initial_s
        self._max_s = max_s
        self._chance = chance
        self._failures = 0

    def next_s(self) -> float:
        """The next delay: the doubled time, multiplied by a random factor from 0.5 to 1."""
        whole_s = min(self._max_s, self._initial_s * float(2 ** min(self._failures, 30)))
        self._failures += 1
        return whole_s * self._chance.uniform(0.5, 1.0)

    def reset(self) -> None:
        """Data has arrived: the next failure starts at the initial delay."""
        self._failures = 0
