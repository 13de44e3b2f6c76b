"""One short way through each kind of set: Sentinels, a Cluster, an address that follows.

Their faults are in `tests/chaos/test_redis_sets.py`.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from bridge.redis.connection import ConnectionLost, Target
from bridge.redis.connection import connect as connect_wire
from bridge.runtime.checks.finding import Finding, Level
from bridge.runtime.checks.redis_server import look_at_redis
from bridge.runtime.config import Durability
from bridge.runtime.keyspace import KeySpace
from bridge.runtime.redis_client import ServedElsewhere, connect
from bridge.runtime.redis_url import with_tag
from tests.support.eventually import eventually_async
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
def sets() -> Iterator[tuple[Watched, Cluster]]:
    """Begun side by side: each waits some seconds until its servers know each other."""
    with contextlib.ExitStack() as stack, ThreadPoolExecutor() as threads:
        watched = threads.submit(stack.enter_context, running_watched(replicas=1, sentinels=1))
        cluster = threads.submit(stack.enter_context, running_cluster(primaries=2, replicas=1))
        yield watched.result(), cluster.result()


@pytest.fixture
def watched(sets: tuple[Watched, Cluster]) -> Watched:
    return sets[0]


@pytest.fixture
def cluster(sets: tuple[Watched, Cluster]) -> Cluster:
    return sets[1]


async def test_publisher_follows_its_slot_through_a_move_and_a_fail_over(cluster: Cluster) -> None:
    async with running(Rig(cluster.url, prefix=cluster.prefix)) as rig:
        rig.trades(100)
        await rig.settled()
        source, target = await asyncio.to_thread(cluster.begin_move)
        rig.trades(100)  # half of the keys are there, half not: "ASK" and "TRYAGAIN"
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


async def test_a_sentinel_that_names_a_replica_is_not_believed(watched: Watched) -> None:
    [replica] = watched.replicas()
    async with _lying_sentinel(replica.port) as liar:
        host = f"127.0.0.1:{watched.sentinels[0].port}"
        target = Target.from_url(f"redis+sentinel://{liar},{host}/{SERVICE}/0")
        with pytest.raises(ConnectionLost, match=r"named as the primary .* says it is a slave"):
            await connect_wire(target, 3)
        connection = await connect_wire(target, 3)  # the other one is asked now
        assert connection.address == f"127.0.0.1:{watched.owner().port}/0"
        connection.close()


@contextlib.asynccontextmanager
async def _lying_sentinel(port: int) -> AsyncIterator[str]:
    async def lie(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while asked := await reader.read(1000):
            named = b"*2\r\n$9\r\n127.0.0.1\r\n$5\r\n%d\r\n" % port
            writer.write(named if b"SENTINEL" in asked else b"+OK\r\n" * asked.count(b"*"))
        writer.close()

    async with await asyncio.start_server(lie, "127.0.0.1", 0) as server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_a_server_of_another_kind_is_refused_in_words(
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
        with second.client() as look:
            assert look.mget("a", "b", "c") == ["3", "3", "3"]


async def test_a_read_that_waits_at_a_primary_that_becomes_a_replica_ends_its_connection() -> None:
    with running_redis() as first, running_redis() as second:
        async with connect(first.url, name="x") as client, _moved_name(client, second):
            reading = asyncio.create_task(client.xread({"stream": "$"}, block=5000))
            with first.client() as operator:
                await eventually_async(
                    lambda: operator.info("clients")["blocked_clients"], "a read waits"
                )
                operator.replicaof("127.0.0.1", second.port)
            with pytest.raises(ServedElsewhere, match="UNBLOCKED"):
                await reading
            await client.set("a", 1)
        with second.client() as look:
            assert look.get("a") == "1"


@contextlib.asynccontextmanager
async def _moved_name(client: object, server: RedisServer) -> AsyncIterator[None]:
    """What the name in the URL is resolved to from the next connect on."""
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


async def test_check_names_what_it_talks_to_and_advises_what_can_be_done(
    watched: Watched, cluster: Cluster
) -> None:
    through_sentinels = await checked(watched.url)
    assert through_sentinels["redis"].found.endswith("is the primary of mymaster, as Sentinels say")
    assert through_sentinels["consumers"].level is Level.OK
    tagged = await checked(with_tag(cluster.url, cluster.prefix), cluster.prefix)
    assert tagged["redis"].found.endswith("has the slot of {bridge} in this Cluster")
    assert {tagged[subject].level for subject in ("rights", "consumers")} == {Level.OK}
    untagged = await checked(with_tag(cluster.url, cluster.prefix))
    assert untagged["consumers"].level is Level.PROBLEM
    assert (await checked(watched.sentinels[0].url))["redis"].advice == (
        f"redis.url: redis+sentinel://127.0.0.1:{watched.sentinels[0].port}/{SERVICE}/0"
    )
    with running_redis(options=("--rename-command", "CONFIG", "")) as managed:
        assert (await checked(managed.url))["persistence"].advice == (
            "set it where this server is configured: this user, or service, has no CONFIG"
        )


async def checked(url: str, key_prefix: str = "") -> dict[str, Finding]:
    """By subject: all that is found."""
    findings = await look_at_redis(
        url,
        key_prefix=key_prefix,
        connect_timeout_s=3,
        command_timeout_s=3,
        needed=0,
        durability=Durability(),
    )
    return {finding.subject: finding for finding in findings}


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
