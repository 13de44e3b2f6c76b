"""Two bridges, of which either one, or Redis, is killed, frozen, stopped and disconnected at
random.

One of the two always receives, so nothing may be missing and no stream may have a gap. `CHAOS_SEED`
repeats a run, `CHAOS_SECONDS` and `CHAOS_RATE` make it longer or faster.
"""

import asyncio
import os
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path

import pytest

from tests.support import tally
from tests.support.oracle import gaps, verdict
from tests.support.pair import Pair, pair
from tests.support.proxy import running_proxy
from tests.support.redis_server import RedisServer, running_redis

pytestmark = pytest.mark.timeout(900)

SEED = int(os.environ.get("CHAOS_SEED", time.time_ns() % 1_000_000))
SECONDS = float(os.environ.get("CHAOS_SECONDS", "20"))
RATE = int(os.environ.get("CHAOS_RATE", "5000"))
# An idle bridge takes 60 MB; the queues have their own limit, which this test never reaches.
MEMORY_LIMIT_BYTES = 400 * 1024 * 1024


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with running_redis(appendonly=True) as running_server:
        yield running_server


class Storm:
    """Random faults, one at a time; after each, both bridges run again."""

    def __init__(self, both: Pair, seed: int) -> None:
        self.peak_bytes = 0
        self._both = both
        self._chance = random.Random(seed)
        self._faults: Mapping[str, Callable[[], Awaitable[None]]] = {
            "kill": self._kill,
            "freeze": self._freeze,
            "restart": self._restart,
            "redis": self._kill_redis,
        }
        print(f"CHAOS_SEED={seed} CHAOS_SECONDS={SECONDS:g} CHAOS_RATE={RATE}")

    async def rage(self, seconds: float, *faults: str) -> None:
        ends_s = time.monotonic() + seconds
        while time.monotonic() < ends_s:
            await self._a_moment(0.05, 2.0)
            await self._faults[self._chance.choice(faults)]()
            await self._both.know_each_other()
            print(f"{time.monotonic():.1f}: both are there")
            self._check_memory()

    async def _a_moment(self, least_s: float, most_s: float) -> None:
        await asyncio.sleep(self._chance.uniform(least_s, most_s))

    def _one(self) -> str:
        return self._chance.choice("ab")

    async def _kill(self) -> None:
        name = self._one()
        await self._both.kill(name)
        await self._a_moment(0.0, 4.0)
        await self._both.start(name)

    async def _freeze(self) -> None:
        name = self._one()
        self._both.freeze(name)
        await self._a_moment(0.2, 8.0)
        self._both.thaw(name)

    async def _restart(self) -> None:
        name = self._one()
        assert await self._both.bridges[name].stop() == 0
        await self._both.start(name)

    async def _kill_redis(self) -> None:
        self._both.server.kill()
        await self._a_moment(0.05, 1.0)
        await asyncio.to_thread(self._both.server.start)

    def _check_memory(self) -> None:
        for bridge in self._both.bridges.values():
            try:
                pages = Path(f"/proc/{bridge.process.pid}/statm").read_text().split()[1]
            except OSError:
                continue  # not on Linux
            self.peak_bytes = max(self.peak_bytes, int(pages) * 4096)


@pytest.mark.parametrize(
    "faults",
    [("kill",), ("freeze",), ("kill", "freeze", "restart"), ("kill", "freeze", "redis")],
    ids="+".join,
)
async def test_one_receiving_bridge_of_two_loses_nothing(
    faults: tuple[str, ...], server: RedisServer, tmp_path: Path
) -> None:
    async with pair(tmp_path, server, RATE) as both:
        storm = Storm(both, SEED)
        await storm.rage(SECONDS, *faults)
        await both.finish()

    _leave_row(server, both, f"two bridges: {', '.join(faults)} for {SECONDS:g} s")
    assert verdict(server, both.exchange, both.begun_us) == []
    assert gaps(server) == []
    assert storm.peak_bytes < MEMORY_LIMIT_BYTES


async def test_each_reply_that_a_bridge_gets_may_be_lost_once(
    server: RedisServer, tmp_path: Path
) -> None:
    async with (
        running_proxy("127.0.0.1", server.port) as one,
        running_proxy("127.0.0.1", server.port) as other,
    ):
        urls = {"a": _url(one.port), "b": _url(other.port)}
        async with pair(tmp_path, server, RATE, urls) as both:
            for proxy in (one, other):
                proxy.lose_each_once()
                proxy.cut()
            await asyncio.sleep(SECONDS)
            for proxy in (one, other):
                proxy.lose_nothing()
            await both.finish()
        lost = one.replies_lost + other.replies_lost

    _leave_row(server, both, f"two bridges: {lost} replies lost")
    assert lost > SECONDS / 3
    assert verdict(server, both.exchange, both.begun_us) == []
    assert gaps(server) == []


def _leave_row(server: RedisServer, both: Pair, what: str) -> None:
    assert both.exchange.ledger is not None
    made = tally.made_since(both.exchange.ledger, both.begun_us)
    with server.client(decode_responses=True) as client:
        ours, _ = tally.take(client, made)
    tally.leave_row(what, SEED, ours, None)


def _url(port: int) -> str:
    return f"redis://127.0.0.1:{port}/0"
