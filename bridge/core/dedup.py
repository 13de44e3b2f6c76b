"""Distinguishes a message received twice from two equal messages (pure)."""

from collections.abc import Hashable
from itertools import takewhile


class Occurrences:
    """How often each message was received on one connection. Equal messages on one connection are
    separate messages of the exchange: the count distinguishes them.

    They share an engine time, so only the last `LIMIT` messages are remembered.
    """

    LIMIT = 4096

    def __init__(self) -> None:
        self._counts: dict[tuple[str, ...], int] = {}

    def count(self, key: tuple[str, ...]) -> int:
        """Count this message; returns how many equal ones came before it."""
        number = self._counts.pop(key, -1) + 1
        self._counts[key] = number  # at the end: the dict is in the order of receiving
        if len(self._counts) > self.LIMIT:
            del self._counts[next(iter(self._counts))]
        return number


class DedupWindow:
    """The recent messages of one stream and their connections: a message received again over
    another connection is a duplicate.

    A message without an exchange time may be sent again later on purpose: so only messages received
    within `WITHIN_US` count, which is longer than one connection may lag behind another. Older ones
    are removed once a second, by the times of receipt. Messages with an exchange time are
    recognised even if our clock is set in between.
    """

    LIMIT = 8192
    WITHIN_US = 60_000_000
    SWEEP_US = 1_000_000

    def __init__(self) -> None:
        # key → connection, received_us; the longest ago first
        self._received: dict[Hashable, tuple[int, int]] = {}
        self._swept_us = 0

    def is_duplicate(
        self, key: Hashable, connection: int, received_us: int, *, is_timed: bool = False
    ) -> bool:
        """Whether the message was received before over another connection; it is recorded.
        `is_timed`: its key contains an exchange time.
        """
        before = self._received.get(key)
        if (
            before is not None
            and before[0] != connection
            and (is_timed or received_us - before[1] <= self.WITHIN_US)
        ):
            return True
        if before is not None:
            del self._received[key]  # to move it to the end
        self._received[key] = connection, received_us
        if len(self._received) > self.LIMIT:
            del self._received[next(iter(self._received))]
        # The absolute difference, so that sweeps continue after our clock was set back.
        if abs(received_us - self._swept_us) >= self.SWEEP_US:
            self._sweep(received_us)
        return False

    def clear(self) -> None:
        """Forget everything."""
        self._received.clear()

    def _sweep(self, now_us: int) -> None:
        # After a long silence, or if the clock was set, messages from before are removed by the
        # next sweep only: duplicates of them may be in flight.
        now_us, self._swept_us = min(now_us, self._swept_us + 2 * self.SWEEP_US), now_us
        old = takewhile(lambda each: now_us - each[1][1] > self.WITHIN_US, self._received.items())
        for key in [key for key, _ in old]:
            del self._received[key]
