"""The open connections, and what each reveals about the rest (pure).

Times are µs by the exchange's clock, except those named `received_us` (our clock).
"""

from collections.abc import Callable, Sequence

from bridge.core.connection_coverage import (
    IN_FLIGHT_US,
    PERIOD_US,
    ConnectionCoverage,
    Interval,
    certain_us,
)

LIVE_US = PERIOD_US + IN_FLIGHT_US  # a tick within this time shows how much messages lag now


class OpenConnections(dict[int, ConnectionCoverage]):
    """Connections by number. A connection receives a stream if the stream is covered on it. A
    connection passed as an argument may have been removed already.
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
        """Each stream that is received now → up to when it was received without a break: by earlier
        connections until `from_us`, then by these. `is_certain`: only as far as it would hold if
        all of them broke now.
        """
        by_name: dict[str, list[Interval]] = {}
        for known in self.values():
            for name, interval in known.intervals():
                by_name.setdefault(name, []).append(interval)
        return {
            name: _reached_us(name, intervals, from_us(name), is_certain=is_certain)
            for name, intervals in by_name.items()
        }

    def newest_tick_us(self, received_us: int) -> int | None:
        """Time of the newest message on connections that receive ticks at present, or None."""
        newest_us = [
            known.newest_us
            for known in self.values()
            if received_us - known.last_tick_received_us <= LIVE_US and known.has_periodic()
        ]
        return max(newest_us, default=0) or None

    def reached_us(self, number: int, known: ConnectionCoverage) -> int | None:
        """Up to when this connection has received everything, by the order of answers alone."""
        # The first answer after another connection began may have been in flight already. The
        # second was requested after that, whatever the clocks show: both were receiving then.
        begun_us = [
            max((stream.since_us or 0 for stream in other.streams.values()), default=0)
            for other in self.values()
            if known.answers - other.answers_before.get(number, known.answers) >= 2
        ]
        return max(begun_us) + IN_FLIGHT_US if begun_us else None

    def missed_us(self, known: ConnectionCoverage, name: str) -> int | None:
        """Time of the first message of this stream that another connection received and this one
        did not; None: none is known.
        """
        stream = known.streams[name]
        if stream.timing is None:
            return None
        others = [other.streams[name] for other in self.receivers(name, besides=known)]
        missed_us = [us for other in others if (us := stream.missed_us(other)) is not None]
        return min(missed_us, default=None)

    def has_lost(self, known: ConnectionCoverage, name: str, event_us: int) -> bool:
        """Whether this connection has missed a message that is so much older than `event_us` that
        it cannot arrive any more.
        """
        timing, missed_us = known.streams[name].timing, self.missed_us(known, name)
        return (
            timing is not None and missed_us is not None and missed_us < event_us - timing.skew_us
        )

    def received(self, known: ConnectionCoverage, name: str) -> Interval | None:
        """The interval of a stream received on a connection; up to its last message there, if it
        missed a later one.
        """
        interval = known.interval(name)
        if interval is None:
            return None
        missed_us = self.missed_us(known, name)
        # A message that another received after this interval may still arrive here.
        if missed_us is not None and missed_us <= interval.to_us:
            return interval.until(interval.last_message_us)
        return interval

    def cover_without(self, known: ConnectionCoverage, name: str, interval: Interval) -> bool:
        """Whether the stream stays covered without this connection, which has received `interval`
        of it, and cannot have missed anything.
        """
        missed_us = self.missed_us(known, name)
        if missed_us is not None and missed_us > interval.to_us:
            return False  # it may still arrive here, or prove to be missing
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
