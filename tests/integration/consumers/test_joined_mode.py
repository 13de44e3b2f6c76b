"""Joined mode and timers with real workers: results stay correct when any worker is killed."""

import signal
import time

import pytest

from tests.support.consumer_entries import START_US, trade
from tests.support.consumer_worker import Bench
from tests.support.eventually import eventually
from tests.support.spread_pairs import ASSETS, Pairs

pytestmark = pytest.mark.timeout(120)

TICKS = """
from backpack_bridge import Consumer, every

class Ticking(Consumer):
    name = "ticking"
    streams = ("trade.*",)

    def on_trade(self, delivery, results):
        pass

    @every("1s")
    def tell(self, tick, results):
        results.xadd("reports", "*", {"at_us": str(tick.at_us)}, keep_entries=1000)
"""

FAILING = """
import asyncio, time
import redis, os
from backpack_bridge import Consumer

client = redis.Redis.from_url(os.environ["BRIDGE_REDIS__URL"], decode_responses=True)

class Failing(Consumer):
    name = "failing"
    streams = ("trade.*",)
    mode = "joined"
    join_wait_s = 0.2

    def joined_by(self, stream):
        return "all"

class Writes(Failing):
    def on_trade(self, delivery, results):
        self.state["n"] = self.state.get("n", 0) + 1
        if client.exists("fails"):
            time.sleep(1.1)  # so that it is handed over alone

    def write(self, results):
        if client.exists("fails"):
            raise ValueError("no")

class Cancels(Failing):
    concurrency = 2

    def key(self, delivery):
        return delivery.stream

    async def on_trade(self, delivery, results):
        if delivery.event.trade_id == 2 and client.exists("fails"):
            asyncio.current_task().cancel()
            await asyncio.sleep(0)
        results.hincrby("", "n", 1)
"""

STOPPING = """
from backpack_bridge import Consumer, StopWorker

class Stopping(Consumer):
    name = "stopping"
    streams = ("trade.*",)
    mode = "joined"
    join_wait_s = 0

    def joined_by(self, stream):
        return stream.removeprefix("trade.")

    def on_trade(self, delivery, results):
        results.hincrby("", "trades", 1)

    def on_missed(self, missed):
        raise StopWorker
"""


def test_spreads_are_correct_with_three_workers_of_which_one_is_killed(
    bench: Bench,
) -> None:
    pairs = Pairs(bench)
    pairs.add(3000)
    run = ("examples.spread:Spread", "--lease", "1")
    workers = [bench.start(*run) for _ in range(3)]
    bench.until(lambda: all(pairs.values(asset) for asset in ASSETS))
    pairs.add(500)
    workers[0].kill()
    for _ in range(5):
        pairs.add(100)
    bench.until(lambda: all(len(pairs.values(a)) >= len(pairs.truth[a]) for a in ASSETS))
    for asset in ASSETS:
        assert pairs.values(asset) == pairs.truth[asset]
    assert all(worker.stop() == 0 for worker in workers[1:])


def test_an_emptied_redis_gets_the_positions_and_the_state_of_joined_streams_back(
    bench: Bench,
) -> None:
    pairs = Pairs(bench)
    pairs.add(200)
    worker = bench.start("examples.spread:Spread", "--lease", "1")
    bench.until(lambda: all(pairs.values(a) == pairs.truth[a] for a in ASSETS))
    before = {asset: len(pairs.truth[asset]) for asset in ASSETS}
    kept = {key: bench.redis.dump(key) for key in bench.redis.scan_iter("bookTicker.*")}
    bench.redis.flushall()
    for key, value in kept.items():
        bench.redis.restore(key, 0, value)  # type: ignore[arg-type]
    for asset in ASSETS:
        bench.register(*(f"bookTicker.{asset}_USDC{leg}" for leg in ("", "_PERP")))
    pairs.add(200)
    for asset in ASSETS:
        truth = pairs.truth[asset][before[asset] :]
        bench.until(lambda: pairs.values(asset) == truth)  # noqa: B023
    assert "position_put_back" in worker.err


def test_a_timer_of_a_shared_group_runs_once_for_each_second_over_three_workers(
    bench: Bench,
) -> None:
    (bench.folder / "outside.py").write_text(TICKS)
    bench.register("trade.SOL_USDC")
    bench.add("trade.SOL_USDC", {"1-1": trade(1, START_US)})
    workers = [bench.start("outside:Ticking", "--lease", "1") for _ in range(3)]
    key = "consumers:{timers}:ticking:reports"
    bench.until(lambda: bench.redis.xlen(key) >= 2)
    owner = str(bench.redis.get("consumers:{timers}:ticking:lease")).split("/")[0]
    killed_at = time.time()
    [victim] = [worker for worker in workers if worker.name == owner]
    victim.kill()
    killed_us = int(killed_at * 1_000_000)
    bench.until(
        lambda: any(int(row["at_us"]) > killed_us for _, row in bench.redis.xrevrange(key))  # type: ignore[union-attr]
    )
    times = [int(row["at_us"]) for _, row in bench.redis.xrange(key)]  # type: ignore[union-attr, index]
    assert times == sorted(set(times))
    assert all(at_us % 1_000_000 == 0 for at_us in times)


@pytest.mark.parametrize("name", ["Writes", "Cancels"])
def test_joined_streams_whose_consumer_fails_are_paused_and_continue(
    bench: Bench, name: str
) -> None:
    (bench.folder / "outside.py").write_text(FAILING)
    for stream in ("trade.A_USDC", "trade.B_USDC"):
        bench.register(stream)
        bench.add(stream, {f"{n}-0": trade(n, START_US) for n in range(1, 5)})
    bench.redis.set("fails", "1")
    worker = bench.start(f"outside:{name}", "--lease", "1")
    bench.until(lambda: "handler_failed" in worker.err)
    bench.redis.delete("fails")
    for stream in ("trade.A_USDC", "trade.B_USDC"):
        bench.await_group(stream, "failing", "4-0")
    assert "Traceback" not in worker.err
    assert worker.stop() == 0


def test_results_committed_with_those_of_a_stream_that_ends_the_worker_count_once(
    bench: Bench,
) -> None:
    (bench.folder / "outside.py").write_text(STOPPING)
    markets = [f"{letter}_USDC" for letter in "ABCDEFGH"]
    for market in markets:
        bench.register(f"trade.{market}")
        bench.add(f"trade.{market}", {"1-0": trade(1, START_US)})
    worker = bench.start("outside:Stopping")
    for market in markets:
        bench.await_group(f"trade.{market}", "stopping", "1-0")

    worker.signal(signal.SIGSTOP)
    # its blocking read has ended: the next one finds all streams
    eventually(lambda: bench.redis.info("clients")["blocked_clients"] == 0, "none is blocked")
    trimmed = f"trade.{markets[0]}"
    bench.add(trimmed, {f"{number}-0": trade(number, START_US) for number in range(2, 5)})
    bench.redis.xtrim(trimmed, maxlen=1, approximate=False)
    for market in markets[1:]:
        bench.add(f"trade.{market}", {"2-0": trade(2, START_US)})
    worker.signal(signal.SIGCONT)

    assert worker.wait() == 0
    for market in markets:
        key = f"consumers:{{joined.{market}}}:stopping"
        assert bench.redis.hget(key, "trades") == "2", market
