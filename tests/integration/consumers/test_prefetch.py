"""Prefetch: entries read while a batch is handled are neither lost nor delivered twice."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as NoConnection
from redis.exceptions import ResponseError

from bridge.runtime.redis_client import connect
from consumers.kit.ordered.read_ahead import ReadAhead
from consumers.kit.redis.keys import Keys
from consumers.kit.redis.prefetch import Prefetch
from consumers.kit.shared.group import Group
from tests.support.consumer_entries import START_US, Fields, entry_id, trade
from tests.support.consumer_worker import Bench
from tests.support.consumer_worker import bench as running_bench
from tests.support.redis_server import running_redis

STREAM = "trade.SOL_USDC"
MANY = 3000

# Handles fast, so the worker reads ahead; `stop_at` ends it in the middle of a batch.
QUICK = """
import time
from consumers import Consumer, StopWorker

class Quick(Consumer):
    name = "quick"
    streams = ("trade.*",)
    batch_entries = 100

    def __init__(self, stop_at="0", slow_s="0"):
        self.stop_at, self.slow_s = int(stop_at), float(slow_s)

    def on_trade(self, delivery, results):
        if delivery.event.trade_id == self.stop_at:
            raise StopWorker
        time.sleep(self.slow_s)
        results.hincrby("", str(delivery.event.trade_id), 1)
"""

# Reads ahead as well. `fails_at` fails once; `slow_at` lets only a part of its batch be handled.
IN_ORDER = """
import time
from consumers import Consumer

class InOrder(Consumer):
    name = "quick"
    streams = ("trade.*",)
    mode = "ordered"
    batch_entries = 100
    has_failed = False

    def __init__(self, fails_at="0", slow_at="0"):
        self.fails_at, self.slow_at = int(fails_at), int(slow_at)

    def on_trade(self, delivery, results):
        number = delivery.event.trade_id
        if number == self.fails_at and not InOrder.has_failed:
            InOrder.has_failed = True
            raise ValueError("once")
        if number == self.slow_at:
            time.sleep(1.5)
        if self.state.get("last", 0) != number - 1:
            results.hincrby("", "0", 1)
        self.state["last"] = number
        results.hincrby("", str(number), 1)
"""

# Trims entries after its position that the worker has already read ahead.
TRIMMED = """
import os
import redis
from consumers import Consumer
from consumers.kit.ordered.read_ahead import ReadAhead

control = redis.Redis.from_url(os.environ["BRIDGE_REDIS__URL"], decode_responses=True)
send, requested = ReadAhead.send, []

async def note(ahead, positions, count):
    requested.append(positions)
    await send(ahead, positions, count)

class Trimmed(Consumer):
    name = "quick"
    streams = ("trade.*",)
    mode = "ordered"
    batch_entries = 100
    has_trimmed = False

    def __init__(self):
        ReadAhead.send = note

    def on_trade(self, delivery, results):
        results.hincrby("", str(delivery.event.trade_id), 1)
        if requested and not Trimmed.has_trimmed:
            Trimmed.has_trimmed = True
            [position] = requested[-1].values()
            ms = int(position.partition("-")[0])
            control.xtrim(delivery.stream, minid=f"{ms + 101}-0", approximate=False)

    def on_missed(self, missed):
        control.incrby("missed", missed.entries)
"""

# Closes the connection of a read that blocks in Redis: the reply is lost during the handling.
CUT = """
import os, time
import redis
from consumers import Consumer
from consumers.kit.shared.group import Group

control = redis.Redis.from_url(os.environ["BRIDGE_REDIS__URL"], decode_responses=True)
prefetch, held = Group.prefetch, []

async def hold(group, streams, count):
    if not held:
        control.client_pause(60_000, all=False)
    held.append(count)
    await prefetch(group, streams, count)

class Cut(Consumer):
    name = "quick"
    streams = ("trade.*",)
    batch_entries = 100
    has_cut = False

    def __init__(self):
        Group.prefetch = hold

    def on_trade(self, delivery, results):
        if held and not self.has_cut:
            self.has_cut = True
            blocked = []
            while not blocked:
                time.sleep(0.01)
                clients = [one for one in control.client_list() if "b" in one["flags"]]
                blocked = [one for one in clients if one["cmd"] == "xreadgroup"]
            for one in blocked:
                control.client_kill_filter(_id=one["id"])
            control.client_unpause()
        results.hincrby("", str(delivery.event.trade_id), 1)
"""


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[Redis]:
    async with connect(redis_url, name="test", decode_responses=True) as redis:
        yield redis


async def test_prefetched_entries_are_those_of_a_read(client: Redis) -> None:
    for one in ("5-0", "6-0", "7-0"):
        await client.xadd(STREAM, {"a": "b"}, id=one)
    group = Group(client, Keys(), "quick", "w")
    await group.join({STREAM: ("0-0", "")})

    await group.prefetch([STREAM], 2)
    assert group.is_prefetching
    assert await group.take_prefetched() == {STREAM: [("5-0", ["a", "b"]), ("6-0", ["a", "b"])]}
    assert not group.is_prefetching
    assert await group.read([STREAM], 2, None) == {STREAM: [("7-0", ["a", "b"])]}
    await group.prefetch([STREAM], 2)
    assert await group.take_prefetched() == {}


async def test_prefetch_raises_a_refusal_on_receive_and_keeps_the_connection(client: Redis) -> None:
    prefetch = Prefetch(client)
    await prefetch.send("XREADGROUP", "GROUP", "none", "w", "STREAMS", STREAM, ">")
    with pytest.raises(ResponseError, match="NOGROUP"):
        await prefetch.receive()

    assert not prefetch.is_sent
    assert await client.ping()
    assert len(await client.client_list()) == 1


async def test_prefetch_reconnects_after_a_broken_connection(client: Redis) -> None:
    prefetch = Prefetch(client)
    await prefetch.send("BLPOP", "nothing", 0)
    [blocked] = [each for each in await client.client_list() if each["cmd"] == "blpop"]
    await client.client_kill_filter(_id=blocked["id"])
    with pytest.raises(NoConnection):
        await prefetch.receive()

    assert not prefetch.is_sent
    await prefetch.send("PING")
    assert await prefetch.receive()


async def test_read_ahead_is_used_if_the_positions_match(client: Redis) -> None:
    for one in ("5-0", "6-0", "7-0"):
        await client.xadd(STREAM, {"a": "b"}, id=one)
    ahead = ReadAhead(client)
    assert not await ahead.take({STREAM: "0-0"}, 2)

    await ahead.send({STREAM: "5-0"}, 2)
    assert await ahead.take({STREAM: "5-0"}, 2) == {
        STREAM: [("6-0", ["a", "b"]), ("7-0", ["a", "b"])]
    }
    await ahead.send({STREAM: "5-0"}, 2)
    assert not await ahead.take({STREAM: "0-0"}, 2), "it returned entries for another position"
    assert not await ahead.take({STREAM: "5-0"}, 2), "it returned a discarded reply"
    await ahead.send({STREAM: "5-0"}, 2)
    assert not await ahead.take({STREAM: "5-0"}, 1), "it returned more entries than requested"
    await ahead.send({STREAM: "7-0"}, 2)
    assert not await ahead.take({STREAM: "7-0"}, 2), "it returned an empty reply"


async def test_read_ahead_on_a_broken_connection_returns_nothing() -> None:
    with running_redis() as server:
        async with connect(server.url, name="test", decode_responses=True) as client:
            await client.xadd(STREAM, {"a": "b"}, id="5-0")
            ahead = ReadAhead(client)
            server.pause()
            await ahead.send({STREAM: "0-0"}, 2)
            server.kill()
            assert not await ahead.take({STREAM: "0-0"}, 2), (
                "it returned entries over a broken connection"
            )

            server.start()
            await ahead.send({STREAM: "0-0"}, 2)
            assert not await ahead.take({STREAM: "0-0"}, 2), "it returned entries of an empty Redis"


async def test_read_ahead_after_drop_does_not_wait_for_the_reply(client: Redis) -> None:
    await client.xadd(STREAM, {"a": "b"}, id="5-0")
    ahead = ReadAhead(client)
    await ahead.send({STREAM: "0-0"}, 2)
    await ahead.drop()

    assert not await ahead.take({STREAM: "0-0"}, 2)
    assert await client.ping(), "a later request got the dropped reply"


def last_id(number: int) -> str:
    return entry_id(START_US + number * 1000, number)


def trades(first: int, last: int) -> dict[str, Fields]:
    return {last_id(n): trade(n, START_US + n * 1000) for n in range(first, last + 1)}


@pytest.fixture
def quick(bench: Bench) -> Bench:
    (bench.folder / "outside.py").write_text(QUICK + IN_ORDER + TRIMMED + CUT)
    bench.register(STREAM)
    bench.add(STREAM, trades(1, MANY))
    return bench


def counted(bench: Bench) -> dict[int, int]:
    found: dict[str, str] = bench.redis.hgetall(  # type: ignore[assignment]
        f"consumers:{{{STREAM}}}:quick"
    )
    return {int(number): int(times) for number, times in found.items()}


def test_prefetched_entries_are_given_back_when_a_worker_stops(quick: Bench) -> None:
    worker = quick.start("outside:Quick", "--option", "slow_s=0.00005")
    quick.until(lambda: len(counted(quick)) > MANY // 3)
    assert worker.stop() == 0

    about = quick.group(STREAM, "quick")
    assert len(counted(quick)) == about["entries-read"] - about["pending"]
    left = quick.redis.xpending_range(STREAM, "quick", "-", "+", 2000)
    # Never handled, and idle for as long as a lease: another worker may claim them at once.
    assert all(one["times_delivered"] == 0 for one in left)
    assert all(one["time_since_delivered"] >= 10_000 for one in left)

    quick.start("outside:Quick", "--lease", "1")
    quick.await_group(STREAM, "quick", last_id(MANY))
    assert counted(quick) == dict.fromkeys(range(1, MANY + 1), 1)


def test_prefetched_entries_go_to_another_worker_after_stop_worker(quick: Bench) -> None:
    first = quick.start("outside:Quick", "--lease", "1", "--option", f"stop_at={MANY // 2 + 7}")
    assert first.wait() == 0
    assert quick.group(STREAM, "quick")["pending"] > 0
    assert set(counted(quick)) == set(range(1, MANY // 2 + 7))

    quick.start("outside:Quick", "--lease", "1")
    quick.await_group(STREAM, "quick", last_id(MANY))
    assert counted(quick) == dict.fromkeys(range(1, MANY + 1), 1)


def test_prefetched_entries_whose_connection_was_cut_meanwhile_are_tried_again(
    quick: Bench,
) -> None:
    worker = quick.start("outside:Cut", "--lease", "5")
    quick.await_group(STREAM, "quick", last_id(MANY))
    assert counted(quick) == dict.fromkeys(range(1, MANY + 1), 1)
    assert "redis_unavailable" not in worker.err, "the log reports an outage"


@pytest.mark.parametrize("option", ["fails_at=1507", "slow_at=1507", "slow_at=0"])
def test_entries_that_are_read_ahead_are_handled_in_order_and_once(
    quick: Bench, option: str
) -> None:
    quick.start("outside:InOrder", "--lease", "5", "--option", option)
    quick.until(lambda: len(counted(quick)) >= MANY)
    assert counted(quick) == dict.fromkeys(range(1, MANY + 1), 1)


def test_entries_that_are_read_ahead_go_to_the_next_owner_of_the_stream(quick: Bench) -> None:
    worker = quick.start("outside:InOrder", "--lease", "1", "--option", "slow_at=1507")
    quick.until(lambda: len(counted(quick)) > MANY // 3)
    worker.kill()
    quick.start("outside:InOrder", "--lease", "1")
    quick.until(lambda: len(counted(quick)) >= MANY)
    assert counted(quick) == dict.fromkeys(range(1, MANY + 1), 1)


def test_entries_that_are_reported_as_missed_are_not_handled_after_all(quick: Bench) -> None:
    quick.start("outside:Trimmed", "--lease", "5")
    quick.until(lambda: quick.redis.get("missed"))
    missed = int(quick.redis.get("missed") or 0)  # type: ignore[arg-type]
    quick.until(lambda: len(counted(quick)) + missed >= MANY)
    assert missed == 100
    assert counted(quick) == dict.fromkeys(counted(quick), 1)
    quick.await_group(STREAM, "quick", last_id(MANY))
    assert len(counted(quick)) + missed == MANY


@pytest.mark.parametrize("kind", ["Quick", "InOrder"])
def test_worker_without_a_prefetch_connection_loses_nothing(tmp_path: Path, kind: str) -> None:
    with running_redis() as server, running_bench(tmp_path, server.url) as one:
        (one.folder / "outside.py").write_text(QUICK + IN_ORDER)
        one.register(STREAM)
        one.add(STREAM, trades(1, 1))
        worker = one.start(f"outside:{kind}", "--lease", "5")
        one.await_group(STREAM, "quick", last_id(1))
        one.redis.config_set("maxclients", len(one.redis.client_list()))
        one.add(STREAM, trades(2, MANY))
        one.await_group(STREAM, "quick", last_id(MANY))
        assert counted(one) == dict.fromkeys(range(1, MANY + 1), 1)
        assert worker.err.count("redis_unavailable") <= 1
