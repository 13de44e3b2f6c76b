"""A Redis with a few literal entries and statuses, as a bridge and a worker would write them."""

import json
from collections.abc import Iterator

import pytest
import redis

TRADE = {
    "type": "trade",
    "symbol": "SOL_USDC",
    "price": "99.01",
    "quantity": "1.50",
    "trade_id": "7",
    "buyer_order_id": "",
    "seller_order_id": "",
    "buyer_is_maker": "true",
    "source": "",
    "event_us": "1700000000000300",
    "engine_us": "1700000000000100",
    "received_us": "1700000000000900",
    "extra": "",
}


BUSY_S = 60  # s: a live worker stays live for so long, since a command may start slowly


class Bus:
    """Writes what a bridge and its consumers write."""

    def __init__(self, client: "redis.Redis") -> None:
        self.client = client

    def register(self, *names: str) -> None:
        for name in names:
            self.client.hset("bridge:streams", name, "{}")

    def trade(self, stream: str, entry_id: str, **given: str) -> None:
        self.client.xadd(stream, dict(TRADE | given), id=entry_id)  # type: ignore[arg-type]

    def now_us(self) -> int:
        seconds, micros = self.client.time()  # type: ignore[misc]
        return int(seconds) * 1_000_000 + int(micros)

    def bridge(self, instance: str = "tokyo-1", age_s: float = 0, **given: object) -> None:
        at_us = self.now_us() - int(age_s * 1e6)
        connection = {"name": "public-1", "connected": True, "wanted": 2, "confirmed": 2}
        status = {
            "instance": instance,
            "pid": 4711,
            "started_us": at_us - 60_000_000,
            "updated_us": at_us,
            "exchange": "wss://ws.backpack.exchange",
            "connections": [connection],
            "streams": {"trade.SOL_USDC": {"published": 2, "late": 3, "gaps": 1}},
        }
        if not age_s:
            status["redis_us"] = at_us + BUSY_S * 1_000_000
        self.client.hset("bridge:status", instance, json.dumps(status | given))

    def worker(self, **given: object) -> None:
        status = {
            "group": "book",
            "consumer": "w1",
            "updated_us": self.now_us(),
            "handled": 2,
            "latency_ms": {"p50": 0.6, "p99": 4.1},
            "made": "SOL_USDC 98.97/98.99",
        }
        self.client.hset("consumers:status", "book/w1", json.dumps(status | given))
        self.beat()

    def beat(self, age_s: float = -BUSY_S) -> None:
        """Set the worker's last heartbeat to `age_s` seconds ago, by the clock of Redis."""
        at_ms = self.now_us() // 1000 - int(age_s * 1000)
        self.client.zadd("consumers:workers:book", {"w1/nonce": at_ms})


@pytest.fixture
def bus(redis_url: str) -> Iterator[Bus]:
    with redis.Redis.from_url(redis_url, decode_responses=True, protocol=2) as client:
        yield Bus(client)


@pytest.fixture
def full_bus(bus: Bus) -> Bus:
    """Two streams, one with two trades; a healthy bridge; a worker; nothing in quarantine."""
    bus.register("trade.SOL_USDC", "depth.SOL_USDC")
    bus.trade("trade.SOL_USDC", "1700000000000-70", trade_id="7")
    bus.trade("trade.SOL_USDC", "1700000000000-80", trade_id="8", quantity="2.5")
    bus.bridge()
    bus.worker()
    return bus
