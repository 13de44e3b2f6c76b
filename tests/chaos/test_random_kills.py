"""Redis and the bridge killed at random while data flows: nothing lost unmarked, nothing doubled.

The oracle is the simulator's ledger. `CHAOS_SEED` repeats a run, `CHAOS_KILLS` and `CHAOS_RATE`
make it longer or faster. Each run prints its seed.
"""

import asyncio
import os
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.support.bridge_run import ACCOUNT_STREAMS, DEMO_KEYS, BridgeRun, running_bridge
from tests.support.eventually import eventually_async
from tests.support.oracle import verdict
from tests.support.redis_server import RedisServer, running_redis
from tests.support.simulator_process import RunningSimulator, running_simulator

SEED = int(os.environ.get("CHAOS_SEED", time.time_ns() % 1_000_000))
KILLS = int(os.environ.get("CHAOS_KILLS", "20"))
RATE = int(os.environ.get("CHAOS_RATE", "5000"))
MARKETS = ("SOL_USDC", "BTC_USDC", "ETH_USDC", "SOL_USDC_PERP", "BTC_USDC_PERP")
STREAMS: Sequence[object] = (
    {"types": ["trade", "depth", "bookTicker", "ticker"], "markets": list(MARKETS)},
    {"types": ["markPrice"], "markets": ["SOL_USDC_PERP", "BTC_USDC_PERP"]},
    *ACCOUNT_STREAMS,
)
KEEP_ALL = {
    kind: {"max_entries": 2_000_000}
    for kind in ("trade", "depth", "bookTicker", "account.orderUpdate")
}
MEMORY_LIMIT_BYTES = 400 * 1024 * 1024
EXCHANGE = ("--rate", str(RATE), "--accept-key", DEMO_KEYS["PUBLIC_KEY"])  # one account only


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with running_redis(appendonly=True) as running_server:
        yield running_server


class Chaos:
    """One run: an exchange, a Redis, and a bridge that is started again whenever it was killed."""

    def __init__(self, folder: Path, server: RedisServer, exchange: RunningSimulator) -> None:
        self.chance = random.Random(SEED)
        self.server = server
        self.peak_bytes = 0
        self.begun_us = 0
        self._folder = folder
        self._exchange = exchange
        self._stack = AsyncExitStack()
        self.bridge: BridgeRun | None = None
        print(f"CHAOS_SEED={SEED} CHAOS_KILLS={KILLS} CHAOS_RATE={RATE}")

    async def begin(self) -> None:
        """Start the first bridge and wait until it listens."""
        await self.start_bridge()
        await eventually_async(lambda: self.bridge and self.bridge.is_confirmed(20), "it hears")
        self.begun_us = time.time_ns() // 1000

    async def start_bridge(self) -> None:
        self.bridge = await self._stack.enter_async_context(
            running_bridge(
                self._folder, self._exchange.ws_url, self.server.url, STREAMS, retention=KEEP_ALL
            )
        )

    async def a_moment(self, longest_s: float = 1.0) -> None:
        """A random while, in which the bridge's memory is looked at."""
        ends_s = time.monotonic() + self.chance.uniform(0.05, longest_s)
        while time.monotonic() < ends_s:
            self._look_at_memory()
            await asyncio.sleep(0.05)

    async def kill_redis(self) -> None:
        self.server.kill()
        await self.a_moment(0.7)
        self.server.start()

    async def kill_bridge(self) -> None:
        assert self.bridge is not None
        self.bridge.process.kill()
        await asyncio.to_thread(self.bridge.process.wait)
        await self.start_bridge()

    async def finish(self) -> None:
        """The exchange ends; everything that was heard gets into Redis; the bridge stops."""
        assert self.bridge is not None
        bridge = self.bridge
        await eventually_async(lambda: bridge.status().get("frames"), "the bridge hears", 60)
        self._exchange.stop()
        await eventually_async(lambda: _is_through(bridge), "all that was heard is in Redis", 120)
        assert await bridge.stop() == 0
        await self._stack.aclose()
        log = (self._folder / "bridge.log").read_text()
        assert "Traceback" not in log
        assert self.peak_bytes < MEMORY_LIMIT_BYTES

    def _look_at_memory(self) -> None:
        if self.bridge is None or self.bridge.process.poll() is not None:
            return
        try:
            status = Path(f"/proc/{self.bridge.process.pid}/statm").read_text()
        except OSError:
            return  # not Linux, or just gone
        self.peak_bytes = max(self.peak_bytes, int(status.split()[1]) * 4096)


def _is_through(bridge: BridgeRun) -> bool:
    status = bridge.status()
    heard = any(each["trouble"] for each in status.get("connections", []))
    return bool(heard and not status["pending"] and not status["behind_bytes"])


async def run(server: RedisServer, folder: Path, faults: Sequence[str], kills: int) -> list[str]:
    ledger = folder / "ledger.jsonl"
    async with running_simulator(*EXCHANGE, ledger=ledger) as exchange:
        chaos = Chaos(folder, server, exchange)
        await chaos.begin()
        for _ in range(kills):
            await chaos.a_moment()
            fault = chaos.chance.choice(faults)
            await (chaos.kill_redis() if fault == "redis" else chaos.kill_bridge())
        await chaos.finish()
    return verdict(server, exchange, chaos.begun_us)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("faults", [("redis",), ("bridge",), ("redis", "bridge")], ids="+".join)
async def test_nothing_is_lost_unmarked_or_doubled(
    faults: tuple[str, ...], server: RedisServer, tmp_path: Path
) -> None:
    assert await run(server, tmp_path, faults, KILLS) == []


@pytest.mark.timeout(600)
async def test_a_redis_that_is_emptied_in_the_middle_is_filled_again(
    server: RedisServer, tmp_path: Path
) -> None:
    ledger = tmp_path / "ledger.jsonl"
    async with running_simulator(*EXCHANGE, ledger=ledger) as exchange:
        chaos = Chaos(tmp_path, server, exchange)
        await chaos.begin()
        for _ in range(3):
            await chaos.a_moment(2.0)
            with server.client() as client:
                client.flushall()
            await chaos.a_moment(6.0)
        await chaos.finish()

    assert [
        fault for fault in verdict(server, exchange, chaos.begun_us) if "no gap says so" in fault
    ] == []
    assert [fault for fault in verdict(server, exchange, chaos.begun_us) if "times" in fault] == []


@pytest.mark.timeout(600)
@pytest.mark.parametrize("how", ["frozen", "out of memory"])
async def test_a_redis_that_takes_nothing_for_twenty_seconds(
    how: str, server: RedisServer, tmp_path: Path
) -> None:
    ledger = tmp_path / "ledger.jsonl"
    async with running_simulator(*EXCHANGE, ledger=ledger) as exchange:
        chaos = Chaos(tmp_path, server, exchange)
        await chaos.begin()
        with server.client() as client:
            if how == "frozen":
                server.pause()
            else:
                client.config_set("maxmemory", 1)
            ends_s = time.monotonic() + 20
            while time.monotonic() < ends_s:
                await chaos.a_moment()
            if how == "frozen":
                server.resume()
            else:
                client.config_set("maxmemory", 0)
        await chaos.finish()

    assert verdict(server, exchange, chaos.begun_us) == []
