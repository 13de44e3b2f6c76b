"""A log in a folder without a bridge, and frames to append."""

import os
from pathlib import Path
from typing import NoReturn

import pytest

from bridge.core.records import Frame, Missing, Record, SegmentState
from bridge.journal.cursor import Cursor
from bridge.journal.log import Log
from bridge.journal.segments import SegmentWriter

NOW_US = 1_790_915_531_026_999
TRADES, ORDERS, TICKERS = "trade.SOL_USDC", "account.orderUpdate", "ticker.SOL_USDC"


class LogSubject:
    """A log whose frames follow each other by 1 µs."""

    def __init__(
        self,
        folder: Path | None,
        *,
        segment_bytes: int = 1_000_000,
        tail_limit_bytes: int = 1_000_000,
        syncs: bool = False,
        syncs_each_flush: bool = False,
    ) -> None:
        writer = None
        if folder is not None:
            writer = SegmentWriter(folder, segment_bytes, syncs=syncs or syncs_each_flush)
        self.count = 0
        self.log = Log(
            writer,
            tail_limit_bytes=tail_limit_bytes,
            clock_us=self.now_us,
            syncs_each_flush=syncs_each_flush,
        )

    def now_us(self) -> int:
        return NOW_US + self.count

    def frames(self, count: int = 1, stream: str = TRADES) -> list[int]:
        """Append `count` frames; their positions."""
        positions = []
        for _ in range(count):
            positions.append(self.log.append(frame(self.count, stream)))
            self.count += 1
        return positions

    def written(self, count: int = 1, stream: str = TRADES) -> list[int]:
        """Append and flush `count` frames; their positions."""
        positions = self.frames(count, stream)
        self.log.flush()
        return positions

    def roll(self) -> None:
        self.log.roll(self.state())

    def recover(self) -> bool:
        return self.log.recover(self.state())

    def state(self) -> SegmentState:
        return SegmentState(self.now_us(), {1: {TRADES: NOW_US}}, {}, ())

    def all_from(self, position: int) -> list[Record]:
        """The records that a cursor reads from there to the end."""
        return read_all(self.log.cursor(position))


def frame(number: int, stream: str = TRADES) -> Frame:
    """A frame with this number."""
    body = f'{{"data":{{"n":{number}}},"stream":"{stream}"}}'
    return Frame(NOW_US + number, 1, body.encode())


def read_all(cursor: Cursor) -> list[Record]:
    """All records from the cursor to the end."""
    records: list[Record] = []
    while found := cursor.read(100):
        records += [record for _, record in found]
    return records


def short_forms(records: list[Record]) -> list[int | str]:
    """Short forms of records: a frame's number, the streams of a Missing (* for all), otherwise the
    name of the type.
    """
    return [_short_form(record) for record in records]


def _short_form(record: Record) -> int | str:
    if isinstance(record, Frame):
        return record.received_us - NOW_US
    if isinstance(record, Missing):
        return "-" + (",".join(sorted(record.spans)) if record.spans is not None else "*")
    return type(record).__name__


def full(*_: object) -> NoReturn:
    raise OSError(28, "No space left on device")


def fill_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make all writes fail until `monkeypatch.undo()`."""
    monkeypatch.setattr(os, "write", full)
