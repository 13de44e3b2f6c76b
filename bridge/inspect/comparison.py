"""Compares what a journal has received with what Redis has, message by message.

A long journal takes two processes: each reads half of it, against an index of its own, and what
they have found is put together. More would take more memory than the audit may.
"""

import os
import pickle
import signal
from bisect import bisect_right
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import NamedTuple

from bridge.contract.stream_types import Identity, StreamType
from bridge.contract.streams import Stream
from bridge.core.entries import Entry
from bridge.inspect.certificate import MOST_KEPT, JournalCheck
from bridge.inspect.continuity import Run
from bridge.inspect.index import ContentIndex, Match, SequencedIndex
from bridge.inspect.journal_stream import JournalStream, Received
from bridge.journal.segments import Segment
from bridge.runtime.collector import settle_collector

LONG_BYTES = 32 * 2**20  # of lines: from there on a second process is worth its start

Index = SequencedIndex | ContentIndex


class Compared(NamedTuple):
    """What is compared: the stream; the numbers, and the spans of time, that its gaps name; when
    its last message in Redis was received.
    """

    stream: Stream
    runs: Sequence[Run]
    spans_us: Sequence[tuple[int, int]]
    last_us: int

    @property
    def is_sequenced(self) -> bool:
        return self.stream.spec.identity is Identity.SEQUENCED


def compare(
    wanted: Compared, index: Index, segments: Sequence[Segment], check: JournalCheck
) -> None:
    """Fill the check. Raises ConfigError where a file cannot be read."""
    middle = len(segments) // 2
    # Equal messages without numbers are counted over a whole connection: they are read in one go.
    if isinstance(index, SequencedIndex) and _is_long(segments) and (os.cpu_count() or 1) > 1:
        _compare_in_two(wanted, index, segments[:middle], segments[middle:], check)
    else:
        _compare_all(wanted, index, segments, check)
    check.add_elsewhere(index.unseen())


def _is_long(segments: Sequence[Segment]) -> bool:
    return len(segments) > 1 and segments[-1].start - segments[0].start >= LONG_BYTES


def _compare_in_two(
    wanted: Compared,
    index: SequencedIndex,
    first: Sequence[Segment],
    second: Sequence[Segment],
    check: JournalCheck,
) -> None:
    pool = ProcessPoolExecutor(1, get_context("spawn"), initializer=_leave_signals)
    with pool:
        # As bytes, now: the pool hands over later, when this one has marked what it has seen.
        given = pickle.dumps((wanted, index, second, JournalCheck(check.where)))
        found = pool.submit(_compared_apart, given)
        del given
        _compare_all(wanted, index, first, check)
        try:
            other, marks = found.result()
        except (BrokenProcessPool, OSError):  # there may be no second process here
            _compare_all(wanted, index, second, check)
        else:
            check.add(other, seen_before=index.add_marks(marks))


def _leave_signals() -> None:
    """Ctrl-C is for the process that was started; this one ends with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _compared_apart(given: bytes) -> tuple[JournalCheck, Sequence[bytes]]:
    """In the second process."""
    wanted, index, segments, check = pickle.loads(given)
    settle_collector()
    _compare_all(wanted, index, segments, check)
    return check, index.marks()


def _compare_all(
    wanted: Compared, index: Index, segments: Sequence[Segment], check: JournalCheck
) -> None:
    stream = JournalStream(wanted.stream, segments)
    one = _Comparison(wanted, index, check)
    for received in stream.received():
        # Without numbers, what came after the last message may not be in Redis yet.
        if wanted.is_sequenced or received.place.received_us <= wanted.last_us:
            one.take(received)
    check.add_damaged(stream.damaged)


class _Comparison:
    """What a journal has received, message by message, against what Redis has."""

    def __init__(self, wanted: Compared, index: Index, check: JournalCheck) -> None:
        self._stream, self._runs, self._spans, _ = wanted
        self._index = index
        self._check = check
        self._is_sequenced = wanted.is_sequenced

    def take(self, received: Received) -> None:
        """The next one."""
        entry, check = received.entry, self._check
        if entry is None:
            check.refused += 1
            return
        match = self._index.find(entry)
        if not received.place.connection and match is not Match.SAME:
            return  # of a page of history only what it brought into the stream is of interest
        if match is Match.NONE:
            if self._index.covers(entry):
                check.messages += 1
                self._not_there(entry, received)
            return
        check.messages += 1
        match match:
            case Match.AGAIN:
                check.copies += 1
            case Match.FETCHED:
                check.fetched += 1
            case Match.OTHER:
                check.other += 1
                _note(check.first_other, entry, received)
            case _:
                check.same += 1

    def _not_there(self, entry: Entry, received: Received) -> None:
        check = self._check
        if self._is_in_gap(entry):
            check.in_gaps += 1
        elif self._need_not_be():
            check.overtaken += 1
        else:
            check.missing += 1
            _note(check.first_missing, entry, received)

    def _is_in_gap(self, entry: Entry) -> bool:
        if self._is_sequenced:
            at = bisect_right(self._runs, entry.number, key=lambda run: run.first) - 1
            return at >= 0 and entry.number <= self._runs[at].last
        moment_us = entry.moment_us
        return any(from_us <= moment_us <= to_us for from_us, to_us in self._spans)

    def _need_not_be(self) -> bool:
        """Of states the newest counts; a window of depth may be cut in another way by another
        connection, and the chain of the changes tells whether all is covered.
        """
        is_state = self._stream.spec.identity is Identity.STATES
        return is_state or self._stream.type is StreamType.DEPTH


def _note(named: list[str], entry: Entry, received: Received) -> None:
    if len(named) < MOST_KEPT:
        name = f"{entry.ms}-{entry.number}" if entry.key else str(entry.number)
        named.append(f"{name} ({received.place.segment} at {received.place.offset})")
