"""A bridge that ends on a fatal error, and a bridge restarted with fewer streams."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.bridge_run import entries, running_bridge
from tests.support.eventually import eventually_async
from tests.support.redis_server import RedisServer, running_redis
from tests.support.simulator_process import running_simulator

LIMIT_S = 60.0
pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with running_redis(appendonly=True) as running_server:
        yield running_server


async def test_streams_of_another_account_end_the_bridge_with_one_error(
    server: RedisServer, tmp_path: Path
) -> None:
    with server.client() as client:
        client.set("bridge:account", "0123456789abcdef")
    for turn in range(4):
        folder = tmp_path / str(turn)
        async with running_bridge(
            folder, "ws://127.0.0.1:9", server.url, ["account.orderUpdate"]
        ) as bridge:
            assert await asyncio.to_thread(bridge.process.wait, LIMIT_S) == 1
            assert "belong to the account with key fingerprint 0123456789abcdef" in bridge.log()
        journal = folder / "data" / "journal"
        assert (journal / "checkpoint.json").exists(), "the bridge did not close its journal"
        assert any(path.stat().st_size for path in journal.glob("*.journal"))


async def test_bridge_restarted_with_fewer_streams_publishes_all_received_messages(
    server: RedisServer, tmp_path: Path
) -> None:
    both = ["trade.SOL_USDC", "bookTicker.SOL_USDC"]
    async with running_simulator("--rate", "200") as exchange:
        async with running_bridge(tmp_path, exchange.ws_url, server.url, both) as first:
            await eventually_async(
                lambda: first.is_confirmed(2), "the first bridge receives", LIMIT_S
            )
            server.kill()
            journal = tmp_path / "data" / "journal"
            size = _size(journal)
            await eventually_async(
                lambda: _size(journal) > size + 20_000, "the journal grows", LIMIT_S
            )
            first.process.kill()
            await asyncio.to_thread(first.process.wait)
        server.start()
        with server.client() as client:
            before = len(entries(client, "bookTicker.SOL_USDC"))
            async with running_bridge(tmp_path, exchange.ws_url, server.url, both[:1]) as second:
                await eventually_async(
                    lambda: len(entries(client, "bookTicker.SOL_USDC")) > before,
                    "the other stream's received messages are published",
                    LIMIT_S,
                )
                await eventually_async(
                    lambda: second.is_confirmed(1), "the second bridge receives", LIMIT_S
                )
                assert await second.stop() == 0


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.journal*"))
