"""A short run through each kind of set: Sentinels, a Cluster, and a name that follows the primary.

The faults of these sets are in `tests/chaos/test_redis_sets.py`.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from redis import exceptions

from bridge.console import watcher as watcher_module
from bridge.console.hub import Hub
from bridge.console.levers import NoLevers
from bridge.console.watcher import Watched as WatchedRedis
from bridge.console.watcher import Watcher
from bridge.redis.connection import ConnectionLost, Target
from bridge.redis.connection import connect as connect_wire
from bridge.runtime import replica as replica_module
from bridge.runtime.checks.finding import Finding, Level
from bridge.runtime.checks.redis_server import check_redis
from bridge.runtime.config import Durability
from bridge.runtime.keyspace import KeySpace
from bridge.runtime.redis_client import ServedElsewhere, connect, connect_blocking
from bridge.runtime.redis_shards import ShardedRedis
from bridge.runtime.redis_url import with_tag
from tests.integration.bridge.test_replay import journal, opened
from tests.support import frames
from tests.support.command import run_bridge
from tests.support.eventually import eventually_async
from tests.support.proxy import running_proxy
from tests.support.publisher_rig import Rig, all_trades, running, trade_ids
from tests.support.redis_server import RedisServer, running_redis
from tests.support.redis_sets import (
    SERVICE,
    Cluster,
    Watched,
    running_cluster,
    running_watched,
)
from tests.support.set_run import OF_FOUR_SHARDS


@pytest.fixture(scope="module")
def sets() -> Iterator[tuple[Watched, Cluster, Cluster]]:
    """The sets, started concurrently: their servers need seconds to find each other."""
    with contextlib.ExitStack() as stack, ThreadPoolExecutor() as threads:
        watched = threads.submit(stack.enter_context, running_watched(replicas=1, sentinels=1))
        cluster = threads.submit(stack.enter_context, running_cluster(primaries=2, replicas=1))
        alone = threads.submit(stack.enter_context, running_cluster(primaries=1, replicas=0))
        yield watched.result(), cluster.result(), alone.result()


@pytest.fixture
def watched(sets: tuple[Watched, Cluster, Cluster]) -> Watched:
    return sets[0]


@pytest.fixture
def cluster(sets: tuple[Watched, Cluster, Cluster]) -> Cluster:
    return sets[1]


@pytest.fixture
def alone(sets: tuple[Watched, Cluster, Cluster]) -> Cluster:
    """A Cluster of one node, which owns all slots."""
    return sets[2]


async def test_publisher_follows_its_slot_through_a_move_and_a_fail_over(cluster: Cluster) -> None:
    async with running(Rig(cluster.url, prefix=cluster.prefix)) as rig:
        rig.trades(100)
        await rig.settled()
        source, target = await asyncio.to_thread(cluster.begin_move)
        rig.trades(100)  # half of the keys have moved: replies are "ASK" and "TRYAGAIN"
        while await asyncio.to_thread(cluster.move_keys, source, target, 1):
            rig.trades(10)
        await asyncio.to_thread(cluster.end_move, source, target)
        await rig.settled()
        assert cluster.owner() is target
        back, home = await asyncio.to_thread(cluster.begin_move)
        while await asyncio.to_thread(cluster.move_keys, back, home, 100):
            pass
        await asyncio.to_thread(cluster.end_move, back, home)
        await asyncio.to_thread(cluster.fail_over)
        rig.trades(100)
        await rig.settled()

    assert trade_ids(cluster.owner(), cluster.prefix) == all_trades(rig.sent)


async def test_sentinel_that_names_a_replica_is_not_trusted(watched: Watched) -> None:
    [replica] = watched.replicas()
    async with _lying_sentinel(replica.port) as liar:
        host = f"127.0.0.1:{watched.sentinels[0].port}"
        target = Target.from_url(f"redis+sentinel://{liar},{host}/{SERVICE}/0")
        with pytest.raises(ConnectionLost, match=r"named as the primary .* its role is slave"):
            await connect_wire(target, 3)
        connection = await connect_wire(target, 3)  # the next request goes to the other node
        assert connection.address == f"127.0.0.1:{watched.owner().port}/0"
        connection.close()
        url = f"redis+sentinel://{liar}/{SERVICE}/0"
        async with connect(url, name="x") as client:
            with pytest.raises(exceptions.ConnectionError, match="its role is slave"):
                await client.get("key")
        with (
            connect_blocking(url, name="x") as blocking,
            pytest.raises(exceptions.ConnectionError, match="its role is slave"),
        ):
            await asyncio.to_thread(blocking.get, "key")


@contextlib.asynccontextmanager
async def _lying_sentinel(port: int) -> AsyncIterator[str]:
    async def lie(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while request := await reader.read(1000):
            named = b"*2\r\n$9\r\n127.0.0.1\r\n$5\r\n%d\r\n" % port
            writer.write(named if b"SENTINEL" in request else b"+OK\r\n" * request.count(b"*"))
        writer.close()

    async with await asyncio.start_server(lie, "127.0.0.1", 0) as server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_a_server_of_active_active_replication_is_refused_with_a_reason() -> None:
    async def be_one_of_two(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"ROLE\r\n")
        writer.write(b"+PONG\r\n$0\r\n\r\n*1\r\n$14\r\nactive-replica\r\n")
        with contextlib.closing(writer), contextlib.suppress(OSError):
            await reader.read()

    async with await asyncio.start_server(be_one_of_two, "127.0.0.1", 0) as server:
        url = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
        with pytest.raises(ConnectionLost, match="active-active replication: two servers may give"):
            await connect_wire(Target.from_url(url), 3)


async def test_cluster_nodes_are_discovered_from_the_named_node(cluster: Cluster) -> None:
    owner = cluster.owner()
    named = next(one for one in cluster.servers if one is not owner)
    url = with_tag(f"redis+cluster://127.0.0.1:{named.port}", cluster.prefix)
    target = Target.from_url(url)
    (await connect_wire(target, 3)).close()
    named.pause()
    try:
        connection = await connect_wire(target, 3)
    finally:
        named.resume()
    assert connection.address == f"127.0.0.1:{owner.port}/0"
    connection.close()


async def test_a_server_of_another_kind_is_refused_with_a_reason(
    watched: Watched, cluster: Cluster
) -> None:
    sentinel, node = watched.sentinels[0], cluster.servers[0]
    [replica] = watched.replicas()
    for server, words in (
        (sentinel, rf"is a Sentinel: the URL is redis\+sentinel://127.0.0.1:{sentinel.port}/"),
        (node, rf"is a node of a Cluster: the URL is redis\+cluster://127.0.0.1:{node.port}"),
        (replica, f"a replica, .* primary is 127.0.0.1:{watched.owner().port}"),
    ):
        with pytest.raises(ConnectionLost, match=words):
            await connect_wire(Target.from_url(server.url), 3)
    unknown = watched.url.replace(SERVICE, "other")
    with pytest.raises(ConnectionLost, match="it watches no 'other'"):
        await connect_wire(Target.from_url(unknown), 3)


async def test_a_primary_that_became_a_replica_ends_all_connections_of_the_pool() -> None:
    with running_redis() as first, running_redis() as second:
        async with connect(first.url, name="x") as client, _moved_name(client, second):
            await asyncio.gather(client.set("a", 1), client.set("b", 1))
            with first.client() as operator:
                operator.replicaof("127.0.0.1", second.port)
            with pytest.raises(ServedElsewhere, match="READONLY"):
                await client.set("a", 2)
            await client.set("a", 3)
            await asyncio.gather(client.set("b", 3), client.set("c", 3))
        with second.client() as reader:
            assert reader.mget("a", "b", "c") == ["3", "3", "3"]


async def test_blocked_read_ends_its_connection_when_its_primary_becomes_a_replica() -> None:
    with running_redis() as first, running_redis() as second:
        async with connect(first.url, name="x") as client, _moved_name(client, second):
            reading = asyncio.create_task(client.xread({"stream": "$"}, block=5000))
            with first.client() as operator:
                await eventually_async(
                    lambda: operator.info("clients")["blocked_clients"], "a read blocks"
                )
                operator.replicaof("127.0.0.1", second.port)
            with pytest.raises(ServedElsewhere, match="UNBLOCKED"):
                await reading
            await client.set("a", 1)
        with second.client() as reader:
            assert reader.get("a") == "1"


@contextlib.asynccontextmanager
async def _moved_name(client: object, server: RedisServer) -> AsyncIterator[None]:
    """From the next connect on, resolve the name in the URL to this server."""
    pool = client.connection_pool  # type: ignore[attr-defined]
    plain = pool.connection_class

    class Resolved(plain):  # type: ignore[misc, valid-type]
        def _connection_arguments(self) -> dict[str, object]:
            moved = getattr(self, "was_connected", False)
            self.was_connected = True
            return {"host": "127.0.0.1", "port": server.port if moved else self.port}

    pool.connection_class = Resolved
    yield


def test_target_keeps_no_node_of_a_set() -> None:
    url = "redis+sentinel://:pw@s1,s2/mymaster/3"
    assert Target.from_url(url).address == "sentinel mymaster/3"
    assert Target.from_url("redis+cluster://n1/0?hash_tag=mine").address == "cluster {mine}"
    assert "pw" not in repr(replace(Target.from_url(url)))


async def test_check_names_the_kind_of_server_and_gives_advice(
    watched: Watched, cluster: Cluster
) -> None:
    through_sentinels = await checked(watched.url)
    assert through_sentinels["redis"].found.endswith("is the primary of mymaster, by the Sentinels")
    assert through_sentinels["consumers"].level is Level.OK
    tagged_url = with_tag(cluster.url, cluster.prefix)
    tagged = await checked(tagged_url, cluster.prefix)
    assert tagged["redis"].found.endswith("has the slot of {bridge} in this Cluster")
    assert {tagged[subject].level for subject in ("rights", "consumers")} == {Level.OK}
    untagged = await checked(with_tag(cluster.url, cluster.prefix))
    assert untagged["consumers"].level is Level.PROBLEM
    with cluster.owner().client() as node:
        node.config_set("cluster-require-full-coverage", "yes")
        one_of_many = await checked(tagged_url, cluster.prefix, is_shard=True)
        node.config_set("cluster-require-full-coverage", "no")
    assert "with one node unavailable, all shards refuse everything" in one_of_many["shards"].found
    assert (await checked(watched.sentinels[0].url))["redis"].advice == (
        f"redis.url: redis+sentinel://127.0.0.1:{watched.sentinels[0].port}/{SERVICE}/0"
    )
    with running_redis(options=("--rename-command", "CONFIG", "")) as managed:
        assert (await checked(managed.url))["persistence"].advice == (
            "set it where this server is configured: this user, or service, has no CONFIG"
        )


@pytest.mark.parametrize(
    ("command", "subject"),
    [
        *((name, "consumers") for name in ("xgroup", "xreadgroup", "xread", "xpending", "xack")),
        ("wait", "rights"),
    ],
)
async def test_check_tries_the_commands_of_bridge_and_consumers(
    command: str, subject: str, redis_url: str
) -> None:
    async with connect(redis_url, name="admin") as admin:
        rules = f"ACL SETUSER less reset on >pw ~* +@all -{command}"
        await admin.execute_command(*rules.split())  # type: ignore[no-untyped-call]
        url = redis_url.replace("redis://", "redis://less:pw@")
        found = await checked(url, durability=Durability(level="replica"))
    assert command.upper() in found[subject].found
    assert found["rights" if subject == "consumers" else "consumers"].level is Level.OK


async def checked(
    url: str,
    key_prefix: str = "",
    durability: Durability | None = None,
    *,
    is_shard: bool = False,
) -> dict[str, Finding]:
    """Run the checks of one server or set; the findings by subject."""
    findings = await check_redis(
        url,
        key_prefix=key_prefix,
        connect_timeout_s=3,
        command_timeout_s=3,
        needed=0,
        durability=durability or Durability(),
        is_shard=is_shard,
    )
    return {finding.subject: finding for finding in findings}


@pytest.mark.parametrize(
    ("page", "command", "pace"),
    [("now", "xrevrange", "POLL_S"), ("consumers", "evalsha", "GROUPS_S")],
)
async def test_unavailable_replica_does_not_count_as_an_unavailable_shard(
    page: str, command: str, pace: str, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("POLL_S", "GROUPS_S"):  # the other page would find the failure too
        monkeypatch.setattr(watcher_module, name, 0.02 if name == pace else 60)
    space, (replica,) = KeySpace(f"{{{page}}}:", 2), watched.replicas()
    tags = [f"{page}.{shard}" for shard in range(2)]
    names = ["trade.JUP_USDC", "trade.ETH_USDC"]  # of shards 0 and 1
    async with AsyncExitStack() as stack:
        proxy = await stack.enter_async_context(running_proxy("127.0.0.1", replica.port))
        urls = (watched.owner().url, replica.url, f"redis://127.0.0.1:{proxy.port}/0")
        owner, fresh, lost = [
            await stack.enter_async_context(connect(url, name=name, decode_responses=True))
            for name, url in zip(("owner", "fresh", "lost"), urls, strict=True)
        ]
        for name in names:
            await owner.hset(space.key("bridge:streams"), name, "{}")
            await owner.xadd(space.key(name), {"a": "b"}, "5-1")
            await owner.xgroup_create(space.key(name), "mine", "0")
        whole, part = ShardedRedis([owner, owner], tags), ShardedRedis([fresh, lost], tags)
        found: set[object] = set()

        async def check_until_fresh(pair: Any) -> None:
            """A reader checks a replica until it is fresh and then notices changes by itself."""
            if not pair.is_fresh:
                await check(pair)
            if pair.is_fresh:
                found.add(pair)

        check = replica_module._Pair.check
        monkeypatch.setattr(replica_module._Pair, "check", check_until_fresh)
        monkeypatch.setattr(replica_module, "CHECK_EVERY_S", 0)
        watcher = Watcher(
            WatchedRedis(whole, space, "here", replica=part), hub := Hub(), NoLevers()
        )
        watching = asyncio.create_task(watcher.run())

        def reads() -> int:
            with replica.client() as reader:
                return int(
                    reader.info("commandstats").get(f"cmdstat_{command}", {}).get("calls", 0)
                )

        await eventually_async(lambda: len(found) == 2, "both replicas are fresh")
        before = reads()
        await eventually_async(lambda: reads() > before + 4, "the replica is read")
        messages = hub.join(page).messages()
        proxy.refuses = True
        proxy.cut()
        async with asyncio.timeout(10):
            for _ in range(5):
                assert "does not answer" not in (await anext(messages)).data
        watching.cancel()


async def test_publisher_follows_the_primary_that_sentinels_name(watched: Watched) -> None:
    before = watched.owner()
    async with running(Rig(watched.url)) as rig:
        rig.trades(100)
        await rig.settled()
        with before.client() as client:
            client.wait(1, 5000)
        before.kill()
        rig.trades(100)
        await rig.settled()

    assert watched.owner() is not before
    assert trade_ids(watched.owner()) == all_trades(200)


async def test_streams_of_many_shards_are_written_and_read_while_one_of_them_moves(
    cluster: Cluster,
) -> None:
    space = KeySpace("{many}:", 4)
    names = [f"trade.{market}" for market in OF_FOUR_SHARDS]
    moving = cluster.at(space.prefix_of(2))
    async with (
        running(Rig(cluster.url, names=names, prefix=space.prefix, shards=space.shards)) as rig,
        connect(with_tag(cluster.url, space.prefix, space.shards), name="x") as client,
    ):
        rig.trades_of(OF_FOUR_SHARDS, 100)
        await rig.settled()
        source, target = await asyncio.to_thread(moving.begin_move)
        while await asyncio.to_thread(moving.move_keys, source, target, 1):
            rig.trades_of(OF_FOUR_SHARDS, 10)
        await asyncio.to_thread(moving.end_move, source, target)
        rig.trades_of(OF_FOUR_SHARDS, 10)
        await rig.settled()
        pipeline = client.pipeline(transaction=False)
        for name in names:
            pipeline.xrange(space.key(name))
        pipeline.time()
        *streams, _ = await pipeline.execute()
        assert await client.xlen(space.key(names[3])) == len(streams[3])

    for entries in streams:
        trades = [fields for _, fields in entries if fields[b"type"] == b"trade"]
        assert [int(fields[b"trade_id"]) for fields in trades] == all_trades(rig.sent)


def test_a_journal_is_replayed_into_many_shards_and_their_streams_are_listed(
    cluster: Cluster, tmp_path: Path
) -> None:
    space = KeySpace("{again}:", 4)
    names = [f"trade.{market}" for market in OF_FOUR_SHARDS]
    trades = [
        f"{us} F 1 {frames.TRADE.replace('BTC_USDC_PERP', market)}\n"
        for us, market in enumerate(OF_FOUR_SHARDS, 1790915531_000000)
    ]
    journal(tmp_path / "journal", opened(*names), *trades)
    variables = {"BRIDGE_REDIS__SHARDS": "4", "BRIDGE_REDIS__KEY_PREFIX": space.prefix}
    done = run_bridge(tmp_path, cluster.url, "replay", "journal", **variables)
    assert (done.returncode, done.stderr) == (0, "")
    with connect_blocking(with_tag(cluster.url, space.prefix, 4), name="x") as client:
        lines = client.hgetall(space.key("bridge:streams"))
        assert {name: json.loads(line)["key"] for name, line in lines.items()} == {
            name: space.key(name) for name in names
        }
        assert [client.xlen(space.key(name)) for name in names] == [2] * 4  # `start`, and a trade


async def test_check_finds_that_one_command_may_not_read_several_streams(alone: Cluster) -> None:
    """As behind a proxy in front of a Cluster: Redis serves each key, but not two keys in one
    command.
    """
    found = await checked(with_tag(alone.url, alone.prefix))
    assert found["rights"].level is Level.OK
    assert (found["consumers"].found, found["consumers"].advice) == (
        "one command may not read several streams: a proxy in front of a Cluster",
        "give redis.key_prefix a hash tag, such as {bridge}:",
    )
