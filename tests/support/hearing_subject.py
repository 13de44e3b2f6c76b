"""A hearing with its journal in a folder and without a loop, and what waits behind it."""

from pathlib import Path
from typing import NoReturn

from bridge.contract.streams import parse_stream
from bridge.journal.checkpoint import Checkpoint
from bridge.journal.hearing import Hearing
from bridge.journal.segments import SegmentWriter
from bridge.pipeline.intake import Intake
from tests.support import frames
from tests.support.items import answer, fields

TRADES, ORDERS, TICKERS = "trade.BTC_USDC_PERP", "account.orderUpdate", "ticker.BTC_USDC_PERP"
NAMES = [TRADES, ORDERS, TICKERS]
NOW_US = 1790915531026999
FIRST = 99419870
TARGET = "127.0.0.1:6379/0"


class Subject:
    """A hearing with its journal in a folder; `trades(n)` hears n trades."""

    def __init__(
        self,
        folder: Path | None,
        *,
        buffer_bytes: int = 10_000_000,
        keep_private: bool = True,
        segment_bytes: int = 1_000_000,
    ) -> None:
        self.intake = Intake(
            [parse_stream(name) for name in NAMES],
            hold_us=0,
            snapshot_every=0,
            ask=lambda _: None,
        )
        self.hearing = Hearing(
            self.intake,
            buffer_bytes=buffer_bytes,
            keep_private=keep_private,
            clock_us=lambda: NOW_US,
            on_items=lambda: None,
        )
        if folder is not None:
            self.hearing.attach(SegmentWriter(folder, segment_bytes), sync_each_flush=False)
        self.heard = 0

    def begin(self, checkpoint: Checkpoint | None = None, target: str = TARGET) -> "Subject":
        self.hearing.begin(checkpoint, target)
        self.catch_up()
        return self

    def catch_up(self) -> None:
        while self.hearing.catch_up(1000):
            pass

    def open(self, names: list[str] = NAMES) -> int:
        number = self.hearing.opened("public-1", names)
        self.hearing.answered(number, NOW_US)
        return number

    def trades(self, count: int, connection: int = 1) -> None:
        for _ in range(count):
            frame = frames.TRADE.replace(str(FIRST), str(FIRST + self.heard))
            self.hearing.hear(frame, NOW_US + self.heard, connection)
            self.heard += 1

    def waiting(self, name: str = TRADES) -> list[int]:
        return [item.position for item in self.intake.lines[name].pending]

    def all_settled(self, name: str = TRADES) -> None:
        line = self.intake.lines[name]
        items = line.take(NOW_US, 10_000)
        line.settle(answer("ok", f"9-{items[-1].position}0", "+" * len(items)), NOW_US)


def numbers(start: int, count: int) -> list[int]:
    return list(range(FIRST + start, FIRST + start + count))


def full(*_: object) -> NoReturn:
    raise OSError(28, "No space left on device")


def gaps(subject: Subject, name: str = ORDERS) -> list[tuple[int, int]]:
    """From when to when something may be missing, where both are known."""
    waiting = [fields(item) for item in subject.intake.lines[name].pending]
    return sorted(
        (int(entry["from_us"]), int(entry["to_us"]))
        for entry in waiting
        if entry["type"] == "gap" and entry["from_us"]
    )
