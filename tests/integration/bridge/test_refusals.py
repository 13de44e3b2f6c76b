"""Redis refuses one stream or all streams, with the journal and without it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from tests.support import truth
from tests.support.bridge_run import BridgeRun, entries, running_bridge
from tests.support.eventually import eventually_async
from tests.support.redis_server import RedisServer, running_redis
from tests.support.simulator_process import running_simulator

TRADES, DEPTH, BOOKS = "trade.SOL_USDC", "depth.SOL_USDC", "bookTicker.SOL_USDC"
STREAMS = [TRADES, DEPTH, BOOKS]
LIMIT_S = 60.0
pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with running_redis(appendonly=True) as running_server:
        yield running_server


def set_user(client: redis.Redis, *rules: str) -> None:
    client.execute_command("ACL", "SETUSER", "bridge", "reset", "on", ">pw", "~*", "+@all", *rules)


def received(bridge: BridgeRun, stream: str) -> int:
    return int(bridge.status().get("streams", {}).get(stream, {}).get("received", 0))


# ---- journal off ---------------------------------------------------------------------------------


async def test_bridge_without_a_journal_publishes_and_stops_with_nothing_left(
    server: RedisServer, tmp_path: Path
) -> None:
    ledger = tmp_path / "ledger.jsonl"
    async with (
        running_simulator("--rate", "500", "--market", "SOL_USDC", ledger=ledger) as exchange,
        running_bridge(
            tmp_path, exchange.ws_url, server.url, STREAMS, journal={"enabled": False}
        ) as bridge,
    ):
        with server.client() as client:
            await eventually_async(
                lambda: client.xlen(TRADES) > 50, "trades are published", LIMIT_S
            )
        exchange.stop()
        await eventually_async(lambda: not bridge.status().get("pending", 1), "no entry is pending")
        assert await bridge.stop() == 0

    sent = truth.sent_by_stream(truth.read_ledger(ledger))
    with server.client(decode_responses=True) as client:
        for stream in STREAMS:
            assert truth.compare(stream, sent[stream], entries(client, stream)) == []


@pytest.mark.long
async def test_bridge_key_of_another_kind_without_a_journal_counts_pending_and_exits_1(
    server: RedisServer, tmp_path: Path
) -> None:
    with server.client() as client:
        client.set(BOOKS, "a string")
        async with (
            running_simulator("--rate", "500", "--market", "SOL_USDC") as exchange,
            running_bridge(
                tmp_path, exchange.ws_url, server.url, STREAMS, journal={"enabled": False},
                publish={"drain_s": 1},
            ) as bridge,
        ):  # fmt: skip
            await eventually_async(
                lambda: received(bridge, BOOKS) > 200, "the stream's messages are pending", LIMIT_S
            )
            assert "WRONGTYPE" in bridge.status()["streams"][BOOKS]["suspended"]
            assert client.xlen(TRADES) > 20
            assert await bridge.stop() == 1

    assert '"event": "stream_suspended"' in bridge.log()
    [stopped] = [line for line in bridge.log().splitlines() if '"bridge_stopped"' in line]
    left = int(stopped.partition('"left": ')[2].partition(",")[0])
    assert left > 200


async def test_bridge_key_of_another_kind_with_a_journal_keeps_messages_and_exits_0(
    server: RedisServer, tmp_path: Path
) -> None:
    ledger = tmp_path / "ledger.jsonl"
    with server.client(decode_responses=True) as client:
        client.set(BOOKS, "a string")
        async with running_simulator(
            "--rate", "500", "--market", "SOL_USDC", ledger=ledger
        ) as exchange:
            async with running_bridge(tmp_path, exchange.ws_url, server.url, STREAMS) as bridge:
                await eventually_async(
                    lambda: client.xlen(TRADES) > 50 and BOOKS in bridge.log(),
                    "trades are published and the other stream is reported",
                    LIMIT_S,
                )
                exchange.stop()
                await eventually_async(
                    lambda: not bridge.status().get("pending", 1), "no entry is pending"
                )
                assert await bridge.stop() == 0
            assert client.type(BOOKS) == "string"
            client.delete(BOOKS)
            async with running_bridge(tmp_path, exchange.ws_url, server.url, STREAMS) as again:
                await eventually_async(
                    lambda: client.exists(BOOKS), "the stream is published", LIMIT_S
                )
                await eventually_async(
                    lambda: not again.status().get("pending", 1), "no entry is pending"
                )
                assert await again.stop() == 0

        sent = truth.sent_by_stream(truth.read_ledger(ledger))
        for stream in STREAMS:
            assert truth.compare(stream, sent[stream], entries(client, stream)) == []


# ---- all streams ---------------------------------------------------------------------------------


async def test_bridge_user_without_evalsha_for_a_while_reports_it_and_loses_nothing(
    server: RedisServer, tmp_path: Path
) -> None:
    ledger = tmp_path / "ledger.jsonl"
    with server.client(decode_responses=True) as client:
        set_user(client)
        url = server.url.replace("redis://", "redis://bridge:pw@")
        async with (
            running_simulator("--rate", "1500", "--market", "SOL_USDC", ledger=ledger) as exchange,
            running_bridge(
                tmp_path, exchange.ws_url, url, STREAMS, publish={"buffer_bytes": 1024 * 1024},
                status_url=server.url,
            ) as bridge,
        ):  # fmt: skip
            await eventually_async(
                lambda: client.xlen(TRADES) > 20, "trades are published", LIMIT_S
            )
            set_user(client, "-evalsha")
            await eventually_async(bridge.status, "the bridge has written a status")
            begun = bridge.status()["frames"]
            await eventually_async(
                lambda: "evalsha" in bridge.status().get("redis_trouble", ""),
                "status reports the refused command",
            )
            await eventually_async(
                lambda: bridge.status()["frames"] > begun, "more frames are received"
            )
            await eventually_async(
                lambda: bridge.status()["behind_bytes"] > 1024 * 1024,
                "the backlog exceeds 1 MiB",
                LIMIT_S,
            )
            status = bridge.status()
            assert status["pending_bytes"] < 1.6 * 1024 * 1024
            assert not any(each["suspended"] for each in status["streams"].values())
            exchange.stop()
            set_user(client)
            await eventually_async(
                lambda: (
                    not bridge.status().get("redis_trouble", "x")
                    and not bridge.status()["behind_bytes"]
                    and not bridge.status()["pending"]
                ),
                "no entry is pending",
                LIMIT_S,
            )
            status = bridge.status()
            assert not any(each["overflowed"] for each in status["streams"].values())
            assert await bridge.stop() == 0

        sent = truth.sent_by_stream(truth.read_ledger(ledger))
        for stream in STREAMS:
            assert truth.compare(stream, sent[stream], entries(client, stream)) == []
