"""Where a message's time goes inside the bridge, station by station, in one process.

No socket and no Redis: what is missing to the end-to-end figure is the socket library and the loop.
"""

import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from benchmarks.workload import Workload
from bridge.journal.hearing import Hearing
from bridge.journal.segments import SegmentWriter
from bridge.pipeline.intake import Intake, stream_lines
from bridge.pipeline.items import Answer
from bridge.pipeline.tail import Tail
from bridge.pipeline.translate import translate
from bridge.pipeline.unnumbered import UnnumberedLine
from bridge.protocol.envelope import Data, parse
from bridge.publish.append import pack_append

BATCH = 256
AHEAD_BYTES = 1 << 30  # more than the workload: nothing is given up, no segment ends
CONNECTION = "public-1"
STATIONS = (
    "split the envelope",
    "validate",
    "identity, entry, line, book",
    "journal",
    "take",
    "pack the append call",
    "settle",
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
    runs = [_once(workload) for _ in range(rounds)]
    best = {name: min(run[name] for run in runs) for name in runs[0]}
    best["journal"] = best.pop("journaled") - best["heard"]
    best["identity, entry, line, book"] = (
        best.pop("heard") - best["split the envelope"] - best["validate"]
    )
    lines = ["| station | CPU µs/message |", "| --- | ---: |"]
    lines += [f"| {name} | {best[name]:.1f} |" for name in STATIONS]
    return [*lines, f"| together | {sum(best.values()):.1f} |"]


def _once(workload: Workload) -> Mapping[str, float]:
    """Batch by batch, as in the running bridge: what was published does not stay in memory."""
    frames = workload.frames
    watch = Watch(len(frames))
    now_us = time.time_ns() // 1000
    streams = stream_lines(workload.streams)
    bare, journaled = _hearing(workload), _hearing(workload)
    with tempfile.TemporaryDirectory() as folder:
        writer = SegmentWriter(Path(folder), AHEAD_BYTES)
        journaled.attach(writer, sync_each_flush=False)
        for start in range(0, len(frames), BATCH):
            batch = frames[start : start + BATCH]
            with watch.timing("split the envelope"):
                envelopes = [parse(frame) for frame in batch]
            datas = [each for each in envelopes if isinstance(each, Data)]
            with watch.timing("validate"):
                for data, frame in zip(datas, batch, strict=True):
                    translate(streams[data.stream], data, frame, now_us)
            with watch.timing("heard"):
                for frame in batch:
                    bare.hear(frame, now_us, 1)
            with watch.timing("journaled"):
                for frame in batch:
                    journaled.hear(frame, now_us, 1)
                journaled.journal.flush()
            _publish(bare.intake, now_us, Watch(1))
            _publish(journaled.intake, now_us, watch)
        journaled.journal.close()
    return watch.spent


def _hearing(workload: Workload) -> Hearing:
    intake = Intake(
        stream_lines(workload.streams).values(),
        hold_us=2_000_000,
        snapshot_every=50_000,
        ask=lambda name: None,
    )
    hearing = Hearing(
        intake,
        buffer_bytes=AHEAD_BYTES,
        keep_private=True,
        clock_us=lambda: time.time_ns() // 1000,
        on_items=lambda: None,
    )
    hearing.opened(CONNECTION, workload.streams)
    for symbol, book in workload.books.items():
        if f"depth.{symbol}" in intake.lines:
            hearing.rest_body(f"depth.{symbol}", book.encode())
    return hearing


def _publish(intake: Intake, now_us: int, watch: Watch) -> None:
    """Everything that waits; each batch is answered as appended."""
    for line in intake.every_line():
        if isinstance(line, UnnumberedLine) and line.tail_wanted(now_us):
            line.read_tail(Tail("0-0", ()))
        while line.pending:
            with watch.timing("take"):
                items = line.take(now_us, BATCH)
            with watch.timing("pack the append call"):
                pack_append(b"stream", b"200000", b"", items)
            answer = Answer("ok", len(items), f"{items[-1].ms}-{items[-1].position * 10}", "")
            answer = answer._replace(signs="+" * len(items))
            with watch.timing("settle"):
                line.settle(answer, now_us)
