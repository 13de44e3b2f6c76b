"""A fleet of bridges that share the streams of one exchange, each with its own journal."""

import json
import signal
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import yaml

from bridge.contract.streams import parse_stream
from bridge.runtime.share import Share
from tests.support.bridge_run import ACCOUNT_STREAMS, DEMO_KEYS, BridgeRun, running_bridge
from tests.support.command import run_bridge
from tests.support.eventually import eventually_async
from tests.support.pair import KEEP_ALL, LIMIT_S
from tests.support.redis_server import RedisServer
from tests.support.simulator_process import RunningSimulator, running_simulator

MARKETS = (
    "SOL_USDC", "BTC_USDC", "ETH_USDC", "USDT_USDC", "SOL_USDC_PERP", "BTC_USDC_PERP",
    "kSHIB_USDC_PERP", "AAPL.US_USDC_PERP",
)  # fmt: skip
RATE = 400  # messages a second
TYPES = ("trade", "depth", "bookTicker", "ticker")
STREAMS = [f"{kind}.{market}" for market in MARKETS for kind in TYPES] + list(ACCOUNT_STREAMS)


def shares(members: Sequence[str]) -> dict[str, set[str]]:
    """The streams of each member."""
    by_member: dict[str, set[str]] = {member: set() for member in members}
    for name in STREAMS:
        by_member[Share(tuple(members), members[0]).owner(parse_stream(name))].add(name)
    return by_member


class Fleet:
    """The bridges by name; each is the member of that name."""

    def __init__(self, folder: Path, server: RedisServer, exchange: RunningSimulator) -> None:
        self.bridges: dict[str, BridgeRun] = {}
        self.exchange = exchange
        self._folder = folder
        self._server = server
        self._stack = AsyncExitStack()

    async def start(
        self, name: str, members: Sequence[str], instance: str = "", **share: object
    ) -> None:
        """Start the member `name`, under the name `instance` if the first name is taken."""
        instance = instance or name
        self.bridges[instance] = await self._stack.enter_async_context(
            running_bridge(
                self._folder / instance,
                self.exchange.ws_url,
                self._server.url,
                [{"types": list(TYPES), "markets": list(MARKETS)}, *ACCOUNT_STREAMS],
                instance=instance,
                share={"members": list(members), "me": name, **share},
                retention=KEEP_ALL,
            )
        )

    def reload(self, name: str, members: Sequence[str]) -> None:
        file = self._folder / name / "config.yaml"
        config = yaml.safe_load(file.read_text())
        config["share"] = {"members": list(members), "me": name}
        file.write_text(yaml.safe_dump(config))
        self.bridges[name].process.send_signal(signal.SIGHUP)

    def subscribed(self) -> Counter[str]:
        """The number of connections over which the exchange sends each stream."""
        return Counter(name for each in self.exchange.connections() for name in each["streams"])

    def status(self) -> tuple[int, dict[str, Any]]:
        done = run_bridge(self._folder, self._server.url, "status", "--json")
        return done.returncode, json.loads(done.stdout)

    async def is_whole(self, members: Sequence[str]) -> None:
        """Wait until each stream is received by its member alone and `status` shows it."""

        def holds() -> bool:
            statuses = [self.bridges[name].status() for name in members]
            return all(one and _is_at_rest(one["share"], members) for one in statuses) and (
                self.subscribed() == Counter(STREAMS)
            )

        await eventually_async(holds, "each stream is received by its member", LIMIT_S)
        await eventually_async(lambda: self.status()[0] == 0, "status reports no fault", LIMIT_S)
        _, status = self.status()
        for member, names in shares(members).items():
            for name in names & status["streams"].keys():  # quiet streams have no entry yet
                assert status["streams"][name]["received_by"] == [member]

    async def is_sent(self, count: int = 10) -> None:
        """Wait until the exchange has sent `count` more messages, received or not."""
        ledger = self._folder / "ledger.jsonl"
        before = len(ledger.read_bytes().splitlines())
        await eventually_async(
            lambda: len(ledger.read_bytes().splitlines()) >= before + count,
            "the exchange sends",
            LIMIT_S,
        )

    def kept(self) -> int:
        """The number of streams that are kept for other members."""
        statuses = [bridge.status() for bridge in self.bridges.values()]
        return sum(each["share"]["kept"] for each in statuses if each)

    async def goes_on(self, count: int = 10) -> None:
        """Wait until each market has `count` more messages in Redis."""
        streams = [f"bookTicker.{market}" for market in MARKETS]
        with self._server.client() as client:
            before = {name: client.xlen(name) for name in streams}
            await eventually_async(
                lambda: all(client.xlen(name) >= before[name] + count for name in streams),
                "more messages are published",
                LIMIT_S,
            )

    async def finish(self) -> None:
        """End the exchange, wait until Redis has all received messages, and stop the bridges."""
        self.exchange.stop()
        for bridge in self.bridges.values():
            await eventually_async(
                lambda bridge=bridge: _is_through(bridge),  # type: ignore[misc]
                "all received messages are in Redis",
                LIMIT_S,
            )
            assert await bridge.stop() == 0
            assert "Traceback" not in bridge.log()

    async def close(self) -> None:
        await self._stack.aclose()


def _is_at_rest(share: dict[str, Any], members: Sequence[str]) -> bool:
    is_same = share["members"] == list(members)
    return is_same and not share["kept"] and not share["unreceived"]


def _is_through(bridge: BridgeRun) -> bool:
    status = bridge.status()
    received = any(each["trouble"] for each in status.get("connections", []))
    return bool(received and not status["pending"] and not status["behind_bytes"])


@asynccontextmanager
async def fleet_of(
    members: Sequence[str], folder: Path, server: RedisServer
) -> AsyncIterator[Fleet]:
    options = ["--rate", str(RATE), "--accept-key", DEMO_KEYS["PUBLIC_KEY"]]
    options += [word for market in MARKETS for word in ("--market", market)]
    async with running_simulator(*options, ledger=folder / "ledger.jsonl") as exchange:
        fleet = Fleet(folder, server, exchange)
        try:
            for name in members:
                await fleet.start(name, members)
            await fleet.is_whole(members)
            yield fleet
        finally:
            await fleet.close()
