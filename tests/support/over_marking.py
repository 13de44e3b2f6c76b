"""How much of a gap in a stream without numbers was received in fact.

docs/contract.md limits by how much a gap may be longer than the outage. This computes the received
part of a gap without the intervals that the bridge cannot prove.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from tests.support.exchange_coverage import Connections, Stretch
from tests.support.exchange_ledger import Line

# In these a gap begins at the last message: the exchange may have dropped a silent periodic stream.
RHYTHMIC = ("ticker.", "markPrice.", "bookTicker.", "kline.", "openInterest.")
SECOND_US = 1_000_000
# A connection counts as receiving from the reply to its request, and from the first message after
# it. A periodic stream has a message within 1 s, and another second later where messages lag. The
# ledger's intervals exclude frames in transit at a connection's end.
BEGIN_US = 2 * SECOND_US
# An account's connection has no periodic stream: it is known to have received up to its last reply,
# less frames in transit, and a ping is sent every 3 s.
QUIET_US = 4 * SECOND_US
# Whatever fails at the same time, the exchange replies once the faults that prevent a reply (4 s at
# most in these runs) and two requests (4 s each) are over.
MOST_US = 12 * SECOND_US


class Sent(NamedTuple):
    """A stream's frames in order: event times, times of sending, and the times of sending of those
    frames that reached a connection unaffected by a fault.
    """

    event_us: Sequence[int]
    made_us: Sequence[int]
    told_us: Sequence[int]

    def at_us(self, event_us: int) -> int:
        """When an event of this time was sent, µs: an exchange may be behind its schedule."""
        place = bisect_right(self.event_us, event_us) - 1
        return event_us + (self.made_us[place] - self.event_us[place] if place >= 0 else 0)

    def between(self, from_us: int, to_us: int) -> tuple[int, int]:
        """The times of the first unaffected frame after `from_us` and the last up to `to_us`, µs;
        zeros without one.
        """
        first, beyond = bisect_right(self.told_us, from_us), bisect_right(self.told_us, to_us)
        return (self.told_us[first], self.told_us[beyond - 1]) if beyond > first else (0, 0)


def sent(frames: Iterable[Line]) -> Sent:
    """The times of a stream's lines in the ledger."""
    event_us, made_us, told_us = array("Q"), array("Q"), array("Q")
    for line in frames:
        event_us.append(line.data["E"])
        made_us.append(line.at_us)
        if line.to and not line.touched:
            told_us.append(line.at_us)
    return Sent(event_us, made_us, told_us)


def limit_us(stream: str) -> int:
    """The allowed length of an interval inside a gap in which a connection provably received,
    µs.
    """
    return QUIET_US if stream.startswith("account.") else BEGIN_US


class Marking:
    """Checks the gaps of one stream."""

    def __init__(self, stream: str, connections: Connections, sent: Sent) -> None:
        limit = limit_us(stream)
        self._stream = stream
        self._sent = sent
        self._limits = (
            (connections.provable(stream), limit),
            (connections.covered(stream), limit + MOST_US),
        )

    def needless_us(self, from_us: int, to_us: int) -> int:
        """The time for which a connection received inside a gap, µs, if it exceeds the limit;
        otherwise 0. A gap may end at the time of an event, or at that of a reply, which is never
        late.
        """
        from_us = self._sent.at_us(from_us)
        for stretches, most_us in self._limits:
            received_us = longest_us(self._stream, from_us, to_us, stretches, self._sent)
            if received_us > most_us:
                return received_us
        return 0


def longest_us(
    stream: str, from_us: int, to_us: int, stretches: Iterable[Stretch], sent: Sent
) -> int:
    """The longest of the intervals inside a gap, µs; for periodic streams only from the first
    message after the gap's beginning to the last.
    """
    longest = 0
    for stretch in stretches:
        begin_us, end_us = max(stretch.from_us, from_us), min(stretch.to_us, to_us)
        if end_us > begin_us and stream.startswith(RHYTHMIC):
            begin_us, end_us = sent.between(begin_us, end_us)
        longest = max(longest, end_us - begin_us)
    return longest
