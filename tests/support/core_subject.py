"""A core with its queues, which receives frames and records, and an in-memory Redis."""

import json
from collections.abc import Sequence

from bridge.contract.causes import GapCause
from bridge.contract.streams import parse_stream
from bridge.core.books import SnapshotPlan
from bridge.core.core import Core
from bridge.core.entries import Slot
from bridge.core.outcomes import Applied
from bridge.core.peers import Peers
from bridge.core.plan import FROM_THE_START, CorePlan, ResumePoints
from bridge.core.queue import QueueTable, StreamQueue
from bridge.core.records import (
    Answered,
    BodyKind,
    CaughtUp,
    Frame,
    Lost,
    Opened,
    Record,
    RestBody,
    Subscribed,
)
from bridge.redis.append import Retention
from bridge.redis.outbox import Outbox, OutboxSettings
from tests.support import frames
from tests.support.memory_server import MemoryServer
from tests.support.slots import fields

NOW_US = 1_790_915_531_000_000
TRADES, DEPTHS, TICKERS = "trade.BTC_USDC_PERP", "depth.SOL_USDC", "ticker.BTC_USDC_PERP"
ORDERS, BALANCES, KLINES = "account.orderUpdate", "account.balanceUpdate", "kline.1m.SOL_USDC"
BOOK_TICKERS = "bookTicker.SOL_USDC"
MOST_REQUESTS = 1_000


class CoreSubject:
    """One core. `now_us`: its steady clock, and the wall clock of received records. `requests`: the
    streams that have requested data over REST so far.
    """

    def __init__(
        self,
        *names: str,
        connections: int = 1,
        hold_us: int = 0,
        every: int = 0,
        resume: ResumePoints = FROM_THE_START,
        redis: MemoryServer | None = None,
        takes_private: bool = True,
    ) -> None:
        self.now_us = NOW_US
        self.position = resume.position
        self.names = names
        self.table, self.peers = QueueTable(), Peers()
        self.redis = redis or MemoryServer()
        streams = [parse_stream(name) for name in names]
        plan = CorePlan(hold_us=hold_us, recover_us=30_000_000, snapshots=SnapshotPlan(every))
        self.core = Core(streams, plan, self.table, self.peers, resume, takes_private=takes_private)
        self.outbox = Outbox(self.table, self.peers, OutboxSettings("", 500, 1.0), Retention())
        self.requests: list[str] = []
        for number in range(1, connections + 1):
            self.open(number)

    # ---- input -----------------------------------------------------------------------------------

    def apply(self, record: Record, position: int | None = None) -> Applied:
        """Apply a record at the next position, or at `position`."""
        if position is None:
            position = self.position
            self.position += 1
        applied = self.core.apply(record, position, self.now_us)
        self.requests += self.core.requests()
        return applied

    def receive(
        self, frame: str | bytes, connection: int = 1, position: int | None = None
    ) -> Applied:
        body = frame.encode() if isinstance(frame, str) else frame
        return self.apply(Frame(self.now_us, connection, body), position)

    def open(self, connection: int, *names: str) -> None:
        self.apply(Opened(self.now_us, connection, f"public-{connection}", names or self.names))

    def answer(self, connection: int, at_us: int = 0) -> None:
        self.apply(Answered(self.now_us, connection, at_us or self.now_us))

    def subscribe(self, connection: int, *names: str) -> None:
        self.apply(Subscribed(self.now_us, connection, names))

    def lose(self, connection: int, cause: GapCause = GapCause.CONNECTION_LOST) -> None:
        self.apply(Lost(self.now_us, connection, cause))

    def rest(self, name: str, body: bytes, kind: BodyKind = BodyKind.MAIN) -> Applied:
        return self.apply(RestBody(self.now_us, name, kind, body))

    def tick(self, connection: int, at_us: int) -> None:
        """Receive a ticker of that event time, which proves that the connection receives."""
        self.receive(changed(frames.TICKER, E=at_us), connection)

    def catch_up(self) -> None:
        """Signal that the journal was read to its end."""
        self.apply(CaughtUp(self.now_us))

    # ---- output ----------------------------------------------------------------------------------

    def queue(self, name: str) -> StreamQueue:
        return self.core.queues[name]

    def waiting(self, name: str) -> list[tuple[str, int]]:
        """The slots of a queue: operation and number of each."""
        return [(str(slot.entry.op), slot.entry.number) for slot in self.queue(name).slots]

    def named(self, name: str) -> list[dict[str, str]]:
        """The fields of a queue's slots."""
        return [fields(slot) for slot in self.queue(name).slots]

    def logged(self) -> list[dict[str, str]]:
        return [fields(slot) for slot in self.core.gap_log.slots]

    def quarantined(self) -> list[dict[str, str]]:
        return [fields(slot) for slot in self.core.quarantine.slots]

    def slots(self) -> list[Slot]:
        return [slot for queue in self.table for slot in queue.slots]

    def publish(self) -> None:
        """Publish until the queues send nothing more at this time."""
        if not self.outbox.is_connected:
            self.outbox.connected(self.now_us)
        request = self.outbox.commands(self.now_us)
        for _ in range(MOST_REQUESTS):
            self.requests += self.core.requests()
            if request is None:
                return
            replies = self.redis.call(request.packed, request.replies)
            request = self.outbox.replies(replies, self.now_us)
        raise AssertionError("the queues never become empty")


def changed(frame: str, **values: object) -> str:
    message = json.loads(frame)
    message["data"] |= values
    return json.dumps(message, separators=(",", ":"))


def trade(number: int, at_us: int = NOW_US) -> str:
    return changed(frames.TRADE, t=number, T=at_us, E=at_us)


def depth(first: int, last: int | None = None, at_us: int = NOW_US) -> str:
    return changed(frames.DEPTH, U=first, u=last or first, T=at_us, E=at_us)


def book_ticker(update_id: int, at_us: int = NOW_US) -> str:
    return changed(frames.BOOK_TICKER, u=update_id, T=at_us, E=at_us)


def balance(amount: int, at_us: int = NOW_US) -> str:
    return changed(frames.BALANCE_UPDATE, A=str(amount), T=at_us + amount, E=at_us + amount)


def book_body(update_id: int, bids: Sequence[Sequence[str]] = ()) -> bytes:
    return json.dumps({"asks": [], "bids": bids, "lastUpdateId": str(update_id)}).encode()


def history(*numbers: int, ms: int = 1) -> bytes:
    return json.dumps(
        [
            {"id": n, "isBuyerMaker": False, "price": "1", "quantity": "1", "timestamp": ms}
            for n in numbers
        ]
    ).encode()
