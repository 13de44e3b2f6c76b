"""From when until when each content stream was received, and the outages between (pure).

Sequenced streams do not need this: their numbers show what is missing. Messages of content streams
have no numbers, so this module follows the connections and reasons about time. It is conservative:
an outage may be marked although nothing was missing, and none is ever left out.

What a connection covers: from the moment the exchange confirmed a subscription, up to the newest
message on the connection or its last answer to a ping (a slow answer: up to the ping), less one
second: frames that are in flight when a connection breaks are lost, and they are of that second. A
server may answer and deliver nothing. So on a connection with a periodic stream, answers prove
nothing and coverage begins at the first message after the confirmation.

Several connections may receive one stream. There is an outage only where none of them covers it:
also where both were open, but the older one was dead and the newer one not confirmed yet.

What shows later: the exchange can drop one subscription of a healthy connection. If the stream is
monitored for staleness, this is detected in time; if the connection breaks before, or another one
received messages that this one did not, coverage ends at the stream's own last message. A whole
connection can stall while pings are answered: on one with a periodic stream this is detected at the
first message after the stall, since ticks are missing.

Times are µs by the exchange's clock, except those named `received_us` (our clock).
"""

from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from typing import Any, NamedTuple

from bridge.contract.causes import GapCause
from bridge.contract.stream_types import SKEW_US
from bridge.core.connection_coverage import (
    IN_FLIGHT_US,
    JITTER_US,
    PAUSE_US,
    ConnectionCoverage,
    Interval,
)
from bridge.core.dedup import DedupWindow
from bridge.core.open_connections import OpenConnections
from bridge.core.outages import Outage, Outages
from bridge.core.records import Answered


class Findings(NamedTuple):
    """Findings of a call: streams that no connection receives now, and outages of the past."""

    uncovered: Sequence[str] = ()
    outages: Sequence[Outage] = ()


NOTHING = Findings()


class Coverage:
    """Follows the connections of one bridge by their numbers.

    `overlaps`: whether duplicates over a second connection are possible.
    """

    def __init__(self) -> None:
        self.overlaps = False
        self._open = OpenConnections()
        self._is_doubled = False  # whether a stream is on two connections now
        self._doubled_received_us = 0  # when the last message was received while one was
        self._outages = Outages()

    # ---- connections -------------------------------------------------------------------------

    def opened(self, connection: int, streams: Iterable[str]) -> None:
        """Add a connection that is to receive these streams."""
        self._open[connection] = ConnectionCoverage.of(streams)
        self._note_overlaps()

    def subscribed(self, connection: int, streams: Sequence[str]) -> Findings:
        """Change the streams of a connection to these."""
        known = self._open.get(connection)
        if known is None:
            return NOTHING
        kept = set(streams)
        dropped = {
            name: self._open.received(known, name) for name in known.streams if name not in kept
        }
        known.subscribe(streams)
        self._note_overlaps()
        return self._end(dropped, GapCause.UNSUBSCRIBED)

    def answered(self, answer: Answered) -> Sequence[Outage]:
        """Take an answer of the exchange: all subscriptions except the excluded are confirmed, and
        everything that it sent before has been received.
        """
        known = self._open.get(answer.connection)
        if known is None:
            return ()
        if not answer.is_inferred:
            known.count_answer()
        confirmed = [
            name
            for name, stream in known.streams.items()
            if stream.since_us is None and name not in answer.excluded
        ]
        if known.has_periodic():
            # A server can answer and be stuck: only the next message is proof, see `received`.
            known.await_message(confirmed, answer.at_us, answer.received_us)
            return ()
        if not answer.is_inferred:
            known.prove(self._proven_us(answer))
        if (reached_us := self._open.reached_us(answer.connection, known)) is not None:
            known.prove(reached_us)
        return self._begin(known, dict.fromkeys(confirmed, answer.at_us))

    def suspected(self, connection: int, name: str, last_us: int | None) -> Findings:
        """Take a suspicion: a stream that should have sent something on a connection has not since
        `last_us` (None: since its answer). It is not covered there until the next answer.
        """
        known = self._open.get(connection)
        if known is None:
            return NOTHING
        known.unconfirm(name)
        stream = known.streams.get(name)
        if stream is None or stream.since_us is None:
            return NOTHING
        ended: dict[str, Interval | None] = {}
        if stream.is_periodic and known.is_still_since(last_us or 0):
            # A tick is missing and nothing else was received: the whole connection is stuck.
            ended = {each: self._open.received(known, each) for each in known.streams}
        until_us = max(stream.since_us, last_us or 0)
        ended[name] = Interval(stream.since_us, until_us, until_us)
        ended = {each: interval for each, interval in ended.items() if interval is not None}
        known.uncover(ended)
        return self._end(ended, GapCause.STALE)

    def lost(self, connection: int, cause: GapCause) -> Findings:
        """Remove a connection that has ended."""
        known = self._open.pop(connection, None)
        if known is None:
            return NOTHING
        self._note_overlaps()
        outages: list[Outage] = []
        for name, stream in known.streams.items():
            if stream.since_us is None and known.newest_us and not self._open.receivers(name):
                # It was never confirmed, so the beginning of what it received is unknown.
                self._outages.received_by(name, known.newest_us - IN_FLIGHT_US, cause)
            received = self._open.received(known, name)
            # Where it had missed messages before its end, the cause is that it was stale.
            is_whole = received == known.interval(name)
            outages += self._ended(name, received, cause if is_whole else GapCause.STALE)
        return Findings([name for name in known.streams if not self._open.receivers(name)], outages)

    def received(
        self, known: ConnectionCoverage, name: str, event_us: int, received_us: int
    ) -> Findings:
        """Take a message of a stream of this connection, with this time (0: none believable).
        Returns what it reveals of the past: usually nothing.
        """
        stream = known.streams[name]
        findings = NOTHING
        if event_us > known.newest_us + PAUSE_US and known.stood_still(event_us, received_us):
            findings = self._restart_all(known, event_us)
        elif (
            # Only another connection can have received what is missing here. The time of the last
            # message is compared first: that is cheap and nearly always decides.
            self.overlaps
            and (last_us := stream.last_message_us) is not None
            and event_us > last_us + SKEW_US
            and self._open.has_lost(known, name, event_us)
        ):
            findings = self._restart(known, {name: event_us}, event_us)
        if known.unproven and event_us > known.newest_us:
            began = self._begin(known, _from_message_on(known.take_unproven(), event_us))
            findings = Findings(findings.uncovered, [*findings.outages, *began])
        known.advance(name, event_us, received_us)
        return findings

    def ends_overlap(self, received_us: int) -> bool:
        """Whether duplicates are impossible from this message on; called while `overlaps`. Decided
        by the times of receipt, so that a replay decides the same.
        """
        if self._is_doubled:
            self._doubled_received_us = received_us
        elif received_us - self._doubled_received_us > DedupWindow.WITHIN_US:
            self.overlaps = False
        return not self.overlaps

    def may_close(self, connection: int) -> bool:
        """Whether closing this connection would leave no outage: another one continues all that it
        covers, and it cannot have missed anything.
        """
        known = self._open.get(connection)
        if known is None:
            return True
        covered = {name: interval for name in known.streams if (interval := known.interval(name))}
        return all(
            self._open.cover_without(known, name, interval) for name, interval in covered.items()
        )

    def closing(self, connection: int) -> None:
        """Note that the connection is about to be closed; it still receives until then."""
        if known := self._open.get(connection):
            known.close_soon()

    def unknown(self, names: Iterable[str], since_us: int, cause: GapCause) -> None:
        """Note that the history of the connections is unknown from `since_us` on. Each of these
        streams that no connection receives counts as not received from then until the next answer.
        """
        for name in names:
            if not self._open.receivers(name):
                self._outages.unknown(name, since_us, cause)

    # ---- earlier bridges, other coverages ----------------------------------------------------

    def resume(self, marks: Mapping[str, int], lost: Collection[str] = ()) -> Sequence[Outage]:
        """Take the watermarks of an earlier bridge, which received each stream up to its mark.
        `lost`: streams that Redis has lost since.
        """
        return self._outages.resume(marks, lost)

    def settle_by(self, other: "Coverage", names: Iterable[str]) -> Sequence[Outage]:
        """Take from another coverage of the same connections since when these streams are received:
        it follows more streams, which showed it.
        """
        outages: list[Outage] = []
        for name in names:
            if since_us := other._open.since_us(name):
                outages += self._outages.begun(name, since_us[0])
        return outages

    # ---- queries -----------------------------------------------------------------------------

    def connection(self, number: int) -> ConnectionCoverage | None:
        """The open connection with this number, or None."""
        return self._open.get(number)

    def open_connections(self) -> Sequence[int]:
        """Connections that were opened and not lost."""
        return list(self._open)

    def unanswered(self, connection: int) -> Sequence[str]:
        """The streams of a connection that the next answer confirms."""
        known = self._open.get(connection)
        if known is None:
            return ()
        return [
            name
            for name, stream in known.streams.items()
            if stream.since_us is None and name not in known.unproven
        ]

    def receivers(self, name: str) -> int:
        """How many connections receive the stream."""
        return len(self._open.receivers(name))

    def names_received(self) -> Set[str]:
        """The streams that any connection receives."""
        return self._open.covered_names()

    def is_wanted(self, name: str) -> bool:
        """Whether a connection is to receive the stream, confirmed or not."""
        return any(name in known.streams for known in self._open.values())

    def covered_until_us(self) -> dict[str, int]:
        """Each stream that is received now → up to when it was received without a break."""
        return self._open.covered_until_us(self._outages.until_us, is_certain=False)

    def certain_until_us(self) -> dict[str, int]:
        """The same, as far as it would hold if all connections broke now; also for streams that no
        connection receives any more.
        """
        covered = self._open.covered_until_us(self._outages.until_us, is_certain=True)
        return self._outages.certain_until_us() | covered

    def first_us(self, name: str) -> int:
        """Since when a stream is received, if nothing before is known; else 0."""
        return self._outages.first_us(name) or 0

    def state(self) -> dict[str, object]:
        """The state as plain values, with the journal's keys (`ears`: connections)."""
        connections = {str(number): known.state() for number, known in self._open.items()}
        return {"ears": connections, **self._outages.state()}

    def restore(
        self, connections: Mapping[int, Mapping[str, int]], known: Mapping[str, Mapping[str, Any]]
    ) -> None:
        """Restore these open connections (number → stream → since when it is received, 0: not
        answered yet) and a `state`; that of earlier versions has less. Raises ValueError, TypeError
        or AttributeError if it is damaged.
        """
        # After damage only these connections are open: others ended in the unreadable part.
        self._open.clear()
        stored = known.get("ears", {})  # the journal's key, see `state`
        for number, streams in connections.items():
            facts = stored.get(str(number), ())
            self._open[number] = ConnectionCoverage.restored(streams, facts)
        self._note_overlaps()
        self._outages.restore(known, self._open.covered_names())

    # ---- inside ------------------------------------------------------------------------------

    def _note_overlaps(self) -> None:
        self._is_doubled = self._open.have_overlaps()
        # `ends_overlap` ends it later: a duplicate may be in flight when one of two is closed.
        self.overlaps = self.overlaps or self._is_doubled

    def _proven_us(self, answer: Answered) -> int:
        """Up to when an answer proves that everything sent has been received."""
        # Messages may lag behind the exchange's clock, by which answers are dated: ticks of other
        # connections show by how much at present.
        times_us = [answer.at_us]
        if (tick_us := self._open.newest_tick_us(answer.received_us)) is not None:
            times_us.append(tick_us)
        if answer.pinged_us is not None:
            times_us.append(answer.pinged_us)
        return min(times_us)

    def _restart_all(self, known: ConnectionCoverage, event_us: int) -> Findings:
        """Restart the coverage of all streams: the connection stalled until `event_us`."""
        # Messages of several streams are not strictly in order: some with about this time may be
        # missing, and the tick before the stall need not have been the last message.
        last_us = (known.last_tick_us or 0) - JITTER_US
        return self._restart(known, dict.fromkeys(known.streams, event_us + JITTER_US), last_us)

    def _restart(
        self, known: ConnectionCoverage, since_us: Mapping[str, int], last_us: int
    ) -> Findings:
        """Restart the coverage of these streams from these times on: nothing of them was received
        since `last_us` at the latest.
        """
        intervals = {name: each for name in since_us if (each := known.interval(name))}
        outages: list[Outage] = []
        for name, interval in intervals.items():
            # If a message was missed before, even the time until `last_us` is not covered.
            was_missing = self._open.missed_us(known, name) is not None
            until_us = interval.last_message_us if was_missing else last_us
            known.uncover([name])
            outages += self._ended(name, interval.until(until_us), GapCause.STALE)
        outages += self._begin(known, {name: since_us[name] for name in intervals})
        uncovered = [name for name in intervals if not self._open.receivers(name, besides=known)]
        return Findings(uncovered, outages)

    def _begin(self, known: ConnectionCoverage, since_us: Mapping[str, int]) -> Sequence[Outage]:
        """Begin the coverage of these streams on a connection, each from its time on."""
        if not since_us:
            return ()
        answers = {number: other.answers for number, other in self._open.items()}
        known.begin(since_us, answers)
        return [outage for name, us in since_us.items() for outage in self._outages.begun(name, us)]

    def _end(self, intervals: Mapping[str, Interval | None], cause: GapCause) -> Findings:
        """End these streams on a connection, which received these intervals of them."""
        outages = [
            outage
            for name, interval in intervals.items()
            for outage in self._ended(name, interval, cause)
        ]
        return Findings([name for name in intervals if not self._open.receivers(name)], outages)

    def _ended(self, name: str, received: Interval | None, cause: GapCause) -> Sequence[Outage]:
        if received is None:
            return ()
        return self._outages.ended(name, received, self._open.since_us(name), cause)


def _from_message_on(answered_us: Mapping[str, int], event_us: int) -> Mapping[str, int]:
    """Since when streams are covered, by the first message after their answer."""
    # Messages may lag behind the exchange's clock, so coverage may begin later than the answer; and
    # the server may have been stuck since, so it does not begin earlier than the message.
    least_us, most_us = event_us + JITTER_US, event_us + IN_FLIGHT_US
    return {name: min(max(us, least_us), most_us) for name, us in answered_us.items()}
