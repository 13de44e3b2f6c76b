"""The time of a message inside the bridge, stage by stage, in one process.

Without socket and Redis: the rest of the end-to-end figure is the socket library and the loop.
"""

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import hiredis

from benchmarks.workload import Workload
from bridge.contract.streams import parse_stream
from bridge.core.books import SnapshotPlan
from bridge.core.core import Core
from bridge.core.peers import Peers
from bridge.core.plan import CorePlan
from bridge.core.queue import QueueTable, StreamQueue
from bridge.core.records import BodyKind, Opened, RestBody
from bridge.ingest import Ingest
from bridge.journal.log import Log, NullLog
from bridge.journal.segments import SegmentWriter
from bridge.protocol.one_pass import read_usual
from bridge.redis.append import Retention
from bridge.redis.outbox import Outbox, OutboxSettings
from bridge.runtime.clock import SystemClock
from bridge.runtime.collector import settle_collector

PLAN = CorePlan(hold_us=2_000_000, recover_us=30_000_000, snapshots=SnapshotPlan(50_000))
BATCH = 256
AHEAD_BYTES = 1 << 30  # more than the workload: nothing is dropped, no segment ends
CONNECTION = 1
STATIONS = (
    "validate envelope and message",
    "identity, entry, queue, book",
    "journal",
    "pack the append calls",
    "settle, and pack the next",
)


class Watch:
    """Processor time by station, µs a message."""

    def __init__(self, messages: int) -> None:
        self.spent: dict[str, float] = {}
        self._messages = messages

    @contextmanager
    def timing(self, station: str) -> Iterator[None]:
        begun_ns = time.process_time_ns()
        yield
        spent_us = (time.process_time_ns() - begun_ns) / 1000 / self._messages
        self.spent[station] = self.spent.get(station, 0.0) + spent_us


def measure(workload: Workload, rounds: int) -> list[str]:
    """The table's lines; the best of so many rounds, since what disturbs only adds."""
    settle_collector()  # as the bridge does
    runs = [_once(workload) for _ in range(rounds)]
    best = {name: min(run[name] for run in runs) for name in runs[0]}
    best["journal"] = best.pop("journaled") - best["received"]
    best["identity, entry, queue, book"] = (
        best.pop("received") - best["validate envelope and message"]
    )
    lines = ["| station | CPU µs/message |", "| --- | ---: |"]
    lines += [f"| {name} | {best[name]:.1f} |" for name in STATIONS]
    return [*lines, f"| together | {sum(best.values()):.1f} |"]


def _once(workload: Workload) -> Mapping[str, float]:
    """Run batch by batch, as in the running bridge, so that published entries leave memory."""
    frames = workload.frames
    watch = Watch(len(frames))
    now_us = time.time_ns() // 1000
    with tempfile.TemporaryDirectory() as folder:
        journal = Log(
            SegmentWriter(Path(folder), AHEAD_BYTES),
            tail_limit_bytes=AHEAD_BYTES,
            clock_us=SystemClock().wall_us,
        )
        bare, journaled = _Subject(workload, NullLog()), _Subject(workload, journal)
        for start in range(0, len(frames), BATCH):
            batch = frames[start : start + BATCH]
            with watch.timing("validate envelope and message"):
                for frame in batch:
                    read_usual(frame)
            with watch.timing("received"):
                bare.receive(batch, now_us)
            with watch.timing("journaled"):
                journaled.receive(batch, now_us)
                journal.flush()
            bare.publish(now_us, Watch(1))
            journaled.publish(now_us, watch)
        journal.close()
    return watch.spent


class _Subject:
    """One ingest with its outbox."""

    def __init__(self, workload: Workload, journal: Log | NullLog) -> None:
        self._table, peers = QueueTable(), Peers()
        self._queues: dict[str, StreamQueue] = {}
        streams = [parse_stream(name) for name in workload.streams]
        core = Core(streams, PLAN, self._table, peers)
        self._ingest = Ingest(
            core, self._table, journal, buffer_bytes=AHEAD_BYTES, clock=SystemClock()
        )
        self._outbox = Outbox(self._table, peers, OutboxSettings("", BATCH, 5.0), Retention())
        now_us = time.time_ns() // 1000
        self._ingest.take(Opened(now_us, CONNECTION, "public-1", workload.streams))
        for symbol, book in workload.books.items():
            if f"depth.{symbol}" in core.queues:
                body = RestBody(now_us, f"depth.{symbol}", BodyKind.MAIN, book.encode())
                self._ingest.take(body)
        self._outbox.connected(now_us)

    def receive(self, frames: Sequence[bytes], now_us: int) -> None:
        self._ingest.take_frames(now_us, CONNECTION, frames)

    def publish(self, now_us: int, watch: Watch) -> None:
        """Publish everything that waits; each batch is answered as appended."""
        with watch.timing("pack the append calls"):
            request = self._outbox.commands(now_us)
        self._queues = {queue.name: queue for queue in self._table}
        while request is not None:
            replies = [self._reply(command) for command in _commands(request.packed)]
            with watch.timing("settle, and pack the next"):
                request = self._outbox.replies(replies, now_us)

    def _reply(self, command: Sequence[bytes]) -> object:
        match command:
            case [b"EVALSHA", _, count, *keys_and_entries]:
                return [self._appended(key.decode()) for key in keys_and_entries[: int(count)]]
            case [b"XINFO", *_]:
                return hiredis.ReplyError("ERR no such key")
            case [b"XREVRANGE", *_]:
                return []
        return b"OK"

    def _appended(self, name: str) -> list[object]:
        queue = self._queues[name]
        slots = list(islice(queue.slots, queue.in_flight))
        return [b"ok", len(slots), b"1-%d" % (slots[-1].entry.number * 10), b"+" * len(slots)]


def _commands(packed: bytes) -> Iterator[list[bytes]]:
    """The commands in a packed request of the Redis protocol."""
    reader = hiredis.Reader()
    reader.feed(packed)
    while isinstance(command := reader.gets(), list):
        yield command
