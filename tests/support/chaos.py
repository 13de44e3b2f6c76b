"""A run with random faults: an exchange, a Redis, a bridge restarted after each kill, and for
comparison a naive loop.

The simulator's ledger is the reference. `CHAOS_SEED` repeats a run's random choices, `CHAOS_RATE`
sets the message rate.
"""

import asyncio
import os
import random
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from tests.support import naive_loop, tally
from tests.support.bridge_run import ACCOUNT_STREAMS, DEMO_KEYS, BridgeRun, running_bridge
from tests.support.eventually import eventually_async
from tests.support.redis_server import RedisServer
from tests.support.simulator_process import RunningSimulator, running_simulator

SEED = int(os.environ.get("CHAOS_SEED", time.time_ns() % 1_000_000))
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
JOURNAL = "data/journal"  # of the bridge, in the run's folder
RECEIVES_AGAIN = 0.8  # share of restarts that wait until the bridge receives
MEMORY_LIMIT_BYTES = 400 * 1024 * 1024


class Chaos:
    """A run in progress."""

    def __init__(
        self,
        folder: Path,
        server: RedisServer,
        exchange: RunningSimulator,
        rate: int,
        redis_url: str,
        loop_url: str,
    ) -> None:
        self.chance = random.Random(SEED)
        self.server = server
        self.peak_bytes = 0
        self.begun_us = 0
        self._folder = folder
        self._exchange = exchange
        self._redis_url = redis_url
        self._loop_url = loop_url
        self._stack = AsyncExitStack()
        self.bridge: BridgeRun | None = None
        self._loop: subprocess.Popen[bytes] | None = None
        print(f"CHAOS_SEED={SEED} CHAOS_RATE={rate}")

    async def begin(self) -> None:
        """Start the first bridge and the loop, and wait until both receive."""
        await self.start_bridge()
        self._start_loop()
        await eventually_async(
            lambda: self.bridge and self.bridge.is_confirmed(20), "the bridge receives", 40
        )
        await eventually_async(self._loop_writes, "the loop writes to Redis")
        await eventually_async(self._exchange_us, "the bridge writes to Redis")
        self.begun_us = self._exchange_us()

    async def start_bridge(self) -> None:
        self.bridge = await self._stack.enter_async_context(
            running_bridge(
                self._folder,
                self._exchange.ws_url,
                self.server.url,
                STREAMS,
                retention=KEEP_ALL,
                redis={"url": self._redis_url},
            )
        )

    async def a_moment(self, longest_s: float = 1.0) -> None:
        """Wait for a random time of at most `longest_s`, and measure the bridge's memory
        meanwhile.
        """
        ends_s = time.monotonic() + self.chance.uniform(0.05, longest_s)
        while time.monotonic() < ends_s:
            self._check_memory()
            await asyncio.sleep(0.05)

    async def kill_redis(self) -> None:
        self.server.kill()
        await self.a_moment(0.7)
        self.server.start()

    async def kill_bridge(self) -> None:
        """Kill and restart the bridge and the loop.

        Usually wait until both receive; otherwise the next fault may come before.
        """
        assert self.bridge is not None
        self.bridge.process.kill()
        self._kill_loop()
        await asyncio.to_thread(self.bridge.process.wait)
        await self.start_bridge()
        self._start_loop()
        if self.chance.random() < RECEIVES_AGAIN:
            bridge = self.bridge
            await eventually_async(lambda: bridge.status().get("frames"), "the bridge receives", 60)

    async def empty_redis(self) -> None:
        """Delete all data of Redis and wait until the bridge has noticed, which polls every
        few seconds.
        """
        before = self._bridge_log().count("redis_lost_entries")
        with self.server.client() as client:
            client.flushall()
        await eventually_async(
            lambda: self._bridge_log().count("redis_lost_entries") > before,
            "the bridge reports the loss",
            60,
        )

    async def finish(self) -> None:
        """End the exchange, wait until Redis has all received messages, and stop the bridge."""
        assert self.bridge is not None
        bridge = self.bridge
        await eventually_async(lambda: bridge.status().get("frames"), "the bridge receives", 60)
        before = self._loop_log().count("disconnected")
        self._exchange.stop()
        await eventually_async(
            lambda: _is_through(bridge), "all received messages are in Redis", 120
        )
        await eventually_async(
            lambda: self._loop_log().count("disconnected") > before,
            "the loop has lost its connection",
            120,
        )
        assert await bridge.stop() == 0
        await self.leave()
        assert "Traceback" not in self._bridge_log()
        assert self.peak_bytes < MEMORY_LIMIT_BYTES

    async def leave(self) -> None:
        """End all processes."""
        self._kill_loop()
        await self._stack.aclose()

    def _start_loop(self) -> None:
        command = [sys.executable, naive_loop.__file__, self._exchange.ws_url, self._loop_url]
        with (self._folder / "loop.log").open("ab") as log:
            self._loop = subprocess.Popen([*command, *tally.STREAMS], stdout=log, stderr=log)

    def _kill_loop(self) -> None:
        if self._loop is not None:
            self._loop.kill()
            self._loop.wait()
            self._loop = None

    def _exchange_us(self) -> int:
        """The newest event time of the exchange in Redis, µs; 0 until each stream has an entry.

        On a busy machine it is behind the clock.
        """
        with self.server.client(decode_responses=True) as client:
            newest: Any = [client.xrevrange(stream, count=1) for stream in tally.STREAMS]
        if not all(newest):
            return 0
        return max(int(fields["event_us"] or 0) for ((_, fields),) in newest)

    def _loop_writes(self) -> bool:
        with self.server.client() as client:
            return all(client.exists(naive_loop.PREFIX + stream) for stream in tally.STREAMS)

    def _bridge_log(self) -> str:
        return (self._folder / "bridge.log").read_text()

    def _loop_log(self) -> str:
        return (self._folder / "loop.log").read_text()

    def _check_memory(self) -> None:
        if self.bridge is None or self.bridge.process.poll() is not None:
            return
        try:
            status = Path(f"/proc/{self.bridge.process.pid}/statm").read_text()
        except OSError:
            return  # not on Linux, or the process has ended
        self.peak_bytes = max(self.peak_bytes, int(status.split()[1]) * 4096)


def _is_through(bridge: BridgeRun) -> bool:
    status = bridge.status()
    received = any(each["trouble"] for each in status.get("connections", []))
    return bool(received and not status["pending"] and not status["behind_bytes"])


@asynccontextmanager
async def chaos(
    folder: Path,
    server: RedisServer,
    rate: int = RATE,
    redis_url: str = "",
    loop_url: str = "",
) -> AsyncIterator[tuple[Chaos, RunningSimulator]]:
    """A run that has started; the caller calls `finish` and then compares.

    `redis_url`, `loop_url`: the server's address for the bridge and the loop, if not direct.
    """
    options = ("--rate", str(rate), "--accept-key", DEMO_KEYS["PUBLIC_KEY"])  # one account only
    async with running_simulator(*options, ledger=folder / "ledger.jsonl") as exchange:
        run = Chaos(folder, server, exchange, rate, redis_url or server.url, loop_url or server.url)
        try:
            await run.begin()
            yield run, exchange
        finally:
            await run.leave()


def compare(
    server: RedisServer, exchange: RunningSimulator, begun_us: int, what: str
) -> tuple[tally.Tally, tally.Tally]:
    """The tallies of bridge and loop. Writes a row for the table."""
    assert exchange.ledger is not None
    made = tally.made_since(exchange.ledger, begun_us)
    with server.client(decode_responses=True) as client:
        ours, theirs = tally.take(client, made)
    tally.leave_row(what, SEED, ours, theirs)
    return ours, theirs
