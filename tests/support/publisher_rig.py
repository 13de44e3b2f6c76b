"""An intake and a publisher in front of a real Redis, without feed and journal."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from bridge.contract.streams import parse_stream
from bridge.pipeline.intake import Intake
from bridge.publish.append import Limits
from bridge.publish.durability import Durability
from bridge.publish.publisher import Publisher, PublishSettings
from bridge.publish.wire import Target
from bridge.runtime.backoff import Backoff
from tests.support import frames
from tests.support.eventually import eventually_async
from tests.support.redis_server import RedisServer

TRADES = "trade.BTC_USDC_PERP"
TICKERS = "ticker.BTC_USDC_PERP"
ORDERS = "account.orderUpdate"
FIRST = 99419870
MEMORY = Durability()


def now_us() -> int:
    return time.time_ns() // 1000


class Rig:
    """An intake and its publisher; `trades(n)` hears n trades."""

    def __init__(
        self,
        url: str,
        *,
        fingerprint: str = "",
        timeout_s: float = 2,
        durability: Durability = MEMORY,
        behind_bytes: Callable[[], int] = lambda: 0,
    ) -> None:
        self.intake = Intake(
            [parse_stream(name) for name in (TRADES, TICKERS, ORDERS)],
            hold_us=100_000,
            snapshot_every=0,
            ask=lambda _: None,
        )
        self.intake.opened(1, [TRADES, TICKERS, ORDERS])
        settings = PublishSettings(
            target=Target.from_url(url),
            key_prefix="",
            batch_entries=50,
            connect_timeout_s=1,
            command_timeout_s=timeout_s,
            account_fingerprint=fingerprint,
            durability=durability,
        )
        backoff = Backoff(0.02, 0.2, random.Random(1))
        self.publisher = Publisher(
            self.intake,
            settings,
            lambda _: Limits(),
            now_us,
            backoff,
            before_send=lambda: None,
            on_loss=self.accept_losses,
            behind_bytes=behind_bytes,
        )
        self.sent = 0

    def trades(self, count: int) -> None:
        for _ in range(count):
            number = FIRST + self.sent
            self.hear(frames.TRADE.replace(str(FIRST), str(number)))
            self.sent += 1

    def orders(self, count: int) -> None:
        for number in range(count):
            self.hear(frames.ORDER_ACCEPTED.replace("59887375336", str(number)))

    def hear(self, frame: str) -> None:
        self.intake.hear(frame, now_us(), 1, 0)
        self.publisher.wake()

    def accept_losses(self) -> None:
        for line in self.intake.every_line():
            if line.lost_at is not None:
                line.accept_loss()

    async def settled(self) -> None:
        await eventually_async(lambda: not self.publisher.pending(), "everything is in Redis")


@asynccontextmanager
async def running(rig: Rig) -> AsyncIterator[Rig]:
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(rig.publisher.run())
        yield rig
        task.cancel()


def trade_ids(server: RedisServer) -> list[int]:
    with server.client(decode_responses=True) as client:
        entries = client.xrange(TRADES)
    return [int(fields["trade_id"]) for _, fields in entries if fields["type"] == "trade"]


def order_ids(server: RedisServer) -> list[str]:
    with server.client(decode_responses=True) as client:
        return [fields["order_id"] for _, fields in client.xrange(ORDERS)]


def all_trades(count: int) -> list[int]:
    return list(range(FIRST, FIRST + count))
