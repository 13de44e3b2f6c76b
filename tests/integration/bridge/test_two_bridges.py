"""Two bridges on the same streams, as real processes: whichever goes, nothing is lost or twice."""

import signal
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from tests.support.bridge_run import ACCOUNT_STREAMS, DEMO_KEYS, BridgeRun, entries, running_bridge
from tests.support.eventually import eventually_async
from tests.support.oracle import gaps, verdict
from tests.support.redis_server import RedisServer, running_redis
from tests.support.simulator_process import RunningSimulator, running_simulator

STREAMS: Sequence[object] = (
    {"types": ["trade", "depth", "depth.200ms", "bookTicker", "ticker"], "markets": ["SOL_USDC"]},
    "markPrice.SOL_USDC_PERP",
    *ACCOUNT_STREAMS,
)
EXCHANGE = ("--rate", "300", "--accept-key", DEMO_KEYS["PUBLIC_KEY"])


pytestmark = pytest.mark.timeout(240)
LIMIT_S = 60.0  # several processes on a machine that may be busy


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with running_redis() as running_server:
        yield running_server


class Pair:
    """Bridges `a` and `b` in front of one exchange and one Redis, each with its own journal."""

    def __init__(self, folder: Path, server: RedisServer, exchange: RunningSimulator) -> None:
        self.server = server
        self.exchange = exchange
        self.begun_us = 0
        self.bridges: dict[str, BridgeRun] = {}
        self._folder = folder
        self._stack = AsyncExitStack()

    async def start(self, name: str) -> BridgeRun:
        """Start one and wait until it hears all that ticks, and knows the others."""
        bridge = await self._stack.enter_async_context(
            running_bridge(
                self._folder / name, self.exchange.ws_url, self.server.url, STREAMS, instance=name
            )
        )
        self.bridges[name] = bridge
        await eventually_async(lambda: bridge.is_confirmed(6), f"{name} hears", LIMIT_S)
        self.begun_us = self.begun_us or time.time_ns() // 1000
        return bridge

    async def kill(self, name: str) -> None:
        self.bridges[name].process.kill()
        self.bridges[name].process.wait()

    def rank(self, name: str) -> tuple[int, list[str]]:
        status = self.bridges[name].status()
        return status.get("rank", -1), status.get("peers", [])

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
        await self._stack.aclose()


def _is_through(bridge: BridgeRun) -> bool:
    status = bridge.status()
    heard = any(each["trouble"] for each in status.get("connections", []))
    return bool(heard and not status["pending"] and not status["behind_bytes"])


@asynccontextmanager
async def pair(folder: Path, server: RedisServer) -> AsyncIterator[Pair]:
    async with running_simulator(*EXCHANGE, ledger=folder / "ledger.jsonl") as exchange:
        both = Pair(folder, server, exchange)
        await both.start("a")
        await both.start("b")
        await eventually_async(lambda: both.rank("a") == (0, ["b"]), "a knows b", LIMIT_S)
        await eventually_async(lambda: both.rank("b") == (1, ["a"]), "b knows a", LIMIT_S)
        try:
            yield both
        finally:
            await both._stack.aclose()


def published(bridge: BridgeRun, stream: str) -> int:
    count: int = bridge.status()["streams"][stream]["published"]
    return count


async def test_each_message_is_there_once_and_the_first_publishes_what_has_an_order(
    server: RedisServer, tmp_path: Path
) -> None:
    async with pair(tmp_path, server) as both:
        before = published(both.bridges["b"], "bookTicker.SOL_USDC")
        await both.goes_on(300)
        by_second = published(both.bridges["b"], "bookTicker.SOL_USDC") - before
        await both.finish()

    assert verdict(server, both.exchange, both.begun_us) == []
    assert gaps(server) == []
    assert by_second == 0


@pytest.mark.parametrize("name", ["a", "b"])
async def test_one_that_is_killed_and_started_again_leaves_no_hole_and_no_mark(
    name: str, server: RedisServer, tmp_path: Path
) -> None:
    async with pair(tmp_path, server) as both:
        await both.goes_on()
        await both.kill(name)
        await both.goes_on(300)
        await both.start(name)
        await eventually_async(
            lambda: len(both.rank(name)[1]) == 1, "they know each other again", LIMIT_S
        )
        await both.goes_on(300)
        await both.finish()

    assert verdict(server, both.exchange, both.begun_us) == []
    assert gaps(server) == []


@pytest.mark.parametrize("name", ["a", "b"])
async def test_one_that_is_frozen_for_a_while_is_stood_in_for(
    name: str, server: RedisServer, tmp_path: Path
) -> None:
    async with pair(tmp_path, server) as both:
        other = "b" if name == "a" else "a"
        both.bridges[name].process.send_signal(signal.SIGSTOP)
        await eventually_async(lambda: both.rank(other) == (0, []), "the other is first", LIMIT_S)
        await both.goes_on(300)
        both.bridges[name].process.send_signal(signal.SIGCONT)
        await eventually_async(
            lambda: both.rank("b") == (1, ["a"]), "they are in order again", LIMIT_S
        )
        await both.goes_on(100)
        await both.finish()

    assert verdict(server, both.exchange, both.begun_us) == []
    assert gaps(server) == []


async def test_one_that_is_stopped_hands_over_and_takes_back(
    server: RedisServer, tmp_path: Path
) -> None:
    async with pair(tmp_path, server) as both:
        assert await both.bridges["a"].stop() == 0
        await eventually_async(lambda: both.rank("b") == (0, []), "b is first", LIMIT_S)
        await both.goes_on()
        await both.start("a")
        await eventually_async(lambda: both.rank("b") == (1, ["a"]), "b is second", LIMIT_S)
        await both.goes_on(300)
        await both.finish()

    assert verdict(server, both.exchange, both.begun_us) == []
    assert gaps(server) == []


async def test_a_second_bridge_of_the_same_name_says_so_and_goes(
    server: RedisServer, tmp_path: Path
) -> None:
    async with pair(tmp_path, server) as both:
        async with running_bridge(
            tmp_path / "again", both.exchange.ws_url, server.url, STREAMS, instance="a"
        ) as namesake:
            await eventually_async(
                lambda: namesake.process.poll() is not None, "it has gone", LIMIT_S
            )
            assert namesake.process.returncode == 1
            assert "another bridge is running under the name a (process " in namesake.log()
            assert "give this one another `instance`" in namesake.log()
        await both.goes_on()
        await both.finish()

    assert verdict(server, both.exchange, both.begun_us) == []


async def test_whole_books_of_the_second_are_not_written_twice(
    server: RedisServer, tmp_path: Path
) -> None:
    async with pair(tmp_path, server) as both:
        await both.goes_on()
        await both.finish()
    with server.client() as client:
        at = [
            fields["update_id"]
            for _, fields in entries(client, "depth.SOL_USDC")
            if fields["type"] == "depth_snapshot"
        ]

    assert len(at) == len(set(at))
