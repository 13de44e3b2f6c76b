"""One run: an exchange with every fault of the simulator, a bridge that receives from it, and the
verdict.

The exchange's ledger is the reference; `outage_judge` has the criteria.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import redis

from tests.support import plain_http
from tests.support.bridge_run import ACCOUNT_STREAMS, DEMO_KEYS, BridgeRun, running_bridge
from tests.support.eventually import eventually_async
from tests.support.exchange_ledger import ExchangeLedger
from tests.support.outage_judge import SEQUENCED, Judge
from tests.support.random_faults import random_script
from tests.support.redis_server import RedisServer
from tests.support.simulator_process import RunningSimulator, running_simulator

MARKETS = ("SOL_USDC", "BTC_USDC", "SOL_USDC_PERP")
STREAMS: Sequence[object] = (
    {"types": ["trade", "depth", "bookTicker", "ticker"], "markets": list(MARKETS)},
    {"types": ["markPrice"], "markets": ["SOL_USDC_PERP"]},
    "depth.200ms.BTC_USDC",
    *ACCOUNT_STREAMS,
)
NAMES = (
    *(f"{kind}.{name}" for kind in ("trade", "depth", "bookTicker", "ticker") for name in MARKETS),
    "markPrice.SOL_USDC_PERP",
    "depth.200ms.BTC_USDC",
    *ACCOUNT_STREAMS,
)
KEEP_ALL = {
    kind: {"max_entries": 2_000_000}
    for kind in ("trade", "depth", "bookTicker", "account.orderUpdate")
}
# A market that was silent before may be silent for ten times as long before it is suspected.
MEND_LIMIT_S = 150.0
CALM_RATE = 100


@dataclass(slots=True)
class Verdict:
    """The result of a run: its flaws, and its events."""

    flaws: list[str]
    judge: Judge
    faults: int
    log: str
    ended_us: int  # the engine's time at about the exchange's end

    def summary(self) -> str:
        judge = self.judge
        return (
            f"{self.faults} faults; gaps {dict(judge.gaps)}; {judge.from_history} trades from "
            f"history; {judge.snapshots} depth snapshots; dead at most, in s: "
            f"{ {kind: round(dead_s, 1) for kind, dead_s in judge.dead_s.items()} }"
            f"; judged until {self.judge.until_us}, ended at {self.ended_us}"
            + "".join(f"\n{flaw}" for flaw in self.flaws)
        )


@dataclass(frozen=True, slots=True)
class Stage:
    """An exchange, a bridge that receives all its streams, and the bridge's Redis."""

    exchange: RunningSimulator
    bridge: BridgeRun
    client: redis.Redis
    ledger: Path
    since_us: int  # engine time at which every stream was received

    async def is_whole(self, limit_s: float = MEND_LIMIT_S) -> None:
        """Wait until every stream is received and every book is known."""
        again = "every stream is received again"
        await eventually_async(lambda: _is_whole(self.exchange, self.bridge), again, limit_s)
        for name in NAMES:
            if name.startswith("depth."):
                await eventually_async(
                    partial(_book_is_known, self.client, name),
                    f"the book of {name} is known again",
                    limit_s,
                )

    async def verdict(self) -> Verdict:
        """Wait for recovery, stop exchange and bridge, and judge."""
        until_us = await self._recovered()
        ended_us = _engine_us(self.exchange)
        self.exchange.stop()
        await eventually_async(
            lambda: _is_through(self.bridge), "all received messages are in Redis", 120
        )
        assert await self.bridge.stop() == 0
        book = ExchangeLedger(self.ledger)
        judge = Judge(book, self.client, since_us=self.since_us, until_us=until_us)
        flaws = judge.flaws(NAMES)
        begun = sum(1 for note in book.notes if note.get("state") == "began")
        return Verdict(flaws, judge, begun, self.bridge.log(), ended_us)

    async def _recovered(self) -> int:
        """End all faults and slow the market down, so that the bridge can catch up.

        Returns an event time up to which all messages are received or marked as missing, once every
        stream is received and every book is known again. The exchange's end closes all connections,
        and each covers only what it has proved: so the end makes further gaps, which begin after
        the last time that the bridge claimed.
        """
        plain_http.delete(f"{self.exchange.rest_url}/simulator/faults").raise_for_status()
        self.exchange.fault("burst", rate=CALM_RATE)
        await self.is_whole()
        until_us = _engine_us(self.exchange)
        for name in NAMES:
            is_there = _has_arrived if name.startswith(SEQUENCED) else _is_claimed
            await eventually_async(
                partial(is_there, self.client, name, until_us),
                f"{name} is complete up to the time",
                60,
            )
        return until_us


@asynccontextmanager
async def stage(
    folder: Path, server: RedisServer, *, seed: int, rate: int, **exchange_settings: object
) -> AsyncIterator[Stage]:
    """Exchange, bridge and Redis, running, with every stream received."""
    ledger = folder / "ledger.jsonl"
    markets = [word for name in MARKETS for word in ("--market", name)]
    arguments = ["--rate", str(rate), "--seed", str(seed), *markets]
    arguments += ["--accept-key", DEMO_KEYS["PUBLIC_KEY"]]  # one account only
    async with running_simulator(*arguments, ledger=ledger) as exchange:
        settings: dict[str, object] = {
            "ws_url": exchange.ws_url,
            "rest_url": exchange.rest_url,
            "reconnect_initial_s": 0.05,
            "reconnect_max_s": 0.5,
            "open_timeout_s": 2,
            "ping_interval_s": 1,
            "ping_timeout_s": 4,
            "rest_timeout_s": 4,
            "handshakes_per_s": 20,
            "silence_s": 9,
            **exchange_settings,
        }
        async with running_bridge(
            folder, exchange.ws_url, server.url, STREAMS, exchange=settings, retention=KEEP_ALL
        ) as bridge:
            with server.client(decode_responses=True) as client:
                await eventually_async(
                    lambda: (
                        _is_whole(exchange, bridge)
                        and not bridge.status().get("open_outages", True)
                    ),
                    "every stream is received",
                    60,
                )
                # Events of the current step may have been sent before all streams were received.
                step_us = _engine_us(exchange)
                await _until(exchange, step_us + 1, limit_s=60)
                yield Stage(exchange, bridge, client, ledger, _engine_us(exchange))


async def run(
    folder: Path,
    server: RedisServer,
    *,
    seed: int,
    for_s: float,
    rate: int,
    with_faults: bool = True,
    **exchange_settings: object,
) -> Verdict:
    """Run for `for_s` seconds with random faults, and judge."""
    async with stage(folder, server, seed=seed, rate=rate, **exchange_settings) as one:
        if with_faults:
            one.exchange.play_faults(random_script(seed, for_s, MARKETS))
        await _until(one.exchange, one.since_us + int(for_s * 1e6), limit_s=10 * for_s + 60)
        return await one.verdict()


def _is_whole(exchange: RunningSimulator, bridge: BridgeRun) -> bool:
    """Whether the exchange has a subscription for every stream, and the bridge reports it
    connected.
    """
    subscribed = {name for each in exchange.connections() for name in each["streams"]}
    connected = [each for each in bridge.status().get("connections", []) if each["connected"]]
    return subscribed >= set(NAMES) and bool(connected)


def _book_is_known(client: redis.Redis, stream: str) -> bool:
    """Whether a snapshot follows the last gap of a depth stream."""
    end = "+"
    while True:
        page: Any = client.xrevrange(stream, end, "-", 2000)
        for _, fields in page:
            if fields["type"] != "depth":
                return bool(fields["type"] == "depth_snapshot")
        if not page:
            return False
        end = f"({page[-1][0]}"


def _has_arrived(client: redis.Redis, stream: str, until_us: int) -> bool:
    """Whether one of the newest entries is at least as new as `until_us`."""
    newest: Any = client.xrevrange(stream, count=20)
    return any(int(fields["event_us"] or 0) >= until_us for _, fields in newest)


def _is_claimed(client: redis.Redis, stream: str, until_us: int) -> bool:
    """Whether the bridge's watermark claims the stream as complete up to `until_us`."""
    claimed: Any = client.hget("bridge:watermarks", stream)
    return int(claimed or 0) >= until_us


async def _until(exchange: RunningSimulator, engine_us: int, limit_s: float) -> None:
    def is_there() -> bool:
        return _engine_us(exchange) >= engine_us

    await asyncio.sleep(0)
    await eventually_async(is_there, "the exchange has reached the time", limit_s)


def _engine_us(exchange: RunningSimulator) -> int:
    stats = plain_http.get(f"{exchange.rest_url}/simulator/stats", timeout=20).json()
    return int(stats["engine_us"])


def _is_through(bridge: BridgeRun) -> bool:
    status = bridge.status()
    received = any(each["trouble"] for each in status.get("connections", []))
    return bool(received and not status["pending"] and not status["behind_bytes"])
