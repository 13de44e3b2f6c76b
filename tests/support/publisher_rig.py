"""A publisher and an ingest with a real Redis: no feed, and a journal if a test needs one."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from bridge.contract.streams import parse_stream
from bridge.core.books import SnapshotPlan
from bridge.core.core import Core
from bridge.core.peers import Peers
from bridge.core.plan import CorePlan
from bridge.core.queue import StreamQueue, queue_table
from bridge.core.records import Answered, Frame, Opened
from bridge.ingest import Ingest, Ingests
from bridge.journal.log import Log, NullLog
from bridge.redis.append import Retention
from bridge.redis.connection import Target
from bridge.redis.durability import MEMORY, Durability
from bridge.redis.outbox import Outbox, OutboxSettings
from bridge.redis.publisher import Publisher
from bridge.redis.shards import Publishers, new_shards
from bridge.runtime.backoff import Backoff
from bridge.runtime.clock import SystemClock
from bridge.runtime.keyspace import KeySpace
from bridge.runtime.redis_url import with_tag
from tests.support import frames
from tests.support.eventually import eventually_async
from tests.support.redis_server import RedisServer

TRADES = "trade.BTC_USDC_PERP"
TICKERS = "ticker.BTC_USDC_PERP"
ORDERS = "account.orderUpdate"
NAMES = (TRADES, TICKERS, ORDERS)
FIRST = 99419870
BUFFER_BYTES = 100_000_000
PLAN = CorePlan(hold_us=100_000, snapshots=SnapshotPlan(0), recover_us=200_000)
STEP_RECORDS = 500
FIRST_PAUSE_S = 0.02


class Rig:
    """An ingest and its publisher; `trades(n)` receives n trades."""

    def __init__(
        self,
        url: str,
        *,
        names: Sequence[str] = NAMES,
        fingerprint: str = "",
        timeout_s: float = 2,
        durability: Durability = MEMORY,
        journal: Log | None = None,
        buffer_bytes: int = BUFFER_BYTES,
        prefix: str = "",
        shards: int = 1,
    ) -> None:
        self.clock = SystemClock()
        space = KeySpace(prefix, shards)
        self.table, peers = queue_table(space), Peers(space)
        self.core = Core([parse_stream(name) for name in names], PLAN, self.table, peers)
        self.ingest = Ingest(
            self.core,
            self.table,
            journal or NullLog(),
            buffer_bytes=buffer_bytes,
            clock=self.clock,
            target="here",
        )
        self.ingest.begin(None)
        self.read_journal()
        settings = OutboxSettings(prefix, 50, timeout_s, fingerprint, durability)
        ingests = Ingests(self.ingest, self.ingest)
        self.publisher: Publisher | Publishers
        if shards > 1:
            self.shards = new_shards(
                with_tag(url, prefix, shards),
                space,
                self.table,
                peers,
                ingests,
                settings,
                Retention(),
                connect_timeout_s=1,
                clock=self.clock,
                chance=random.Random(1),
                buffer_bytes=buffer_bytes,
            )
            self.publisher = self.shards.publisher
        else:
            self.outbox = Outbox(self.table, peers, settings, Retention())
            self.backoff = Backoff(FIRST_PAUSE_S, 0.2, random.Random(1))
            self.publisher = Publisher(
                self.outbox,
                self.table,
                ingests,
                Target.from_url(with_tag(url, prefix)),
                connect_timeout_s=5,
                clock=self.clock,
                backoff=self.backoff,
            )
        self.sent = 0
        self.connection = self.ingest.new_connection()
        if names:
            self.open(names)

    @property
    def trouble(self) -> str:
        return self.outbox.trouble

    @property
    def pending(self) -> int:
        return self.table.pending()

    def queue(self, name: str) -> StreamQueue:
        return self.core.queues[name]

    def open(self, names: Sequence[str] = NAMES) -> None:
        now_us = self.clock.wall_us()
        self.ingest.take(Opened(now_us, self.connection, "public-1", names))
        self.ingest.take(Answered(now_us, self.connection, now_us))

    def trades(self, count: int) -> None:
        """Receive `count` trades at once."""
        for _ in range(count):
            self.take(frames.TRADE.replace(str(FIRST), str(FIRST + self.sent)))
            self.sent += 1
        self.publisher.pump()

    def trades_of(self, markets: Sequence[str], count: int) -> None:
        """Receive `count` trades of each of these markets, with equal numbers."""
        for _ in range(count):
            for market in markets:
                frame = frames.TRADE.replace("BTC_USDC_PERP", market)
                self.take(frame.replace(str(FIRST), str(FIRST + self.sent)))
            self.sent += 1
        self.publisher.pump()

    def orders(self, count: int) -> None:
        for number in range(count):
            self.order(number)
        self.publisher.pump()

    def order(self, number: int, received_us: int | None = None) -> None:
        self.take(frames.ORDER_ACCEPTED.replace("59887375336", str(number)), received_us)

    def receive(self, frame: str, received_us: int | None = None) -> None:
        self.take(frame, received_us)
        self.publisher.pump()

    def take(self, frame: str, received_us: int | None = None) -> None:
        """Receive a frame without publishing it yet."""
        at_us = received_us or self.clock.wall_us()
        self.ingest.take(Frame(at_us, self.connection, frame.encode()))

    def read_journal(self) -> None:
        """Read the journal as far as the memory limit allows."""
        while self.ingest.step(STEP_RECORDS):
            pass

    async def settled(self) -> None:
        """Wait until Redis has everything received."""

        def fact() -> bool:
            self.read_journal()
            self.publisher.pump()
            return not self.pending and self.ingest.is_live

        await eventually_async(fact, "all received messages are in Redis")


@asynccontextmanager
async def running(rig: Rig) -> AsyncIterator[Rig]:
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(rig.publisher.run())
        yield rig
        task.cancel()


def trade_ids(server: RedisServer, prefix: str = "") -> list[int]:
    with server.client(decode_responses=True) as client:
        entries = client.xrange(prefix + TRADES)
    return [int(fields["trade_id"]) for _, fields in entries if fields["type"] == "trade"]


def order_ids(server: RedisServer) -> list[str]:
    with server.client(decode_responses=True) as client:
        return [fields["order_id"] for _, fields in client.xrange(ORDERS) if "order_id" in fields]


def all_trades(count: int) -> list[int]:
    return list(range(FIRST, FIRST + count))
