"""Redis and the bridge killed at random while data flows: nothing lost unmarked, nothing doubled.

The oracle is the simulator's ledger. `CHAOS_SEED` repeats a run, `CHAOS_KILLS` and `CHAOS_RATE`
make it longer or faster. Each run prints its seed.
"""

import asyncio
import os
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.support import truth
from tests.support.bridge_run import (
    ACCOUNT_STREAMS,
    DEMO_KEYS,
    BridgeRun,
    entries,
    running_bridge,
)
from tests.support.eventually import eventually_async
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
NUMBERED = ("trade.", "depth.")
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


def verdict(server: RedisServer, exchange: RunningSimulator, begun_us: int) -> list[str]:
    """What is wrong with what Redis holds: one sentence each, at most a few for each stream.

    What unnumbered streams said before `begun_us`, when the first bridge listened, is not judged.
    """
    assert exchange.ledger is not None
    made: dict[str, list[dict[str, Any]]] = {}
    for line in truth.read_ledger(exchange.ledger):
        stream, data = line["frame"]["stream"], line["frame"]["data"]
        if not stream.startswith(NUMBERED) and data.get("E", 0) < begun_us:
            continue
        made.setdefault(stream, []).append(data)
    found: list[str] = []
    with server.client(decode_responses=True) as client:
        for stream in _streams(client):
            stored = entries(client, stream)
            judge = _numbered_faults if stream.startswith(NUMBERED) else _unnumbered_faults
            frames = made.get(stream, [])
            found += [f"{stream}: {fault}" for fault in judge(stream, frames, stored)][:3]
    return found


def _streams(client: redis.Redis) -> list[str]:
    names: Any = client.hkeys("bridge:streams")
    return sorted(name for name in names if client.exists(name))


def _numbered_faults(
    stream: str, made: Sequence[Mapping[str, Any]], stored: Sequence[truth.Entry]
) -> Iterator[str]:
    letter = "t" if stream.startswith("trade.") else "u"
    by_number = {data[letter]: data for data in made}
    position = None
    for entry_id, fields in stored:
        if fields["type"] == "depth_snapshot":
            continue
        if fields["type"] == "gap":
            if fields["from"] and int(fields["from"]) != (position or 0) + 1:
                yield f"gap {entry_id} begins at {fields['from']}, position is {position}"
            position = int(fields["to"]) if fields["to"] else position
            continue
        first = int(fields.get("first_update_id") or fields["trade_id"])
        number = int(fields.get("last_update_id") or fields["trade_id"])
        if position is not None and first != position + 1:
            yield f"{entry_id} is {first}, after {position}"
        position = number
        if fault := truth.fault(stream, by_number[number], fields):
            yield fault


def _unnumbered_faults(
    stream: str, made: Sequence[Mapping[str, Any]], stored: Sequence[truth.Entry]
) -> Iterator[str]:
    """Every event is there once, or inside an interval that says that nobody was listening."""
    there: dict[int, int] = {}
    deaf = []
    for _, fields in stored:
        if fields["type"] == "gap":
            deaf.append((int(fields["from_us"] or 0), int(fields["to_us"])))
        elif fields["type"] not in truth.OWN_TYPES:
            event_us = int(fields["event_us"])
            there[event_us] = there.get(event_us, 0) + 1
    for data in made:
        event_us = data["E"]
        if "e" not in data:
            continue  # a position as it stands, sent on subscribing
        if there.get(event_us, 0) > 1:
            yield f"{event_us} is there {there[event_us]} times: {data}"
        missing = event_us not in there
        if missing and not any(from_us <= event_us <= to_us for from_us, to_us in deaf):
            near = min(deaf, key=lambda each: abs(each[0] - event_us), default=None)
            yield f"{event_us} is missing, and no gap says so (nearest {near}): {data}"


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
