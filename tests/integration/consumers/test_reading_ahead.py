"""The next batch is read while one is handled: nothing of it is lost, or handed out twice."""

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as NoConnection
from redis.exceptions import ResponseError

from bridge.runtime.redis_client import connect
from consumers.ahead import Ahead
from consumers.group import Group
from consumers.keys import Keys
from tests.support.consumer_entries import START_US, entry_id, trade
from tests.support.consumer_worker import Bench

STREAM = "trade.SOL_USDC"
MANY = 3000

# Handles fast, and so reads ahead; `stop_at` ends it in the middle of a batch.
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


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[Redis]:
    async with connect(redis_url, name="test", decode_responses=True) as redis:
        yield redis


async def test_what_is_read_ahead_is_what_a_read_gives(client: Redis) -> None:
    for one in ("5-0", "6-0", "7-0"):
        await client.xadd(STREAM, {"a": "b"}, id=one)
    group = Group(client, Keys(), "quick", "w")
    await group.join({STREAM: ("0-0", "")})

    await group.read_ahead([STREAM], 2)
    assert group.is_read_ahead
    assert await group.take_ahead() == {STREAM: [("5-0", {"a": "b"}), ("6-0", {"a": "b"})]}
    assert not group.is_read_ahead
    assert await group.read([STREAM], 2, None) == {STREAM: [("7-0", {"a": "b"})]}
    await group.read_ahead([STREAM], 2)
    assert await group.take_ahead() == {}


async def test_a_refusal_comes_with_the_answer_and_the_connection_goes_on(client: Redis) -> None:
    ahead = Ahead(client)
    await ahead.ask("XREADGROUP", "GROUP", "none", "w", "STREAMS", STREAM, ">")
    with pytest.raises(ResponseError, match="NOGROUP"):
        await ahead.answer()

    assert not ahead.is_asked
    assert await client.ping()
    assert len(await client.client_list()) == 1


async def test_a_connection_that_breaks_is_made_again(client: Redis) -> None:
    ahead = Ahead(client)
    await ahead.ask("BLPOP", "nothing", 0)
    [blocked] = [each for each in await client.client_list() if each["cmd"] == "blpop"]
    await client.client_kill_filter(_id=blocked["id"])
    with pytest.raises(NoConnection):
        await ahead.answer()

    assert not ahead.is_asked
    await ahead.ask("PING")
    assert await ahead.answer()


@pytest.fixture
def quick(bench: Bench) -> Bench:
    (bench.folder / "outside.py").write_text(QUICK)
    bench.register(STREAM)
    ids = {n: entry_id(START_US + n * 1000, n) for n in range(1, MANY + 1)}
    bench.add(STREAM, {one: trade(n, START_US + n * 1000) for n, one in ids.items()})
    return bench


def counted(bench: Bench) -> dict[int, int]:
    found: dict[str, str] = bench.redis.hgetall(  # type: ignore[assignment]
        f"consumers:{{{STREAM}}}:quick"
    )
    return {int(number): int(times) for number, times in found.items()}


def test_what_is_read_already_is_finished_before_a_worker_stops(quick: Bench) -> None:
    worker = quick.start("outside:Quick", "--option", "slow_s=0.00005")
    quick.until(lambda: len(counted(quick)) > MANY // 3)
    assert worker.stop() == 0

    about = quick.group(STREAM, "quick")
    assert (about["pending"], about["consumers"]) == (0, 0)
    assert len(counted(quick)) == about["entries-read"]


def test_what_is_read_and_not_handled_is_another_workers(quick: Bench) -> None:
    first = quick.start("outside:Quick", "--lease", "1", "--option", f"stop_at={MANY // 2 + 7}")
    assert first.wait() == 0
    assert quick.group(STREAM, "quick")["pending"] > 0
    assert set(counted(quick)) == set(range(1, MANY // 2 + 7))

    quick.start("outside:Quick", "--lease", "1")
    quick.await_group(STREAM, "quick", entry_id(START_US + MANY * 1000, MANY))
    assert counted(quick) == dict.fromkeys(range(1, MANY + 1), 1)
