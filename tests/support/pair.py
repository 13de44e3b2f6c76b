"""Two bridges, `a` and `b`, with one exchange and one Redis, each with its own journal."""

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
SHOWN_US = 2_000_000  # after a freeze: then the status shows lost connections
TICKING = 6  # number of these streams that soon have a message
KEEP_ALL = {
    kind: {"max_entries": 2_000_000}
    for kind in ("trade", "depth", "bookTicker", "account.orderUpdate")
}


class Pair:
    """Up to two running bridges. `urls`: Redis address by name, if not direct; `programs`: program
    by name, if not this version of the bridge.
    """

    def __init__(
        self,
        folder: Path,
        server: RedisServer,
        exchange: RunningSimulator,
        urls: Mapping[str, str],
        streams: Sequence[object],
        programs: Mapping[str, Sequence[str]],
    ) -> None:
        self.server = server
        self.exchange = exchange
        self.begun_us = 0
        self.bridges: dict[str, BridgeRun] = {}
        self._folder = folder
        self._urls = urls
        self._streams = streams
        self._programs = programs
        self._stack = AsyncExitStack()
        self._thawed_us: dict[str, int] = {}  # when each frozen bridge was resumed

    async def start(self, name: str) -> BridgeRun:
        """Start a bridge and wait until it receives the periodic streams."""
        bridge = await self._stack.enter_async_context(
            running_bridge(
                self._folder / name,
                self.exchange.ws_url,
                self._urls.get(name, self.server.url),
                self._streams,
                instance=name,
                status_url=self.server.url,
                program=self._programs.get(name, ("-m", "bridge")),
                retention=KEEP_ALL,
            )
        )
        self.bridges[name] = bridge
        await eventually_async(lambda: bridge.is_confirmed(TICKING), f"{name} receives", LIMIT_S)
        self.begun_us = self.begun_us or time.time_ns() // 1000
        return bridge

    async def know_each_other(self) -> None:
        """Wait until each bridge has read the other's status and its own journal, and has no
        open outage.
        """
        for name, other, rank in (("a", "b", 0), ("b", "a", 1)):
            await eventually_async(
                lambda: self.rank(name) == (rank, [other]) and not self._is_behind(name),  # noqa: B023
                f"{name} has read the status of {other}",
                LIMIT_S,
            )

    def _is_behind(self, name: str) -> bool:
        status = self.bridges[name].status()
        is_of_before = status["updated_us"] < self._thawed_us.get(name, 0) + SHOWN_US
        # the status shows outages once the journal is read
        is_reading = bool(status["behind_bytes"])
        is_connected = all(each["connected"] for each in status["connections"])
        return is_of_before or bool(status["open_outages"]) or is_reading or not is_connected

    async def kill(self, name: str) -> None:
        self.bridges[name].process.kill()
        self.bridges[name].process.wait()

    def freeze(self, name: str) -> None:
        self.bridges[name].process.send_signal(signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        self.bridges[name].process.send_signal(signal.SIGCONT)
        self._thawed_us[name] = time.time_ns() // 1000

    def rank(self, name: str) -> tuple[int, list[str]]:
        status = self.bridges[name].status()
        return status.get("rank", -1), status.get("peers", [])

    def stream_status(self, name: str, stream: str) -> dict[str, Any]:
        """A stream's counters in the status of one bridge."""
        status: dict[str, Any] = self.bridges[name].status()["streams"][stream]
        return status

    async def goes_on(self, count: int = 60) -> None:
        """Wait for `count` more messages of an event stream, which only one bridge publishes."""
        with self.server.client() as client:
            before = client.xlen("bookTicker.SOL_USDC")
            await eventually_async(
                lambda: client.xlen("bookTicker.SOL_USDC") >= before + count,
                "more messages are published",
                LIMIT_S,
            )

    async def finish(self) -> None:
        """End the exchange, and wait until all received messages are in Redis."""
        self.exchange.stop()
        for bridge in self.bridges.values():
            if bridge.process.poll() is None:
                await eventually_async(lambda: _is_through(bridge), "all is published", LIMIT_S)  # noqa: B023
                assert await bridge.stop() == 0
                assert "Traceback" not in bridge.log()
        await self.close()

    async def close(self) -> None:
        await self._stack.aclose()


def _is_through(bridge: BridgeRun) -> bool:
    status = bridge.status()
    received = any(each["trouble"] for each in status.get("connections", []))
    return bool(received and not status["pending"] and not status["behind_bytes"])


@asynccontextmanager
async def pair(
    folder: Path,
    server: RedisServer,
    rate: int = 300,
    urls: Mapping[str, str] | None = None,
    markets: Sequence[str] = (),
    streams: Sequence[object] = STREAMS,
    programs: Mapping[str, Sequence[str]] | None = None,
    names: Sequence[str] = ("a", "b"),
) -> AsyncIterator[Pair]:
    """Both bridges, or those of `names`, each with the other's status; `urls` and `programs` as in
    `Pair`.

    The `markets` share the rate (none: all of the simulator): with fewer of them a test needs less
    time.
    """
    exchange_options = ["--rate", str(rate), "--accept-key", DEMO_KEYS["PUBLIC_KEY"]]
    exchange_options += [word for market in markets for word in ("--market", market)]
    async with running_simulator(*exchange_options, ledger=folder / "ledger.jsonl") as exchange:
        both = Pair(folder, server, exchange, urls or {}, streams, programs or {})
        try:
            for name in names:
                await both.start(name)
            if len(names) > 1:
                await both.know_each_other()
            yield both
        finally:
            await both.close()
