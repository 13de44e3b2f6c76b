"""Consumers of a Cluster with several shards while one node is unavailable."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
import redis

from bridge.runtime.keyspace import KeySpace
from bridge.runtime.redis_client import connect_blocking
from bridge.runtime.redis_url import with_tag
from consumers.kit.redis.keys import Keys
from tests.support.consumer_entries import START_US, entry_id, trade
from tests.support.consumer_worker import Worker
from tests.support.eventually import eventually
from tests.support.redis_sets import Cluster, running_cluster
from tests.support.set_run import OF_FOUR_SHARDS

SPACE = KeySpace("{bridge}:", 4)
STREAMS = [f"trade.{market}" for market in OF_FOUR_SHARDS]
VARIABLES = {
    "BRIDGE_REDIS__SHARDS": "4",
    "BRIDGE_REDIS__CONNECT_TIMEOUT_S": "1",
    "BRIDGE_REDIS__COMMAND_TIMEOUT_S": "1",
}
CONSUMERS = """
from consumers import Consumer

class Shared(Consumer):
    name = "shared"
    streams = ("trade.*",)

    async def on_event(self, delivery, results):
        results.hincrby("", "count", 1)

class Ordered(Consumer):
    name = "ordered"
    mode = "ordered"
    streams = ("trade.*",)

    def on_event(self, delivery):
        self.state["count"] = self.state.get("count", 0) + 1

    def write(self, results):
        results.hset("", {"count": self.state.get("count", 0)})

class Joined(Ordered):
    name = "joined"
    mode = "joined"

    def joined_by(self, stream):
        return stream.partition(".")[2].removesuffix("_PERP")

class All(Joined):
    name = "all"

    def joined_by(self, stream):
        return "all"
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with running_cluster(primaries=4, replicas=0) as nodes:
        yield nodes


@pytest.fixture
def client(cluster: Cluster) -> Iterator[redis.Redis]:
    with connect_blocking(with_tag(cluster.url, SPACE.prefix, 4), name="test") as one:
        for stream in STREAMS:
            one.delete(SPACE.key(stream))
            one.hset(SPACE.key("bridge:streams"), stream, "{}")
        yield one


def _add(client: redis.Redis, streams: Sequence[str], first: int, count: int) -> None:
    for stream in streams:
        for number in range(first, first + count):
            at_us = START_US + number * 1000
            client.xadd(SPACE.key(stream), trade(number, at_us), id=entry_id(at_us, number))  # type: ignore[arg-type]


def _counts(client: redis.Redis, group: str, streams: Sequence[str]) -> Mapping[str, int]:
    keys = Keys(SPACE)
    return {one: int(client.hget(keys.beside(one, group), "count") or 0) for one in streams}  # type: ignore[arg-type]


@pytest.mark.parametrize("away", [0, 3])
def test_consumers_of_other_shards_continue_while_a_node_is_unavailable(
    away: int, cluster: Cluster, client: redis.Redis, tmp_path: Path
) -> None:
    (tmp_path / "kinds.py").write_text(CONSUMERS)
    others = [stream for number, stream in enumerate(STREAMS) if number != away]
    owner = cluster.at(SPACE.prefix_of(away)).owner()
    groups = [f"{kind}-{away}" for kind in ("shared", "ordered")]
    workers = [
        Worker(
            tmp_path, cluster.url, f"kinds:{group.split('-')[0].title()}", "--group", group,
            "--from", "beginning", name=group, **VARIABLES,
        )
        for group in groups
    ]  # fmt: skip
    try:
        _add(client, STREAMS, 1, 20)
        for group in groups:
            _await_counts(client, group, STREAMS, 20, workers)
        owner.pause()
        _add(client, others, 21, 20)
        for group in groups:
            _await_counts(client, group, others, 40, workers)
        owner.resume()
        _add(client, [STREAMS[away]], 21, 20)
        for group in groups:
            _await_counts(client, group, STREAMS, 40, workers)
        assert [worker.stop() for worker in workers] == [0, 0]
    finally:
        owner.resume()
        for worker in workers:
            if worker.process.poll() is None:
                worker.kill()


def _await_counts(
    client: redis.Redis, group: str, streams: Sequence[str], count: int, workers: Sequence[Worker]
) -> None:
    wanted = dict.fromkeys(streams, count)
    try:
        eventually(
            lambda: _counts(client, group, streams) == wanted,
            f"{group} has handled all entries",
            40,
        )
    except AssertionError as error:
        output = "\n".join(worker.err[-3000:] for worker in workers)
        raise AssertionError(f"{error} {_counts(client, group, streams)}\n{output}") from None


def test_joined_streams_of_one_pair_are_read_and_those_of_several_shards_refused(
    cluster: Cluster, client: redis.Redis, tmp_path: Path
) -> None:
    (tmp_path / "kinds.py").write_text(CONSUMERS)
    arguments = ("--from", "beginning")
    apart = Worker(tmp_path, cluster.url, "kinds:Joined", *arguments, name="j", **VARIABLES)
    perpetuals = [f"{stream}_PERP" for stream in STREAMS]
    client.hset(SPACE.key("bridge:streams"), mapping=dict.fromkeys(perpetuals, "{}"))
    together = Worker(tmp_path, cluster.url, "kinds:All", *arguments, name="a", **VARIABLES)
    try:
        _add(client, [*STREAMS, *perpetuals], 1, 5)
        assert together.wait() == 2
        expected = "All joins as 'all' streams of several shards (trade.JUP_USDC_PERP in shard 0, "
        assert expected in together.err
        keys = [
            f"{SPACE.prefix_of(n)}consumers:joined.{m}:joined" for n, m in enumerate(OF_FOUR_SHARDS)
        ]
        eventually(
            lambda: [client.hget(key, "count") for key in keys] == ["10"] * 4,
            "all entries are counted",
        )
        for key in keys:  # the leases are renewed although no entry is committed
            eventually(lambda: _left_ms(client, key) < 9600, "the lease's remaining time falls")  # noqa: B023
            eventually(lambda: _left_ms(client, key) > 9600, "the lease is renewed")  # noqa: B023
        assert apart.stop() == 0
    finally:
        client.hdel(SPACE.key("bridge:streams"), *perpetuals)
        for worker in (apart, together):
            if worker.process.poll() is None:
                worker.kill()


def _left_ms(client: redis.Redis, key: str) -> int:
    return int(client.pttl(f"{key}:lease"))  # type: ignore[arg-type]
