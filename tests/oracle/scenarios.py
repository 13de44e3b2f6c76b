"""The recorded scenarios: a bridge and a simulator, and the faults of both."""

import asyncio
import random
import resource
import signal
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.support.bridge_run import ACCOUNT_STREAMS, DEMO_KEYS, BridgeRun, running_bridge
from tests.support.eventually import eventually_async
from tests.support.random_faults import random_script
from tests.support.redis_server import RedisServer
from tests.support.simulator_process import RunningSimulator

MARKETS = ("SOL_USDC", "BTC_USDC", "ETH_USDC", "SOL_USDC_PERP", "BTC_USDC_PERP")
EVERY_TYPE: Sequence[object] = (
    {"types": ["trade", "depth", "depth.200ms", "depth.600ms", "depth.1000ms", "bookTicker",
               "ticker", "kline.1s", "kline.1m"], "markets": list(MARKETS)},
    {"types": ["markPrice", "openInterest"], "markets": ["SOL_USDC_PERP", "BTC_USDC_PERP"]},
    "liquidation", "externalTicker.AAPL.US_USDC_PERP", "stockPrice.NVDA",
    "stockIndicativeQuote.BRK.B", *ACCOUNT_STREAMS,
)  # fmt: skip
SOME: Sequence[object] = (
    {"types": ["trade", "depth", "bookTicker", "ticker"], "markets": ["SOL_USDC", "BTC_USDC"]},
    "markPrice.SOL_USDC_PERP", "depth.200ms.BTC_USDC", "liquidation", *ACCOUNT_STREAMS,
)  # fmt: skip
PUBLIC = ("trade.SOL_USDC", "depth.SOL_USDC", "bookTicker.SOL_USDC", "ticker.SOL_USDC")

RECEIVES_S = 40.0
MINUTE_S = 60.0
BIG = {
    kind: {"max_entries": 2_000_000}
    for kind in ("trade", "depth", "bookTicker", "ticker", "markPrice", "account.orderUpdate")
}
SEGMENT_BYTES = 65_536
SETTINGS: dict[str, dict[str, Any]] = {
    "snapshots": {"depth_levels": 20},
    "journal": {"segment_bytes": SEGMENT_BYTES},
    "retention": BIG,
}


@dataclass
class Rig:
    """An exchange, a Redis, and bridges by name, each with its own folder and journal."""

    folder: Path
    server: RedisServer
    exchange: RunningSimulator
    exchanges: Callable[..., RunningSimulator]  # starts another exchange with `seed` and `port`
    stack: AsyncExitStack
    seed: int
    streams: Sequence[object]
    sections: dict[str, dict[str, Any]]
    bridges: dict[str, BridgeRun]

    async def start(self, name: str = "a", **sections: dict[str, Any]) -> BridgeRun:
        """Start a bridge, also again; returns before it receives."""
        merged = {
            key: SETTINGS.get(key, {}) | self.sections.get(key, {}) | sections.get(key, {})
            for key in {*SETTINGS, *self.sections, *sections}
        }
        exchange = {
            "ws_url": self.exchange.ws_url,
            "rest_url": self.exchange.rest_url,
            "reconnect_initial_s": 0.05,
            "reconnect_max_s": 0.5,
        } | merged.pop("exchange", {})
        bridge = await self.stack.enter_async_context(
            running_bridge(
                self.folder / name,
                self.exchange.ws_url,
                self.server.url,
                self.streams,
                DEMO_KEYS,
                "run",
                name,
                "",
                **{"exchange": exchange, **merged},
            )
        )
        self.bridges[name] = bridge
        return bridge

    async def receives(self, name: str = "a", frames: int = 100) -> None:
        """Wait until a bridge has received `frames` frames; needs an available Redis."""
        bridge = self.bridges[name]
        await eventually_async(
            lambda: bridge.status().get("frames", 0) >= frames, f"{name} receives", RECEIVES_S
        )

    async def begin(self, name: str = "a", frames: int = 100, **sections: dict[str, Any]) -> None:
        await self.start(name, **sections)
        await self.receives(name, frames)

    async def goes_on(self, seconds: float) -> None:
        """Let all processes run; recordings are in real time."""
        await asyncio.sleep(seconds)

    async def kill(self, name: str = "a") -> None:
        bridge = self.bridges[name]
        bridge.process.kill()
        await asyncio.to_thread(bridge.process.wait)

    def reload(self, streams: Sequence[object], name: str = "a") -> None:
        """Change the bridge's streams."""
        path = self.folder / name / "config.yaml"
        config = yaml.safe_load(path.read_text()) | {"streams": list(streams)}
        path.write_text(yaml.safe_dump(config))
        self.bridges[name].process.send_signal(signal.SIGHUP)

    def limit_files(self, size: int, name: str = "a") -> None:
        """Limit the size of each file: the journal cannot be written, as on a full disk."""
        pid = self.bridges[name].process.pid
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    async def says(self, words: str, name: str = "a") -> None:
        await eventually_async(lambda: words in self.bridges[name].log(), words, MINUTE_S)


@dataclass(frozen=True)
class Scenario:
    """`rate`: the exchange's trades, book changes and best prices per second."""

    about: str
    run: Callable[[Rig], Awaitable[None]]
    rate: int = 40
    streams: Sequence[object] = SOME
    sections: dict[str, dict[str, Any]] | None = None


async def plain(rig: Rig) -> None:
    await rig.begin(frames=200)
    await rig.goes_on(8)


async def kills(rig: Rig) -> None:
    await rig.begin()
    await rig.goes_on(1)
    await rig.kill()
    await rig.begin(frames=50)
    rig.server.stop()
    await rig.goes_on(1)
    await rig.kill()
    await rig.start()
    await rig.goes_on(3)
    rig.server.start()
    await rig.receives(frames=50)
    await rig.kill()
    await rig.goes_on(1)
    await rig.begin(frames=150)


async def faults(rig: Rig) -> None:
    await rig.begin(frames=60)
    markets = ["SOL_USDC", "BTC_USDC"]
    rig.exchange.play_faults(random_script(rig.seed, 12, markets))
    await rig.goes_on(16)


async def misheard(rig: Rig) -> None:
    """One fault of each kind, in order, with every seed."""
    await rig.begin(frames=60)
    exchange = rig.exchange
    for kind in ("trade", "depth"):
        exchange.fault("drop", stream=f"{kind}.SOL_USDC", count=3, for_s=3)
        exchange.fault("duplicate", stream=f"{kind}.BTC_USDC", share=0.5, for_s=3)
        exchange.fault("reorder", stream=f"{kind}.BTC_USDC", by=3, count=5, for_s=3)
    exchange.fault("delay", stream="bookTicker.*", delay_s=0.3, share=0.2, for_s=3)
    await rig.goes_on(2)
    for form in ("garbage", "binary", "invalid_utf8", "truncated", "deep"):
        exchange.fault("corrupt", stream="trade.*", form=form, count=1, for_s=3)
        exchange.fault("corrupt", stream="ticker.*", form=form, count=1, for_s=3)
    exchange.fault("skip", stream="trade.SOL_USDC", ids=3)
    exchange.fault("skip", stream="depth.SOL_USDC", ids=2)
    await rig.goes_on(2)
    exchange.fault("hide", stream="depth.BTC_USDC", count=2, for_s=2)
    exchange.fault("hide", stream="trade.BTC_USDC", count=2, for_s=2)
    exchange.fault("stall", stream="trade.SOL_USDC", connection="open", then="lost", for_s=1)
    exchange.fault("forget", stream="ticker.SOL_USDC")
    await rig.goes_on(2)
    for how in ("close", "eof", "reset", "silent"):
        exchange.fault("close", how=how)
        await rig.goes_on(0.7)
    exchange.fault("rest_status", status=503, for_s=2)
    exchange.fault("close")
    exchange.fault("reject", stream="account.*", code=4003, count=1, for_s=3)
    exchange.fault("reject", stream="trade.SOL_USDC", code=4006, count=1, for_s=3)
    exchange.fault("ignore", stream="depth.SOL_USDC", count=1, for_s=3)
    await rig.goes_on(2.5)
    exchange.fault("error", code=4005)
    exchange.fault("refuse", status=503, for_s=1)
    await rig.goes_on(3)


async def clocks(rig: Rig) -> None:
    """The exchange's clock is wrong: by a little, by an hour, and beyond the plausible."""
    await rig.begin(frames=60)
    for ms in (-3_000, 400, 3_600_000, -3_600_000, 10**12, -(10**12)):
        rig.exchange.fault("clock_skew", ms=ms, for_s=0.8)
        await rig.goes_on(1.2)
    await rig.goes_on(1)


async def doubled(rig: Rig) -> None:
    await rig.begin(frames=100)
    rig.exchange.play_faults(random_script(rig.seed, 6, ["SOL_USDC"]))
    await rig.goes_on(3)
    await rig.kill()
    await rig.begin(frames=100)
    await rig.goes_on(5)


async def full_disk(rig: Rig) -> None:
    await rig.begin()
    rig.limit_files(20_000)
    await rig.says("journal_failed")
    await rig.goes_on(2)
    rig.limit_files(resource.RLIM_INFINITY)
    await rig.says("journal_recovered")
    await rig.goes_on(1)
    await rig.kill()
    await rig.begin()


async def full_disk_killed(rig: Rig) -> None:
    """Kills the bridge while the journal cannot be written; at first the journal's folder is
    missing.
    """
    in_the_way = rig.folder / "a" / "data"
    in_the_way.parent.mkdir(parents=True)
    in_the_way.write_text("not a folder")
    await rig.begin()
    in_the_way.unlink()
    await rig.goes_on(4)
    rig.limit_files(20_000)
    await rig.says("journal_failed")
    await rig.goes_on(1)
    await rig.kill()
    await rig.begin()


async def renumbered(rig: Rig) -> None:
    """The exchange restarts its numbers: once while the bridge receives, once while it does not."""
    await rig.begin(frames=200)
    port = int(rig.exchange.ws_url.rpartition(":")[2])
    rig.exchange.stop()
    rig.exchange = rig.exchanges(rig.seed + 100, port)
    await rig.goes_on(4)
    await rig.kill()
    rig.exchange.stop()
    rig.exchange = rig.exchanges(rig.seed + 200, port)
    await rig.begin(frames=100)
    await rig.goes_on(1)


async def account(rig: Rig) -> None:
    await rig.begin()
    rig.exchange.fault("close")
    await rig.goes_on(2)
    await rig.kill()
    await rig.goes_on(1)
    await rig.begin()
    rig.exchange.fault("reject", stream="account.*", code=4003, count=1, for_s=3)
    rig.exchange.fault("close")
    await rig.goes_on(4)


async def reloaded(rig: Rig) -> None:
    await rig.begin()
    fewer = [s for s in rig.streams if s != "liquidation" and s != "depth.200ms.BTC_USDC"]
    for streams in (
        [*rig.streams, "trade.ETH_USDC", "depth.ETH_USDC"],
        fewer[1:],
        [*fewer, "ticker.ETH_USDC", "depth.ETH_USDC"],
        rig.streams,
    ):
        rig.reload(streams)
        await rig.goes_on(2)
    await rig.kill()
    await rig.begin()
    rig.reload(fewer)
    await rig.goes_on(2)


async def books(rig: Rig) -> None:
    """Repeated snapshots, and trade IDs with skipped numbers."""
    await rig.begin()
    rig.exchange.fault("skip", stream="trade.SOL_USDC", ids=2, every_s=0.5, for_s=8)
    rig.exchange.fault("skip", stream="depth.BTC_USDC", ids=1, every_s=3, for_s=8)
    await rig.goes_on(5)
    await rig.kill()
    await rig.begin()
    await rig.goes_on(5)


async def sparse(rig: Rig) -> None:
    """Trade IDs skip numbers repeatedly; then trades are really lost."""
    await rig.begin()
    rig.exchange.fault("skip", stream="trade.SOL_USDC", ids=2, every_s=0.4, for_s=30)
    bridge = rig.bridges["a"]

    def is_sparse() -> bool:
        return bool(bridge.status()["streams"]["trade.SOL_USDC"]["sparse"])

    await eventually_async(is_sparse, "the stream counts as sparse", MINUTE_S)
    await rig.goes_on(2)
    rig.exchange.fault("hide", stream="trade.SOL_USDC", count=2, for_s=2)
    await rig.goes_on(2)
    rig.exchange.fault("close")
    await rig.goes_on(2)
    await rig.kill()
    await rig.begin()
    await rig.goes_on(12)


async def full_disk_outage(rig: Rig) -> None:
    """Redis is unavailable and the journal cannot be written: the memory limit is exceeded."""
    await rig.begin()
    rig.limit_files(60_000)
    rig.server.stop()
    await rig.says("journal_failed")
    await rig.goes_on(6)
    rig.limit_files(resource.RLIM_INFINITY)
    await rig.says("journal_recovered")
    rig.server.start()
    await rig.goes_on(2)


async def outage(rig: Rig) -> None:
    """Redis is unavailable for longer than the memory limit allows; then the journal is read."""
    await rig.begin()
    rig.server.stop()
    await rig.goes_on(6)
    rig.server.start()
    await rig.says("journal_caught_up")
    await rig.goes_on(1)
    rig.server.pause()
    await rig.goes_on(2)
    rig.server.resume()
    await rig.goes_on(1)


async def emptied(rig: Rig) -> None:
    await rig.begin(frames=200)
    with rig.server.client() as client:
        client.flushall()
    await rig.says("redis_lost_entries")
    await rig.goes_on(1)
    rig.server.kill()
    rig.server.start()
    await rig.goes_on(1)
    await rig.kill()
    with rig.server.client() as client:
        client.flushall()
    await rig.begin(frames=100)


async def two_bridges(rig: Rig) -> None:
    await rig.begin("a")
    await rig.begin("b")
    rig.exchange.fault("drop", stream="*.SOL_USDC", connection=1, share=0.1, for_s=4)
    await rig.goes_on(3)
    await rig.kill("a")
    await rig.goes_on(2)
    await rig.begin("a")
    await rig.goes_on(2)
    rig.exchange.fault("close")
    await rig.goes_on(2)


async def silent(rig: Rig) -> None:
    """Streams and connections that are silent for longer than the limit."""
    await rig.begin()
    rig.exchange.fault("forget", stream="bookTicker.SOL_USDC")
    rig.exchange.fault("forget", stream="depth.BTC_USDC")
    await rig.goes_on(3)
    rig.exchange.fault("stall", stream="[!a]*", connection="open", then="lost", for_s=3.0)
    await rig.goes_on(5)
    rig.exchange.fault("stall", connection="open", then="late", for_s=4)
    await rig.goes_on(5)


async def by_chance(rig: Rig) -> None:
    """Faults, kills, an unavailable and an emptied Redis, in any order."""
    chance = random.Random(rig.seed)
    await rig.begin(frames=60)
    rig.exchange.play_faults(random_script(rig.seed, 14, ["SOL_USDC", "BTC_USDC"]))
    for _ in range(6):
        await rig.goes_on(chance.uniform(0.5, 2.5))
        blow = chance.choice(("kill", "kill", "redis", "flush", "freeze"))
        if blow == "kill":
            await rig.kill()
            await rig.goes_on(chance.uniform(0, 1))
            await rig.start()
        elif blow == "redis":
            rig.server.kill()
            await rig.goes_on(chance.uniform(0.2, 2))
            rig.server.start()
        elif blow == "flush":
            with rig.server.client() as client:
                client.flushall()
        else:
            rig.server.pause()
            await rig.goes_on(chance.uniform(0.2, 2))
            rig.server.resume()
    await rig.goes_on(2)


QUICK: dict[str, dict[str, Any]] = {
    "exchange": {"silence_s": 1, "ping_interval_s": 1, "ping_timeout_s": 1},
    "publish": {"repair_s": 4.0},
}
SCENARIOS: dict[str, Scenario] = {
    "plain": Scenario("five markets, every type of stream", plain, streams=EVERY_TYPE),
    "kills": Scenario("bridge killed, Redis there and away", kills),
    "faults": Scenario("faults of the exchange by chance", faults, sections=QUICK),
    "misheard": Scenario("one fault of the exchange of each kind", misheard, sections=QUICK),
    "clocks": Scenario("the exchange's clock is off", clocks),
    "doubled": Scenario(
        "two connections a stream, faults and a kill", doubled,
        sections={**QUICK, "exchange": {**QUICK["exchange"], "connections_per_stream": 2}},
    ),
    "full-disk": Scenario("a journal that cannot be written for a while", full_disk),
    "full-disk-killed": Scenario("killed while the journal cannot be written", full_disk_killed),
    "renumbered": Scenario("numbers begin anew, lower", renumbered, streams=PUBLIC),
    "account": Scenario("account streams, in the journal", account),
    "account-apart": Scenario(
        "account streams, not in the journal", account, sections={"journal": {"private": False}}
    ),
    "reloaded": Scenario("streams added and left by reload", reloaded),
    "books": Scenario(
        "periodic depth snapshots, trade ids left out", books,
        sections={"snapshots": {"depth_every_updates": 40, "depth_every_s": 2}},
    ),
    "outage": Scenario(
        "Redis unavailable for longer than memory lasts", outage, rate=700, streams=PUBLIC,
        sections={"publish": {"buffer_bytes": 1024 * 1024}},
    ),
    "sparse": Scenario("trade ids that leave numbers out, and trades lost", sparse, streams=PUBLIC),
    "full-disk-outage": Scenario(
        "Redis unavailable and the journal not written", full_disk_outage, rate=500,
        sections={"publish": {"buffer_bytes": 1024 * 1024}},
    ),
    "emptied": Scenario("Redis has lost entries", emptied),
    "two-bridges": Scenario("two bridges on one Redis", two_bridges, sections=QUICK),
    "silent": Scenario("silent streams and connections", silent, sections=QUICK),
    "by-chance": Scenario("faults, kills and outages by chance", by_chance, sections=QUICK),
}  # fmt: skip
