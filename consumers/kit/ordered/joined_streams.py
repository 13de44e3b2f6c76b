"""Several streams assigned to this worker together: one lease, one state, entries merged by time.

Within a stream the order is that of the stream. Across streams entries are ordered by the times in
their IDs, which are the exchange's, in ms; within a millisecond by `engine_us`. An entry is handled
once every other stream has a later entry, or once it has waited for `join_wait_s`. An entry that
arrives too late for its place is handled on arrival.
"""

import time
from collections import deque
from collections.abc import Mapping, Sequence
from heapq import merge
from itertools import takewhile

from bridge.contract.whole_number import whole_number
from consumers.kit.api.consumer import ConsumerSpec
from consumers.kit.api.results import Write
from consumers.kit.handling.entry import Entry, JoinedEntry, fields_of
from consumers.kit.handling.limits import Limits
from consumers.kit.ordered.assigned_stream import AssignedStream
from consumers.kit.ordered.lease import Commit, Lease, Move
from consumers.kit.stats import Stats

PREFIX = "joined."  # of the name in the keys of their lease, state and results
_SAMPLES = 20  # samples per `join_wait_s`: the resolution of the time that an entry has waited


class JoinedStreams(AssignedStream):
    """The streams of one key of `joined_by`. `cursors` has a position per stream."""

    def __init__(
        self,
        lease: Lease,
        cursors: Mapping[str, str],
        spec: ConsumerSpec,
        stats: Stats,
        worker: str,
        limits: Limits | None = None,
    ) -> None:
        super().__init__(lease, spec, stats, worker, limits)
        self._cursors = dict(cursors)
        self._wait_s = spec.kind.join_wait_s
        self._samples: deque[tuple[float, Mapping[str, str]]] = deque()

    @property
    def streams(self) -> tuple[str, ...]:
        return tuple(self._cursors)

    @property
    def cursors(self) -> Mapping[str, str]:
        return self._cursors

    @property
    def object_stream(self) -> str:
        return self.stream.removeprefix(PREFIX)

    @property
    def goes_one_by_one(self) -> bool:
        """Always False: joined mode has no dead letters, so a deadly entry need not be found."""
        return False

    def batch(self, by_stream: Mapping[str, Sequence[Entry]], size: int) -> Sequence[Entry]:
        now_s = time.monotonic()
        if not self._samples or now_s >= self._samples[-1][0] + self._wait_s / _SAMPLES:
            self._samples.append(
                (now_s, {stream: some[-1][0] for stream, some in by_stream.items()})
            )
        ends = {s: by_stream[s][-1][0] if s in by_stream else at for s, at in self._cursors.items()}
        # A stream not read to its end may continue with any time after its last read entry. One
        # read to its end gets only later entries, and those still on their way to Redis.
        read_up_to = min(
            (_ms(ends[stream]) for stream, some in by_stream.items() if len(some) >= size),
            default=None,
        )
        settled_ms = min(map(_ms, ends.values()))
        waited = self._waited(now_s)
        merged = merge(
            *(
                [JoinedEntry.of(stream, entry) for entry in some]
                for stream, some in by_stream.items()
            ),
            key=merge_time,
        )

        def is_ripe(entry: JoinedEntry) -> bool:
            ms = _ms(entry[0])
            if read_up_to is not None and ms > read_up_to:
                return False
            return ms < settled_ms or _is_up_to(entry[0], waited.get(entry.stream, ""))

        return list(takewhile(is_ripe, merged))

    def _waited(self, now_s: float) -> Mapping[str, str]:
        """Stream → ID of its last entry that has waited for `join_wait_s`."""
        waited: Mapping[str, str] = {}
        while self._samples and self._samples[0][0] <= now_s - self._wait_s:
            waited = self._samples.popleft()[1]
        if waited:
            self._samples.appendleft((now_s - self._wait_s, waited))
        return waited

    def _commit_of(self, entries: Sequence[Entry], writes: Sequence[Write]) -> Commit:
        moves: dict[str, Move] = {}
        for entry in entries:
            assert isinstance(entry, JoinedEntry)
            before = moves.get(entry.stream)
            handled = before.handled if before else 0
            moves[entry.stream] = Move(entry.stream, entry[0], handled + 1)
        if not moves:  # a commit without entries: the script needs at least one move
            stream, at = next(iter(self._cursors.items()))
            moves[stream] = Move(stream, at, 0)
        last_id = entries[-1][0] if entries else self.position
        return Commit(
            self.lease, self.position, last_id, len(entries), writes, tuple(moves.values())
        )

    def _move(self, commit: Commit) -> None:
        super()._move(commit)
        self._cursors |= {move.stream: move.position for move in commit.moves}


def _ms(entry_id: str) -> int:
    return int(entry_id.partition("-")[0])


def _is_up_to(entry_id: str, last_id: str) -> bool:
    return bool(last_id) and _pair(entry_id) <= _pair(last_id)


def _pair(entry_id: str) -> tuple[int, int]:
    ms, _, sequence = entry_id.partition("-")
    return int(ms), int(sequence)


def merge_time(entry: JoinedEntry) -> tuple[int, int, str]:
    """The sort key for entries of several streams."""
    engine_us = whole_number(fields_of(entry).get("engine_us", "")) or 0
    return _ms(entry[0]), engine_us, entry.stream
