"""Two bridges, `a` and `b`, in front of one exchange and one Redis, each with its own journal."""

import signal
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from tests.support.bridge_run import ACCOUNT_STREAMS, DEMO_KEYS, BridgeRun, running_bridge
from tests.support.eventually import eventually_async
from tests.support.redis_server import RedisServer
from tests.support.simulator_process import RunningSimulator, running_simulator

LIMIT_S = 120.0  # several processes on a machine that may be busy
STREAMS: Sequence[object] = (
    {"types": ["trade", "depth", "depth.200ms", "bookTicker", "ticker"], "markets": ["SOL_USDC"]},
    "markPrice.SOL_USDC_PERP",
    *ACCOUNT_STREAMS,
)
TICKING = 6  # of these streams are heard from soon
KEEP_ALL = {
    kind: {"max_entries": 2_000_000}
    for kind in ("trade", "depth", "bookTicker", "account.orderUpdate")
}


class Pair:
    """The two, as far as they run. `urls` says by which address each sees Redis, if not plainly."""

    def __init__(
        self,
        folder: Path,
        server: RedisServer,
        exchange: RunningSimulator,
        urls: Mapping[str, str],
    ) -> None:
        self.server = server
        self.exchange = exchange
        self.begun_us = 0
        self.bridges: dict[str, BridgeRun] = {}
        self._folder = folder
        self._urls = urls
        self._stack = AsyncExitStack()

    async def start(self, name: str) -> BridgeRun:
        """Start one and wait until it hears all that ticks."""
        bridge = await self._stack.enter_async_context(
            running_bridge(
                self._folder / name,
                self.exchange.ws_url,
                self._urls.get(name, self.server.url),
                STREAMS,
                instance=name,
                look_url=self.server.url,
                retention=KEEP_ALL,
            )
        )
        self.bridges[name] = bridge
        await eventually_async(lambda: bridge.is_confirmed(TICKING), f"{name} hears", LIMIT_S)
        self.begun_us = self.begun_us or time.time_ns() // 1000
        return bridge

    async def know_each_other(self) -> None:
        """Each has read the other's word, has heard its own journal, and has settled what the other
        heard without it.
        """
        for name, other, rank in (("a", "b", 0), ("b", "a", 1)):
            await eventually_async(
                lambda: self.rank(name) == (rank, [other]) and not self._is_deaf(name),  # noqa: B023
                f"{name} knows {other}",
                LIMIT_S,
            )

    def _is_deaf(self, name: str) -> bool:
        status = self.bridges[name].status()
        is_behind = bool(status["behind_bytes"])  # what is deaf shows when its journal is heard
        is_connected = all(each["connected"] for each in status["connections"])
        return bool(status["deaf"]) or is_behind or not is_connected

    async def kill(self, name: str) -> None:
        self.bridges[name].process.kill()
        self.bridges[name].process.wait()

    def freeze(self, name: str) -> None:
        self.bridges[name].process.send_signal(signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        self.bridges[name].process.send_signal(signal.SIGCONT)

    def rank(self, name: str) -> tuple[int, list[str]]:
        status = self.bridges[name].status()
        return status.get("rank", -1), status.get("peers", [])

    def line(self, name: str, stream: str) -> dict[str, Any]:
        """How one of them counts a stream."""
        line: dict[str, Any] = self.bridges[name].status()["streams"][stream]
        return line

    async def goes_on(self, count: int = 60) -> None:
        """So many more messages of an event stream, which only one of the bridges publishes."""
        with self.server.client() as client:
            before = client.xlen("bookTicker.SOL_USDC")
            await eventually_async(
                lambda: client.xlen("bookTicker.SOL_USDC") >= before + count,
                "publishing goes on",
                LIMIT_S,
            )

    async def finish(self) -> None:
        """The exchange ends, and all that was heard gets into Redis."""
        self.exchange.stop()
        for bridge in self.bridges.values():
            if bridge.process.poll() is None:
                await eventually_async(lambda: _is_through(bridge), "all is in Redis", LIMIT_S)  # noqa: B023
                assert await bridge.stop() == 0
                assert "Traceback" not in bridge.log()
        await self.close()

    async def close(self) -> None:
        await self._stack.aclose()


def _is_through(bridge: BridgeRun) -> bool:
    status = bridge.status()
    heard = any(each["trouble"] for each in status.get("connections", []))
    return bool(heard and not status["pending"] and not status["behind_bytes"])


@asynccontextmanager
async def pair(
    folder: Path, server: RedisServer, rate: int = 300, urls: Mapping[str, str] | None = None
) -> AsyncIterator[Pair]:
    """Both, knowing each other; `urls` as in `Pair`."""
    exchange_options = ("--rate", str(rate), "--accept-key", DEMO_KEYS["PUBLIC_KEY"])
    async with running_simulator(*exchange_options, ledger=folder / "ledger.jsonl") as exchange:
        both = Pair(folder, server, exchange, urls or {})
        try:
            await both.start("a")
            await both.start("b")
            await both.know_each_other()
            yield both
        finally:
            await both.close()
