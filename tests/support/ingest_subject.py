"""A bridge with a Redis in memory, and short ways to create its messages."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bridge.core.books import SnapshotPlan
from bridge.core.plan import CorePlan
from tests.support import frames
from tests.support.memory_server import MemoryServer
from tests.support.stepped_bridge import SteppedBridge, SteppedClock

TRADES, ORDERS, TICKERS = "trade.BTC_USDC_PERP", "account.orderUpdate", "ticker.BTC_USDC_PERP"
NAMES = (TRADES, ORDERS, TICKERS)
NOW_US = 1790915531026999
SECOND_US = 1_000_000
FIRST = 99419870
PLAN = CorePlan(hold_us=0, recover_us=30_000_000, snapshots=SnapshotPlan(0))


class IngestSubject(SteppedBridge):
    """`trades(n)` receives n trades, each 1 µs later; `server` is the bridge's Redis."""

    server: MemoryServer

    def __init__(
        self,
        folder: Path | None,
        server: MemoryServer | None = None,
        names: Sequence[str] = NAMES,
        **settings: Any,
    ) -> None:
        self.server = server or MemoryServer()
        self.sent = 0
        clock = SteppedClock(NOW_US)
        super().__init__(folder, self.server, names, clock=clock, plan=PLAN, **settings)
        self.read_journal()

    def begin_again(self, *, with_checkpoint: bool = True) -> None:
        """Kill the process and start another one, which reads the journal."""
        if with_checkpoint:
            self.save_checkpoint()
        self.kill()
        self.start()
        self.read_journal()

    def read_journal(self, limit: int = 1000) -> None:
        while self.ingest.step(limit):
            pass

    # ---- input -----------------------------------------------------------------------------------

    def trades(self, count: int, connection: int = 1) -> None:
        for _ in range(count):
            self.receive(frames.TRADE.replace(str(FIRST), str(FIRST + self.sent)), connection)
            self.sent += 1
            self.now_us += 1

    def skip(self, count: int) -> None:
        """Omit the next `count` trades."""
        self.sent += count

    def order(self, number: int, connection: int = 1, *, is_private: bool = False) -> None:
        """Receive an order event with this order ID, at the current time."""
        frame = frames.ORDER_ACCEPTED.replace("59887375336", str(number))
        for stamp in ("1788368290063153", "1788368290062979"):
            frame = frame.replace(stamp, str(self.now_us))
        self.receive(frame, connection, is_private=is_private)

    def tick(self, connection: int = 1) -> None:
        self.receive(frames.TICKER.replace("1790134358087727", str(self.now_us)), connection)

    # ---- output ----------------------------------------------------------------------------------

    def waiting(self, name: str = TRADES) -> list[int]:
        return [slot.entry.number for slot in self.queue(name).slots]

    def named(self, name: str = ORDERS) -> list[dict[str, str]]:
        """The fields of a queue's slots."""
        return [slot.entry.fields() for slot in self.queue(name).slots]

    def queued(self, name: str = ORDERS) -> list[str]:
        """The entries of a queue: order IDs, and gaps by their cause."""
        return [entry.get("order_id") or entry.get("cause") or entry["type"]
                for entry in self.named(name)]  # fmt: skip

    def stored(self, name: str = ORDERS) -> list[str]:
        """The entries in Redis: order IDs, and gaps by their cause."""
        return [entry.get("order_id") or entry.get("cause") or entry["type"]
                for entry in self.server.entries(name)]  # fmt: skip

    def outages(self, name: str = ORDERS) -> list[tuple[int, int]]:
        """Begin and end of the gaps in a queue, µs."""
        return sorted(
            (int(entry["from_us"]), int(entry["to_us"]))
            for entry in self.named(name)
            if entry["type"] == "gap" and entry["from_us"]
        )

    def trade_ids(self) -> list[int]:
        """The IDs of the trades in Redis."""
        return [
            int(entry["trade_id"])
            for entry in self.server.entries(TRADES)
            if entry["type"] == "trade"
        ]

    def journaled(self) -> bytes:
        """The content of all files of the journal."""
        assert self._folder is not None
        return b"".join(path.read_bytes() for path in sorted(self._folder.glob("*.journal")))


def numbers(start: int, count: int) -> list[int]:
    return list(range(FIRST + start, FIRST + start + count))


def lose(subject: IngestSubject, *names: str) -> None:
    """Delete these streams and let the bridge poll Redis, which reveals the loss."""
    for name in names:
        subject.server.delete(name)
    subject.publish(500)


def subject_with_trades(folder: Path, count: int = 5) -> IngestSubject:
    """A subject that has published so many trades and an order."""
    subject = IngestSubject(folder)
    subject.connect()
    subject.trades(count)
    subject.order(1)
    subject.pump()
    return subject
