"""Injects faults: by keys of the terminal and buttons of the console, with a comparison of Redis
with the simulated exchange's trades.

Each fault ends after some seconds, and the demo waits for all at its end.
"""

import asyncio
import contextlib
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import httpx2

from bridge.console.levers import Lever
from bridge.view.reader import UNAVAILABLE
from demo import plan
from demo.stage import Stage
from demo.truth import MarketTruth, Tally

RESTART_S = 2.0
FROZEN_S = 5.0
STOPPED_S = 5.0
FRAMES = 20
_TRUTH_EVERY_S = 2.0
_PAGE = 1000  # rows of history, entries of a stream
_CONSUMER = "candles"
_OVER = ""  # in place of a lever's name: no more faults

LEVERS = (
    Lever(
        "drop",
        "Drop frames",
        f"{FRAMES} frames of trades and {FRAMES} of books do not reach the bridge: trades come "
        "from the exchange's history, a book by its next snapshot",
    ),
    Lever("bridge", "Kill the bridge", f"kill -9; it is started again after {RESTART_S:g} s"),
    Lever("redis", "Freeze Redis", f"it answers nothing for {FROZEN_S:g} s"),
    Lever(
        "consumer",
        "Stop a consumer",
        f"{_CONSUMER} stops, and another begins in its place after {STOPPED_S:g} s",
    ),
)
KEYS: Mapping[str, str] = {"d": "drop", "b": "bridge", "r": "redis", "c": "consumer"}
KEYS_LINE = "break: d drops frames, b kills the bridge, r freezes Redis, c stops a consumer"


class Breaker:
    """Starts and ends the faults of one demo, in `run`."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._queue: asyncio.Queue[str] = asyncio.Queue()
        self._at_work: dict[str, str] = {}  # lever → its current action
        self._is_over = False
        self._truth = {symbol: MarketTruth() for symbol in plan.MARKETS}
        self._after = dict.fromkeys(plan.MARKETS, "-")
        self._ways: Mapping[str, Callable[[], Awaitable[None]]] = {
            "drop": self._drop,
            "bridge": self._kill_bridge,
            "redis": self._freeze_redis,
            "consumer": self._stop_consumer,
        }

    @property
    def all(self) -> Sequence[Lever]:
        """The faults that can be injected."""
        return LEVERS

    @property
    def state(self) -> str:
        """The current faults, and the state of all trades by the exchange's record."""
        now = "; ".join(self._at_work.values())
        return f"{now or 'nothing is broken'} · the exchange says {self.tally.text()}"

    @property
    def tally(self) -> Tally:
        """The tally of all markets."""
        return sum((truth.tally for truth in self._truth.values()), Tally())

    async def pull(self, name: str) -> str:
        """Inject a fault; returns a sentence. Raises KeyError for an unknown name."""
        lever = {one.name: one for one in LEVERS}[name]
        self.request(name)
        return f"{lever.label}: {lever.hint}"

    def request(self, name: str) -> None:
        """Queue a fault, unless it is active already."""
        if name not in self._at_work and not self._is_over:
            self._at_work[name] = ""
            self._queue.put_nowait(name)

    async def run(self, stop: asyncio.Event) -> None:
        """Inject queued faults until `stop`; returns when all have ended."""
        async with asyncio.TaskGroup() as tasks:
            truth = tasks.create_task(self._poll_trades(), name="truth")
            tasks.create_task(self._break_all(), name="breaking")
            await stop.wait()
            self._is_over = True
            self._queue.put_nowait(_OVER)
            truth.cancel()

    async def _break_all(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            while (name := await self._queue.get()) != _OVER:
                tasks.create_task(self._break(name), name=name)

    async def _break(self, name: str) -> None:
        try:
            await self._ways[name]()
        finally:
            self._at_work.pop(name, None)

    async def _drop(self) -> None:
        self._at_work["drop"] = f"{FRAMES} frames of trades and of books are dropped"
        faults = [
            {"fault": "drop", "stream": stream, "count": FRAMES}
            for stream in ("trade.*", "depth.*")
        ]
        with contextlib.suppress(httpx2.HTTPError):
            async with httpx2.AsyncClient(trust_env=False) as client:
                await client.post(f"http://{self._stage.simulator}/simulator/faults", json=faults)
        await asyncio.sleep(RESTART_S)

    async def _kill_bridge(self) -> None:
        self._at_work["bridge"] = "the bridge was killed"
        killed_us = time.time_ns() // 1000
        self._stage.take_out("bridge").kill()
        await asyncio.sleep(RESTART_S)
        command = plan.bridge_command(sys.executable, self._stage.config)
        self._stage.begin("bridge", command, with_keys=True)
        self._at_work["bridge"] = "the bridge starts again"
        await self._stage.until_bridge_is_well(killed_us)

    async def _freeze_redis(self) -> None:
        self._at_work["redis"] = "Redis is frozen"
        self._stage.freeze_redis()
        try:
            await asyncio.sleep(FROZEN_S)
        finally:
            self._stage.thaw_redis()

    async def _stop_consumer(self) -> None:
        self._at_work["consumer"] = f"the consumer {_CONSUMER} is stopped"
        await self._stage.take_out(_CONSUMER).stop()
        await asyncio.sleep(STOPPED_S)
        command = plan.consumer_command(sys.executable, self._stage.config, _CONSUMER)
        self._stage.begin(_CONSUMER, command)
        self._at_work["consumer"] = f"the consumer {_CONSUMER} starts again"
        await self._stage.until_consumer_works(_CONSUMER)

    async def _poll_trades(self) -> None:
        async with httpx2.AsyncClient(trust_env=False, timeout=5) as client:
            while True:
                for symbol, truth in self._truth.items():
                    with contextlib.suppress(httpx2.HTTPError, ValueError, KeyError, *UNAVAILABLE):
                        await self._compare(client, symbol, truth)
                await asyncio.sleep(_TRUTH_EVERY_S)

    async def _compare(self, client: httpx2.AsyncClient, symbol: str, truth: MarketTruth) -> None:
        url = f"http://{self._stage.simulator}/simulator/trades"
        answer = await client.get(url, params={"symbol": symbol, "after": truth.known_to})
        rows = answer.raise_for_status().json()
        truth.traded((int(row["id"]), row["price"], row["quantity"]) for row in rows)
        stream = f"trade.{symbol}"
        entries: Any = await self._stage.client.xrange(stream, self._after[symbol], count=_PAGE)
        if entries:
            self._after[symbol] = f"({entries[-1][0]}"
            truth.stored(fields for _, fields in entries)
        truth.judge()
