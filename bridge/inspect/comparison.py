"""Compares the messages of a journal with those in Redis.

A long journal is read by two processes, each with half of it and its own index, and the results are
merged. More processes would exceed the memory that an audit may use.
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

LONG_BYTES = 32 * 2**20  # of lines: from here on a second process saves time

Index = SequencedIndex | ContentIndex


class Compared(NamedTuple):
    """Parameters of the comparison: the stream; the numbers and the spans of time in its gaps; the
    receive time of its last message in Redis.
    """

    stream: Stream
    runs: Sequence[Run]
    spans_us: Sequence[tuple[int, int]]
    last_us: int

    @property
    def is_sequenced(self) -> bool:
        return self.stream.spec.identity is Identity.SEQUENCED


def compare(
    compared: Compared, index: Index, segments: Sequence[Segment], check: JournalCheck
) -> None:
    """Fill `check`. Raises ConfigError where a file cannot be read."""
    middle = len(segments) // 2
    # Without numbers, equal messages are counted over a whole connection: one process reads all.
    if isinstance(index, SequencedIndex) and _is_long(segments) and (os.cpu_count() or 1) > 1:
        _compare_in_two(compared, index, segments[:middle], segments[middle:], check)
    else:
        _compare_all(compared, index, segments, check)
    check.add_elsewhere(index.unseen())


def _is_long(segments: Sequence[Segment]) -> bool:
    return len(segments) > 1 and segments[-1].start - segments[0].start >= LONG_BYTES


def _compare_in_two(
    compared: Compared,
    index: SequencedIndex,
    first: Sequence[Segment],
    second: Sequence[Segment],
    check: JournalCheck,
) -> None:
    pool = ProcessPoolExecutor(1, get_context("spawn"), initializer=_ignore_interrupt)
    with pool:
        # Pickled now: the pool would do it later, when this process has already set marks.
        pickled = pickle.dumps((compared, index, second, JournalCheck(check.where)))
        future = pool.submit(_compared_apart, pickled)
        del pickled
        _compare_all(compared, index, first, check)
        try:
            other, marks = future.result()
        except (BrokenProcessPool, OSError):  # no second process is possible here
            _compare_all(compared, index, second, check)
        else:
            check.add(other, seen_before=index.add_marks(marks))


def _ignore_interrupt() -> None:
    """Ignore Ctrl-C in the second process: the first one handles it and ends this one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _compared_apart(pickled: bytes) -> tuple[JournalCheck, Sequence[bytes]]:
    """Runs in the second process; returns the check and the marks of its index."""
    compared, index, segments, check = pickle.loads(pickled)
    settle_collector()
    _compare_all(compared, index, segments, check)
    return check, index.marks()


def _compare_all(
    compared: Compared, index: Index, segments: Sequence[Segment], check: JournalCheck
) -> None:
    stream = JournalStream(compared.stream, segments)
    one = _Comparison(compared, index, check)
    for received in stream.received():
        # Without numbers, messages after the last one in Redis may not have been published yet.
        if compared.is_sequenced or received.place.received_us <= compared.last_us:
            one.take(received)
    check.add_damaged(stream.damaged)


class _Comparison:
    """Compares received messages, one by one, with the index of those in Redis."""

    def __init__(self, compared: Compared, index: Index, check: JournalCheck) -> None:
        self._stream, self._runs, self._spans, _ = compared
        self._index = index
        self._check = check
        self._is_sequenced = compared.is_sequenced

    def take(self, received: Received) -> None:
        """Compare the next message and count the result."""
        entry, check = received.entry, self._check
        if entry is None:
            check.refused += 1
            return
        match = self._index.find(entry)
        if not received.place.connection and match is not Match.SAME:
            return  # a page of history counts only where it has filled the stream
        if match is Match.NONE:
            if self._index.covers(entry):
                check.messages += 1
                self._count_missing(entry, received)
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

    def _count_missing(self, entry: Entry, received: Received) -> None:
        check = self._check
        if self._is_in_gap(entry):
            check.in_gaps += 1
        elif self._may_be_absent():
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

    def _may_be_absent(self) -> bool:
        """Whether Redis may lack the message: of states only the newest is published, and depth
        windows are cut differently by each connection, while the chain of changes proves coverage.
        """
        is_state = self._stream.spec.identity is Identity.STATES
        return is_state or self._stream.type is StreamType.DEPTH


def _note(named: list[str], entry: Entry, received: Received) -> None:
    if len(named) < MOST_KEPT:
        name = f"{entry.ms}-{entry.number}" if entry.key else str(entry.number)
        named.append(f"{name} ({received.place.segment} at {received.place.offset})")
