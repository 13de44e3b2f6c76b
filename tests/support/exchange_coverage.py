"""The intervals in which the exchange could send a stream to a connection, from its ledger."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from tests.support.exchange_ledger import Line

FOR_EVER_US = 2**62
# Frames sent so shortly before a connection's end may be lost; the ledger does not show it.
LOST_WITH_THE_END_US = 1_500_000
# Faults that cause long queues: a slow network, a stall, a burst of messages.
LONG_QUEUES = ("slow_network", "stall", "burst")
LONG_QUEUE_US = 10_000_000
QUEUE_US = 100_000  # unread data of one connection while a busy bridge reads another
# During one of these, requests have no reply, wait behind queued frames, or wait until each
# candidate stream was requested alone (about 16, each 0.5 s after the previous one).
WITHOUT_ANSWERS = (*LONG_QUEUES, "no_pongs", "error", "reject")
# A request times out after `ping_timeout_s` (4 s in these runs), and the next one waits for that.
ANSWER_US = 2 * 4_000_000
OVER = ("ended", "close", "eof", "reset", "silent")


class Stretch(NamedTuple):
    """An interval, in µs of the wall clock."""

    from_us: int
    to_us: int


class Connections:
    """All connections of a run: when each was open, and when it received which stream."""

    def __init__(self, notes: Iterable[Mapping[str, Any]]) -> None:
        self._opened: dict[int, int] = {}
        self._ended: dict[int, int] = {}
        self._subscribed: dict[tuple[int, str], list[Stretch]] = {}
        self._stalls: list[tuple[Stretch, Mapping[str, Any]]] = []
        self._queues: list[tuple[Stretch, Mapping[str, Any]]] = []
        self._silences: list[tuple[Stretch, Mapping[str, Any]]] = []  # requests without a reply
        began: dict[int, int] = {}
        for note in notes:
            at_us = note.get("at_us", 0)
            if "connection" in note:
                self._connection(note["connection"], at_us, note)
            elif (
                command := note.get("fault", {}).get("command", {})
            ).get("fault") in WITHOUT_ANSWERS:  # fmt: skip
                number = note["fault"]["number"]
                if note["state"] == "began":
                    began[number] = at_us
                    continue
                lasted = Stretch(began.pop(number), at_us), command
                if not (command["fault"] == "stall" and "stream" in command):
                    self._silences.append(lasted)
                if command["fault"] in LONG_QUEUES:
                    self._queues.append(lasted)
                if command["fault"] == "stall":
                    self._stalls.append(lasted)

    def end_of(self, connection: int) -> int:
        """When the connection ended, µs; FOR_EVER_US if it never did."""
        return self._ended.get(connection, FOR_EVER_US)

    def may_be_lost(self, connection: int, at_us: int) -> bool:
        """Whether a frame sent at this time may have been lost with the end of the connection."""
        end_us = self.end_of(connection)
        if end_us - at_us < LOST_WITH_THE_END_US:
            return True
        return end_us - at_us < LONG_QUEUE_US and any(
            stretch.from_us <= end_us and stretch.to_us >= at_us - LOST_WITH_THE_END_US
            for stretch, command in self._queues
            if command["fault"] == "burst" or self._reaches(command, stretch, connection)
        )

    def may_be_overtaken(self, stream: str, line: Line) -> bool:
        """Whether another connection, made or no longer stalled since this frame was sent, may have
        delivered newer frames of the stream first. In streams of states an older frame is then
        dropped.
        """
        is_queued = any(
            stretch.from_us <= line.at_us <= stretch.to_us and self._reaches(command, stretch, each)
            for each in line.to
            for stretch, command in self._queues
        )
        queue_us = LONG_QUEUE_US if is_queued else QUEUE_US
        return bool(line.to) and any(
            line.at_us < begun_us < line.at_us + queue_us
            for (connection, name), stretches in self._subscribed.items()
            if name == stream and connection not in line.to
            for begun_us in (
                *(stretch.from_us for stretch in stretches),
                *(stall.to_us for stall in self._stalls_of(connection, stream)),
            )
        )

    def ends(self) -> list[int]:
        """The times at which connections ended, µs, in order."""
        return sorted(self._ended.values())

    def covered(self, stream: str) -> list[Stretch]:
        """The intervals in which a connection was subscribed and not stalled, joined and in order.
        The last LOST_WITH_THE_END_US of each connection do not count.
        """
        return self._received(stream, lambda connection: self._stalls_of(connection, stream))

    def provable(self, stream: str) -> list[Stretch]:
        """`covered` without the intervals that a bridge cannot prove: while requests on a
        connection have no reply, until such a request times out and the next one has a reply.
        """
        return self._received(
            stream,
            lambda connection: sorted(
                [*self._stalls_of(connection, stream), *self._unanswered(connection)]
            ),
        )

    def _received(self, stream: str, outages_of: Callable[[int], list[Stretch]]) -> list[Stretch]:
        received: list[Stretch] = []
        for (connection, name), stretches in self._subscribed.items():
            if name != stream:
                continue
            for stretch in stretches:
                certain_us = self.end_of(connection) - LOST_WITH_THE_END_US
                whole = Stretch(stretch.from_us, min(stretch.to_us, certain_us))
                received += _without(whole, outages_of(connection))
        return _joined(received)

    def _unanswered(self, connection: int) -> list[Stretch]:
        return [
            Stretch(stretch.from_us, stretch.to_us + ANSWER_US)
            for stretch, command in self._silences
            if self._reaches(command, stretch, connection)
        ]

    def _stalls_of(self, connection: int, stream: str) -> list[Stretch]:
        stalls = []
        for stretch, command in self._stalls:
            reached = self._reaches(command, stretch, connection)
            if reached and fnmatchcase(stream, command.get("stream", "*")):
                # Frames sent shortly before may have been in transit: a bridge does not claim them.
                stalls.append(Stretch(stretch.from_us - LOST_WITH_THE_END_US, stretch.to_us))
        return sorted(stalls)

    def _reaches(self, command: Mapping[str, Any], stretch: Stretch, connection: int) -> bool:
        """Whether a fault in this interval affects this connection."""
        requested = command.get("connection")
        is_there = self._opened[connection] <= stretch.from_us <= self.end_of(connection)
        return requested is None or requested == connection or (requested == "open" and is_there)

    def _connection(self, number: int, at_us: int, note: Mapping[str, Any]) -> None:
        if note.get("state") == "opened":
            self._opened[number] = at_us
        elif note.get("state") in OVER:
            self._ended.setdefault(number, at_us)
        elif "subscribed" in note:
            stretches = self._subscribed.setdefault((number, note["subscribed"]), [])
            stretches.append(Stretch(at_us, FOR_EVER_US))
        elif "unsubscribed" in note:
            stretches = self._subscribed[number, note["unsubscribed"]]
            stretches[-1] = Stretch(stretches[-1].from_us, at_us)


def covers(stretches: list[Stretch], from_us: int, to_us: int) -> bool:
    """Whether one of these intervals (joined, in order) covers the whole of another one."""
    place = bisect_right(stretches, Stretch(from_us, FOR_EVER_US)) - 1
    return place >= 0 and stretches[place].to_us >= to_us


def _without(whole: Stretch, outages: Iterable[Stretch]) -> list[Stretch]:
    rest, from_us = [], whole.from_us
    for outage in outages:
        if outage.to_us <= from_us or outage.from_us >= whole.to_us:
            continue
        if outage.from_us > from_us:
            rest.append(Stretch(from_us, outage.from_us))
        from_us = max(from_us, outage.to_us)
    if from_us < whole.to_us:
        rest.append(Stretch(from_us, whole.to_us))
    return rest


def _joined(stretches: Iterable[Stretch]) -> list[Stretch]:
    joined: list[Stretch] = []
    for stretch in sorted(stretches):
        if joined and stretch.from_us <= joined[-1].to_us:
            joined[-1] = Stretch(joined[-1].from_us, max(joined[-1].to_us, stretch.to_us))
        else:
            joined.append(stretch)
    return joined
