"""What was heard while the journal cannot be written, and will never be in it.

Of frames it is remembered of which streams they were, and from when to when they came; what
happened to connections is kept whole, for frames mean nothing without it.
"""

import json
from collections import deque

from bridge.journal.loss import Loss
from bridge.journal.record import FRAMES, Kind, Record, render, render_record
from bridge.protocol.envelope import Data, parse

MAX_LINES = 10_000
MAX_BYTES = 16 * 1024 * 1024


class Unwritten:
    """What has been said to the lines, and is in no journal."""

    def __init__(self) -> None:
        self.loss = Loss()  # of all times
        self._spans: dict[str, tuple[int, int]] = {}
        self._lines: deque[tuple[Kind, bytes]] = deque()
        self._bytes = 0

    def add(self, record: Record) -> None:
        """One record, of any kind."""
        if record.kind in FRAMES:
            self.loss.add(record.received_us)
            if name := stream_of(record):
                self.add_span(name, record.received_us, record.received_us)
        elif record.kind is not Kind.STATE:  # of that, the newest is written
            self._add_line(record.kind, render_record(record))

    def add_span(self, name: str, from_us: int, to_us: int) -> None:
        """Frames of this stream, received from then until then."""
        first_us, last_us = self._spans.get(name, (from_us, to_us))
        self._spans[name] = min(first_us, from_us), max(last_us, to_us)

    def lines(self, now_us: int) -> list[bytes]:
        """What is to be written once that can be done: what is missing comes first."""
        lines = [line for _, line in self._lines]
        if not self._spans:
            return lines
        body = json.dumps(self._spans, separators=(",", ":")).encode()
        return [render(now_us, Kind.UNWRITTEN, 0, body), *lines]

    def clear(self) -> None:
        """The journal has it."""
        self._spans.clear()
        self._lines.clear()
        self._bytes = 0

    def _add_line(self, kind: Kind, line: bytes) -> None:
        self._lines.append((kind, line))
        self._bytes += len(line)
        while len(self._lines) > MAX_LINES or self._bytes > MAX_BYTES:
            self._drop_one()

    def _drop_one(self) -> None:
        """Replies are asked for again, and answers come again; the rest goes last."""
        for kind in (Kind.REST, Kind.ANSWERED):
            for each in self._lines:
                if each[0] is kind:
                    self._lines.remove(each)
                    self._bytes -= len(each[1])
                    return
        self._bytes -= len(self._lines.popleft()[1])


def stream_of(record: Record) -> str:
    """The stream a frame belongs to; empty where it belongs to none."""
    match parse(record.body):
        case Data(stream):
            return stream
        case _:
            return ""
