"""Reads from replicas, under Sentinels and in a Cluster: no read returns stale data."""

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
import redis

from bridge.runtime import replica as replica_module
from bridge.runtime.keyspace import KeySpace
from bridge.runtime.redis_client import ServedElsewhere, connect, connect_blocking
from bridge.runtime.redis_url import replica_url, with_tag
from bridge.runtime.replica import FreshReads
from consumers import read
from consumers.kit.redis.keys import Keys
from tests.support import plain_http
from tests.support.command import environment
from tests.support.consumer_entries import START_US, entry_id, trade
from tests.support.consumer_worker import Worker
from tests.support.eventually import eventually, eventually_async
from tests.support.redis_server import RedisServer, free_port
from tests.support.redis_sets import Cluster, Watched, running_cluster, running_watched

STREAM = "trade.SOL_USDC"
PAGE = 500
COUNTING = """
from consumers import Consumer, every

class Counting(Consumer):
    name = "counting"
    mode = "ordered"
    streams = ("trade.*",)

    def on_event(self, delivery):
        self.state["count"] = self.state.get("count", 0) + 1

    def write(self, results):
        results.hset("", {"count": self.state.get("count", 0)})

class Ticking(Counting):
    name = "ticking"

    @every("1s")
    def tell(self, tick):
        pass
"""


@pytest.fixture(scope="module", params=["sentinels", "cluster"])
def servers(request: pytest.FixtureRequest) -> Iterator[Watched | Cluster]:
    opened = (
        running_watched(replicas=1, sentinels=1)
        if request.param == "sentinels"
        else running_cluster(primaries=2, replicas=1)
    )
    with opened as running:
        yield running


@pytest.fixture
def client(servers: Watched | Cluster) -> Iterator[redis.Redis]:
    url = with_tag(servers.url, servers.prefix)
    with connect_blocking(url, name="test") as one:
        one.delete(servers.prefix + STREAM)
        yield one


def _add(client: redis.Redis, key: str, first: int, count: int) -> None:
    with client.pipeline(transaction=False) as pipeline:
        for number in range(first, first + count):
            at_us = START_US + number * 1000
            pipeline.xadd(key, trade(number, at_us), id=entry_id(at_us, number))  # type: ignore[arg-type]
        pipeline.execute()


def _length(server: RedisServer, key: str) -> int:
    with server.client() as one:
        with contextlib.suppress(redis.ResponseError):
            one.execute_command("READONLY")  # type: ignore[no-untyped-call]
        return int(one.xlen(key))  # type: ignore[arg-type]


def _calls(server: RedisServer, command: str) -> int:
    with server.client() as one:
        stats = one.info("commandstats")
    return int(stats.get(f"cmdstat_{command}", {}).get("calls", 0))


@contextlib.contextmanager
def _cut_off(servers: Watched | Cluster, replica: RedisServer) -> Iterator[None]:
    """The replica runs, but gets nothing from its primary."""
    owner = servers.owner()
    with replica.client() as one, owner.client() as other:
        one.config_set("masterauth", "wrong")
        other.execute_command("CLIENT", "KILL", "TYPE", "replica")  # type: ignore[no-untyped-call]
        eventually(
            lambda: one.info("replication")["master_link_status"] == "down",
            "the replica has lost its primary",
        )
        try:
            yield
        finally:
            one.config_set("masterauth", "")
            eventually(
                lambda: one.info("replication")["master_link_status"] == "up",
                "the replica follows again",
            )


def test_read_has_all_that_the_primary_has_though_the_replica_lags(
    servers: Watched | Cluster, client: redis.Redis
) -> None:
    [replica] = servers.replicas()
    key = servers.prefix + STREAM
    _add(client, key, 1, PAGE + 100)
    eventually(lambda: _length(replica, key) == PAGE + 100, "the replica has the entries")
    config = Path(replica.folder) / "config.yaml"
    config.write_text(f"redis: {{url: '{servers.url}', read_from: replica}}")
    before = _calls(replica, "xrange")
    with _cut_off(servers, replica):
        # A replica without its primary is not listed, or refuses to be read.
        _add(client, key, PAGE + 101, PAGE)
        found = list(read(STREAM, config=config))
    assert len(found) == 2 * PAGE + 100
    found = list(read(STREAM, config=config))
    assert len(found) == 2 * PAGE + 100
    assert _calls(replica, "xrange") > before


async def test_reads_go_to_a_replica_while_it_is_fresh_and_else_to_the_primary(
    servers: Watched | Cluster, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replica_module, "CHECK_EVERY_S", 0.05)
    monkeypatch.setattr(replica_module, "REST_S", 0.05)
    [replica] = servers.replicas()
    url, key = with_tag(servers.url, servers.prefix), servers.prefix + STREAM
    async with (
        connect(url, name="x") as primary,
        connect(replica_url(url), name="x", command_timeout_s=1) as other,
    ):
        reads = FreshReads(primary, other)

        async def is_other() -> bool:
            return await reads.client() is other

        assert not await is_other()  # no replica has been checked yet
        await eventually_async(is_other, "the replica is fresh")
        with pytest.raises(ServedElsewhere, match=r"READONLY|MOVED"):
            await other.set(key, 1)
        with _cut_off(servers, replica):
            await asyncio.to_thread(_add, client, key, 1, 10)
            assert len(await reads.read(lambda one: one.xrange(key))) == 10
        await eventually_async(is_other, "the replica is fresh again")
        replica.pause()
        try:
            await asyncio.to_thread(_add, client, key, 11, 10)
            assert len(await reads.read(lambda one: one.xrange(key))) == 20
            assert not await is_other()
        finally:
            replica.resume()
        await eventually_async(is_other, "the replica is fresh once more")
        await asyncio.to_thread(servers.fail_over)
        await eventually_async(is_other, "the old primary is read from")
        [replica] = servers.replicas()
        before = _calls(replica, "xrange")
        assert len(await reads.read(lambda one: one.xrange(key))) == 20
        assert _calls(replica, "xrange") == before + 1


def test_ordered_consumers_read_from_a_replica_and_continue_without_it(
    servers: Watched | Cluster, client: redis.Redis, tmp_path: Path
) -> None:
    (tmp_path / "kinds.py").write_text(COUNTING)
    [replica] = servers.replicas()
    keys = Keys(KeySpace(servers.prefix))
    client.hset(keys.registry, STREAM, "{}")
    made = keys.beside(STREAM, "counting")
    worker = Worker(
        tmp_path, servers.url, "kinds:Counting", "--from", "beginning",
        BRIDGE_REDIS__READ_FROM="replica", BRIDGE_REDIS__COMMAND_TIMEOUT_S="1",
    )  # fmt: skip
    try:
        _add(client, keys.stream(STREAM), 1, 20)
        eventually(lambda: client.hget(made, "count") == "20", "all entries are counted", 30)
        before = _calls(replica, "xread")
        eventually(lambda: _calls(replica, "xread") > before + 5, "the replica is read", 30)
        _add(client, keys.stream(STREAM), 21, 20)
        eventually(lambda: client.hget(made, "count") == "40", "all entries are counted", 30)
        replica.pause()
        _add(client, keys.stream(STREAM), 41, 20)
        eventually(
            lambda: client.hget(made, "count") == "60", "entries are counted after the outage", 30
        )
        assert worker.stop() == 0
        assert "redis_unavailable" not in worker.err
    finally:
        replica.resume()
        if worker.process.poll() is None:
            worker.kill()


def test_ordered_consumers_with_timers_read_from_the_primary(
    servers: Watched | Cluster, client: redis.Redis, tmp_path: Path
) -> None:
    (tmp_path / "kinds.py").write_text(COUNTING)
    [replica] = servers.replicas()
    keys = Keys(KeySpace(servers.prefix))
    client.hset(keys.registry, STREAM, "{}")
    reads = _calls(servers.owner(), "xread"), _calls(replica, "xread")
    worker = Worker(
        tmp_path, servers.url, "kinds:Ticking", "--from", "beginning",
        BRIDGE_REDIS__READ_FROM="replica",
    )  # fmt: skip
    try:
        _add(client, keys.stream(STREAM), 1, 20)
        made = keys.beside(STREAM, "ticking")
        eventually(lambda: client.hget(made, "count") == "20", "all entries are counted", 30)
        # A replica counts as fresh after two polls with 1 s between them.
        eventually(
            lambda: _calls(servers.owner(), "xread") > reads[0] + 30, "the primary is read", 60
        )
        assert _calls(replica, "xread") == reads[1]
        assert worker.stop() == 0
    finally:
        if worker.process.poll() is None:
            worker.kill()


@pytest.mark.parametrize(
    "command",
    [["-m", "bridge", "console"], ["-m", "consumers", "exporter"]],
    ids=["console", "exporter"],
)
def test_console_and_exporter_read_groups_from_a_replica_and_continue_without_it(
    command: list[str], servers: Watched | Cluster, client: redis.Redis, tmp_path: Path
) -> None:
    [replica] = servers.replicas()
    keys = Keys(KeySpace(servers.prefix))
    client.hset(keys.registry, STREAM, "{}")
    _add(client, keys.stream(STREAM), 1, 1)
    client.xgroup_create(keys.stream(STREAM), "group", "0")
    port = free_port()
    variables = {"BRIDGE_REDIS__READ_FROM": "replica", "BRIDGE_REDIS__COMMAND_TIMEOUT_S": "1"}
    with subprocess.Popen(
        [sys.executable, *command, "--listen", f"127.0.0.1:{port}"],
        cwd=tmp_path,
        env=environment(servers.url, **variables),
    ) as process:

        def is_told() -> bool:
            with contextlib.suppress(httpx2.HTTPError, OSError):
                return "group" in _told(port, command[-1])
            return False

        try:
            eventually(is_told, "the page shows the group", 30)
            before = _calls(replica, "evalsha")
            eventually(
                lambda: is_told() and _calls(replica, "evalsha") > before + 3,
                "the replica is read",
                30,
            )
            replica.pause()
            client.xgroup_create(keys.stream(STREAM), "newer", "0")
            eventually(lambda: "newer" in _told(port, command[-1]), "the primary is read", 30)
        finally:
            replica.resume()
            client.delete(keys.registry)
            process.terminate()


def _told(port: int, command: str) -> str:
    """The exporter's page of metrics, or the first groups in the console's events."""
    if command == "exporter":
        return plain_http.get(f"http://127.0.0.1:{port}/metrics", timeout=20).text
    url = f"http://127.0.0.1:{port}/events?page=consumers"
    with httpx2.stream("GET", url, timeout=20, trust_env=False) as answer:
        return next(line for line in answer.iter_lines() if '"groups":[' in line)
