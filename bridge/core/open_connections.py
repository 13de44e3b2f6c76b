"""The open connections, and what each shows of the others (pure).

Times are µs by the exchange's clock, but for those named `received_us`.
"""

from collections.abc import Callable, Sequence

from bridge.core.connection_coverage import (
    IN_FLIGHT_US,
    PERIOD_US,
    ConnectionCoverage,
    Interval,
    certain_us,
)

LIVE_US = PERIOD_US + IN_FLIGHT_US  # a connection that ticked since tells how late messages are


class OpenConnections(dict[int, ConnectionCoverage]):
    """Connections by number. A connection receives a stream where that is covered on it; one that
    is asked about may have been removed from here already.
    """

    def receivers(
        self, name: str, besides: ConnectionCoverage | None = None
    ) -> Sequence[ConnectionCoverage]:
        """The connections that receive the stream."""
        return [
            known
            for known in self.values()
            if known is not besides
            and (stream := known.streams.get(name)) is not None
            and stream.since_us is not None
        ]

    def since_us(self, name: str) -> Sequence[int]:
        """Since when each connection receives the stream, the longest first."""
        streams = [known.streams.get(name) for known in self.values()]
        return sorted(each.since_us for each in streams if each and each.since_us is not None)

    def covered_names(self) -> set[str]:
        """The streams that any connection receives."""
        return {
            name
            for known in self.values()
            for name, stream in known.streams.items()
            if stream.since_us is not None
        }

    def have_overlaps(self) -> bool:
        """Whether several connections are to receive one stream."""
        names = [name for known in self.values() for name in known.streams]
        return len(names) > len(set(names))

    def covered_until_us(
        self, from_us: Callable[[str], int | None], *, is_certain: bool
    ) -> dict[str, int]:
        """Each stream that is received now, and up to when it was so without a break, by these
        connections, and by those before them until `from_us`. `is_certain`: only what would still
        be claimed if all of them broke now.
        """
        found: dict[str, list[Interval]] = {}
        for known in self.values():
            for name, interval in known.intervals():
                found.setdefault(name, []).append(interval)
        return {
            name: _reached_us(name, intervals, from_us(name), is_certain=is_certain)
            for name, intervals in found.items()
        }

    def newest_tick_us(self, received_us: int) -> int | None:
        """The newest message of connections whose ticks come just now; None where none do."""
        newest_us = [
            known.newest_us
            for known in self.values()
            if received_us - known.last_tick_received_us <= LIVE_US and known.has_periodic()
        ]
        return max(newest_us, default=0) or None

    def reached_us(self, number: int, known: ConnectionCoverage) -> int | None:
        """Up to when this connection has received everything, by the order of answers alone."""
        # The first answer after another connection began may have been on its way already. The
        # second was asked for after it, whatever the clocks say: both were receiving then.
        begun_us = [
            max((stream.since_us or 0 for stream in other.streams.values()), default=0)
            for other in self.values()
            if known.answers - other.answers_before.get(number, known.answers) >= 2
        ]
        return max(begun_us) + IN_FLIGHT_US if begun_us else None

    def missed_us(self, known: ConnectionCoverage, name: str) -> int | None:
        """When another connection received something of this stream that this one has not; None:
        never, as far as is known.
        """
        stream = known.streams[name]
        if stream.timing is None:
            return None
        others = [other.streams[name] for other in self.receivers(name, besides=known)]
        missed_us = [us for other in others if (us := stream.missed_us(other)) is not None]
        return min(missed_us, default=None)

    def has_lost(self, known: ConnectionCoverage, name: str, event_us: int) -> bool:
        """Whether something that this connection has missed is older than a message of that time,
        so that it cannot come any more.
        """
        timing, missed_us = known.streams[name].timing, self.missed_us(known, name)
        return (
            timing is not None and missed_us is not None and missed_us < event_us - timing.skew_us
        )

    def received(self, known: ConnectionCoverage, name: str) -> Interval | None:
        """What a connection has received of a stream, less what it has missed there."""
        interval = known.interval(name)
        if interval is None:
            return None
        missed_us = self.missed_us(known, name)
        # What another has received later than this connection claims to reach may still come.
        if missed_us is not None and missed_us <= interval.to_us:
            return interval.until(interval.last_message_us)
        return interval

    def cover_without(self, known: ConnectionCoverage, name: str, interval: Interval) -> bool:
        """Whether the stream stays covered without this connection, which has received that much of
        it, and nothing can turn up that it has missed.
        """
        missed_us = self.missed_us(known, name)
        if missed_us is not None and missed_us > interval.to_us:
            return False  # that may come here yet, or be found missing
        return any(
            not other.is_closing and (other.streams[name].since_us or 0) <= interval.to_us
            for other in self.receivers(name, besides=known)
        )


def _reached_us(
    name: str, intervals: list[Interval], from_us: int | None, *, is_certain: bool
) -> int:
    if len(intervals) > 1:
        intervals.sort()
    covered_us = max(from_us or 0, intervals[0].from_us)
    for interval in intervals:
        if interval.from_us > covered_us:
            break
        until_us = interval.to_us
        if is_certain:
            until_us = certain_us(name, interval.last_message_us, until_us)
        covered_us = max(covered_us, until_us)
    return covered_us
