"""Shared mode with real workers on a real Redis: every entry is handled at least once."""

import signal
import time
from collections import Counter
from pathlib import Path

import pytest
import redis

from tests.support.consumer_entries import START_US, Fields, entry_id, trade
from tests.support.consumer_worker import Bench, Worker
from tests.support.consumer_worker import bench as running_bench
from tests.support.redis_server import running_redis

pytestmark = pytest.mark.timeout(180)  # several processes each, on a busy machine

STREAM = "trade.SOL_USDC"

# A user's consumer that counts in Redis itself; at-least-once is enough for that.
COUNTING = """
import asyncio, os, time
import redis
from consumers import Consumer

class Counting(Consumer):
    name = "counting"
    streams = ("trade.*",)

    def __init__(self, slow_s="0", fails_at="none"):
        self.redis = redis.Redis.from_url(os.environ["BRIDGE_REDIS__URL"])
        self.slow_s, self.fails_at = float(slow_s), fails_at

    def on_trade(self, delivery):
        if str(delivery.event.trade_id) == self.fails_at and not self.redis.exists("cured"):
            self.redis.incr("attempts")
            raise ValueError("not to my taste")
        time.sleep(self.slow_s)
        self.redis.hincrby("seen:" + delivery.stream, delivery.event.trade_id, 1)

class Portioned(Counting):
    batch_entries = 150

class Slowly(Counting):
    def on_trade(self, delivery):
        time.sleep(0.05)
        super().on_trade(delivery)

class Held(Counting):
    async def on_trade(self, delivery):
        while self.redis.exists("hold"):
            self.redis.set("held", delivery.entry_id)
            await asyncio.sleep(0.05)
        super().on_trade(delivery)
"""


def trades(first: int, last: int) -> dict[str, Fields]:
    return {
        entry_id(START_US + n * 1000, n): trade(n, START_US + n * 1000)
        for n in range(first, last + 1)
    }


def last_id(number: int) -> str:
    return entry_id(START_US + number * 1000, number)


def seen(bench: Bench, stream: str = STREAM) -> Counter[int]:
    found: dict[str, str] = bench.redis.hgetall(f"seen:{stream}")  # type: ignore[assignment]
    return Counter({int(number): int(times) for number, times in found.items()})


@pytest.fixture
def counting(bench: Bench) -> Bench:
    (bench.folder / "outside.py").write_text(COUNTING)
    return bench


RUN = ("outside:Counting", "--lease", "1")


def test_a_consumer_from_outside_handles_everything_from_the_beginning(counting: Bench) -> None:
    counting.register(STREAM)
    counting.add(STREAM, trades(1, 700))
    worker = counting.start(*RUN)
    counting.await_group(STREAM, "counting", last_id(700))
    counting.add(STREAM, trades(701, 750))
    counting.await_group(STREAM, "counting", last_id(750))
    assert seen(counting) == Counter(range(1, 751))
    assert worker.stop() == 0


def test_a_plain_call_of_three_leases_is_claimed_by_no_other_worker(counting: Bench) -> None:
    counting.register(STREAM)
    counting.add(STREAM, trades(1, 1))
    run = ("outside:Counting", "--lease", "0.5", "-o", "slow_s=1.5")
    workers = [counting.start(*run) for _ in range(3)]
    counting.await_group(STREAM, "counting", last_id(1))
    assert seen(counting) == Counter([1])
    assert not any("claimed" in worker.err for worker in workers)


def test_from_new_reads_later_entries_and_all_of_a_later_stream(counting: Bench) -> None:
    counting.register(STREAM)
    counting.add(STREAM, trades(1, 10))
    counting.start(*RUN, "--from", "new")
    counting.until(lambda: counting.group(STREAM, "counting"))
    counting.add(STREAM, trades(11, 20))
    counting.await_group(STREAM, "counting", last_id(20))
    assert seen(counting) == Counter(range(11, 21))
    counting.add("trade.LATE_USDC", trades(1, 5))
    counting.register("trade.LATE_USDC")
    counting.await_group("trade.LATE_USDC", "counting", last_id(5))
    assert seen(counting, "trade.LATE_USDC") == Counter(range(1, 6))


def test_a_group_from_an_id_begins_with_it(counting: Bench) -> None:
    counting.register(STREAM)
    counting.add(STREAM, trades(1, 10))
    counting.start(*RUN, "--from", last_id(8))
    counting.await_group(STREAM, "counting", last_id(10))
    assert seen(counting) == Counter([8, 9, 10])


def test_a_group_from_a_time_begins_with_entries_of_that_time(counting: Bench) -> None:
    counting.register(STREAM)
    counting.add(STREAM, trades(1, 10))
    counting.start(*RUN, "--from", "2026-09-02T16:44:00.007")
    counting.await_group(STREAM, "counting", last_id(10))
    assert seen(counting) == Counter([7, 8, 9, 10])


def test_workers_of_a_group_share_entries_with_each_other_only(counting: Bench) -> None:
    counting.register(STREAM)
    workers = [counting.start(*RUN) for _ in range(2)]
    counting.until(lambda: all(counting.status("counting", worker) for worker in workers))
    counting.add(STREAM, trades(1, 2000))
    counting.start(*RUN, "--group", "others")
    counting.await_group(STREAM, "counting", last_id(2000))
    counting.await_group(STREAM, "others", last_id(2000))
    assert seen(counting) == Counter(dict.fromkeys(range(1, 2001), 2))


def test_entries_pending_under_a_workers_own_name_come_first(counting: Bench) -> None:
    counting.register(STREAM)
    counting.add(STREAM, trades(1, 5))
    counting.redis.xgroup_create(STREAM, "counting", "0")
    counting.redis.xreadgroup("counting", "w0", {STREAM: ">"}, count=3)  # as before a crash
    worker = counting.start(*RUN)
    assert worker.name == "w0"
    counting.await_group(STREAM, "counting", last_id(5))
    assert seen(counting) == Counter([1, 2, 3, 4, 5])


def test_two_workers_of_one_name_report_it_but_not_after_a_kill(
    counting: Bench,
) -> None:
    counting.register(STREAM)
    killed = counting.start(*RUN)
    counting.until(lambda: counting.status("counting", killed))
    killed.kill()
    apart = counting.folder / "apart"
    apart.mkdir()
    (apart / "outside.py").write_text(COUNTING)
    first = Worker(apart, counting.url, *RUN, name=killed.name)
    counting.workers.append(first)
    counting.add(STREAM, trades(1, 5))
    counting.await_group(STREAM, "counting", last_id(5))
    assert "worker_name_taken" not in first.err
    second = counting.start(*RUN, name=killed.name)
    for worker, other in ((first, second), (second, first)):
        reported = f'"by": "process {other.process.pid} on '
        counting.until(lambda: reported in worker.err)  # noqa: B023


def test_entries_whose_reply_was_lost_with_the_connection_are_read_again(counting: Bench) -> None:
    counting.register(STREAM)
    counting.add(STREAM, trades(1, 5))
    worker = counting.start(*RUN, "--lease", "60")
    counting.await_group(STREAM, "counting", last_id(5))
    worker.signal(signal.SIGSTOP)
    counting.add(STREAM, trades(6, 20))
    # The worker's blocked read may have taken some; the others are delivered under its name here.
    counting.redis.xreadgroup("counting", worker.name, {STREAM: ">"})
    for client in counting.redis.client_list():
        if client["name"] == f"consumer:counting:{worker.name}":
            counting.redis.client_kill_filter(_id=client["id"])
    worker.signal(signal.SIGCONT)
    counting.await_group(STREAM, "counting", last_id(20))
    assert set(seen(counting)) == set(range(1, 21))


def test_entries_of_a_dead_worker_are_claimed_and_its_name_removed(counting: Bench) -> None:
    counting.register(STREAM)
    counting.add(STREAM, trades(1, 300))
    counting.redis.xgroup_create(STREAM, "counting", "0")
    counting.redis.xreadgroup("counting", "dead", {STREAM: ">"}, count=250)
    counting.start(*RUN)
    counting.await_group(STREAM, "counting", last_id(300))
    assert seen(counting) == Counter(range(1, 301))
    counting.until(
        lambda: [c["name"] for c in counting.redis.xinfo_consumers(STREAM, "counting")] == ["w0"]
    )


def test_pending_entries_that_were_trimmed_are_settled(counting: Bench) -> None:
    counting.register(STREAM)
    counting.add(STREAM, trades(1, 20))
    counting.redis.xgroup_create(STREAM, "counting", "0")
    counting.redis.xreadgroup("counting", "w0", {STREAM: ">"}, count=5)
    counting.redis.xreadgroup("counting", "dead", {STREAM: ">"}, count=5)
    counting.redis.xtrim(STREAM, minid=last_id(8), approximate=False)
    worker = counting.start(*RUN)
    counting.await_group(STREAM, "counting", last_id(20))
    assert seen(counting) == Counter(range(8, 21))
    assert "entry_not_understood" not in worker.err


def test_killed_workers_lose_no_entry(counting: Bench) -> None:
    counting.register(STREAM)
    counting.add(STREAM, trades(1, 1500))
    run = (*RUN, "--option", "slow_s=0.0005")
    victim = counting.start(*run)
    counting.until(lambda: len(seen(counting)) > 200)
    victim.kill()
    counting.start(*run)
    counting.start(*run)
    counting.await_group(STREAM, "counting", last_id(1500))
    assert set(seen(counting)) == set(range(1, 1501))


WAITING = """
import asyncio, os
import redis.asyncio as redis
from consumers import Consumer

class Waiting(Consumer):
    name = "counting"
    streams = ("trade.*",)

    async def on_trade(self, delivery):
        async with redis.Redis.from_url(os.environ["BRIDGE_REDIS__URL"]) as client:
            await client.set("in hand", "1")
            while not await client.exists("go on"):
                await asyncio.sleep(0.05)
            await client.hincrby("seen:" + delivery.stream, delivery.event.trade_id, 1)
"""


def test_entries_of_a_slow_live_worker_are_not_claimed(counting: Bench) -> None:
    (counting.folder / "waiting.py").write_text(WAITING)
    counting.register(STREAM)
    counting.add(STREAM, trades(1, 10))
    counting.start("waiting:Waiting", "--lease", "0.4", name="slow")
    counting.until(lambda: counting.redis.exists("in hand"))
    other = counting.start(*RUN, name="a")  # the first worker by name claims idle entries
    counting.until(lambda: counting.status("counting", other))
    since_us = counting.status("counting", other)["started_us"]
    # Ten leases are 4 s: several polls of the other worker fall into them.
    counting.until(lambda: counting.status("counting", other)["updated_us"] - since_us > 4_000_000)
    assert seen(counting) == Counter()
    counting.redis.set("go on", "1")
    counting.await_group(STREAM, "counting", last_id(10))
    assert seen(counting) == Counter(range(1, 11))


def test_a_deleted_stream_returns_and_continues_after_the_last_entry(counting: Bench) -> None:
    counting.register(STREAM)
    counting.add(STREAM, trades(1, 10))
    counting.start(*RUN)
    counting.await_group(STREAM, "counting", last_id(10))
    counting.redis.delete(STREAM)
    counting.add(STREAM, trades(1, 15))  # as the bridge does: the same IDs again
    counting.await_group(STREAM, "counting", last_id(15))
    assert seen(counting) == Counter(range(1, 16))


def test_a_destroyed_group_is_created_again_after_the_last_entry(counting: Bench) -> None:
    counting.register(STREAM)
    counting.add(STREAM, trades(1, 10))
    counting.start(*RUN)
    counting.await_group(STREAM, "counting", last_id(10))
    counting.redis.xgroup_destroy(STREAM, "counting")
    counting.add(STREAM, trades(11, 15))
    counting.await_group(STREAM, "counting", last_id(15))
    assert seen(counting) == Counter(range(1, 16))


def test_emptied_redis_that_is_filled_again_continues_after_the_last_entry(counting: Bench) -> None:
    counting.register(STREAM)
    counting.add(STREAM, trades(1, 10))
    worker = counting.start(*RUN)
    counting.await_group(STREAM, "counting", last_id(10))
    counting.redis.flushall()
    counting.register(STREAM)
    counting.add(STREAM, trades(1, 15))
    counting.await_group(STREAM, "counting", last_id(15))
    assert seen(counting) == Counter(range(11, 16))  # the flush deleted the first ten counts
    counting.until(lambda: counting.status("counting", worker))


def test_a_failing_entry_is_tried_again_and_blocks_no_other(counting: Bench) -> None:
    counting.register(STREAM)
    counting.add(STREAM, trades(1, 50))
    worker = counting.start(*RUN, "--option", "fails_at=7")
    counting.until(lambda: int(counting.redis.get("attempts") or 0) >= 2)  # type: ignore[arg-type]
    counting.until(lambda: set(seen(counting)) == set(range(1, 51)) - {7})
    assert counting.group(STREAM, "counting")["pending"] == 1
    counting.redis.set("cured", "1")
    counting.await_group(STREAM, "counting", last_id(50))
    assert seen(counting) == Counter(range(1, 51))
    assert "handler_failed" in worker.err


def test_one_key_that_is_no_stream_does_not_stop_the_others(counting: Bench) -> None:
    counting.register(STREAM, "trade.ODD_USDC")
    counting.redis.set("trade.ODD_USDC", "not a stream")
    counting.add(STREAM, trades(1, 10))
    worker = counting.start(*RUN)
    counting.await_group(STREAM, "counting", last_id(10))
    assert worker.err.count("stream_unusable") == 1


def test_ctrl_c_finishes_the_entry_in_hand_and_gives_the_rest_back(counting: Bench) -> None:
    counting.register(STREAM)
    counting.add(STREAM, trades(1, 400))
    worker = counting.start(*RUN, "--option", "slow_s=0.002")
    counting.until(lambda: len(seen(counting)) > 20)
    assert worker.stop() == 0
    handled = seen(counting)
    assert set(handled.values()) == {1}
    about = counting.group(STREAM, "counting")
    assert about["entries-read"] == len(handled) + about["pending"]
    assert counting.status("counting", worker) == {}
    assert "Traceback" not in worker.err

    other = counting.start(*RUN)
    counting.await_group(STREAM, "counting", last_id(400))
    assert seen(counting) == Counter(range(1, 401))
    counting.until(
        lambda: (
            [one["name"] for one in counting.redis.xinfo_consumers(STREAM, "counting")]
            == [other.name]
        )
    )
    assert other.stop() == 0
    assert counting.redis.xinfo_consumers(STREAM, "counting") == []


def test_a_stopping_worker_keeps_the_entry_in_hand_for_longer_than_a_lease(
    counting: Bench,
) -> None:
    counting.register(STREAM)
    counting.add(STREAM, trades(1, 5))
    counting.redis.set("hold", "1")
    run = ("outside:Held", "--lease", "0.6")
    worker = counting.start(*run)
    counting.until(lambda: counting.redis.exists("held"))
    worker.signal(signal.SIGINT)
    other = counting.start(*run, name="a")  # would claim entries of a dead worker

    def beats_for_three_leases() -> bool:
        status = counting.status("counting", other)
        return bool(status) and status["updated_us"] - status["started_us"] > 1_800_000

    counting.until(beats_for_three_leases)
    assert seen(counting) == Counter()
    counting.redis.delete("hold")
    assert worker.wait() == 0
    counting.await_group(STREAM, "counting", last_id(5))
    assert seen(counting) == Counter(range(1, 6))
    assert "handler_hangs" not in worker.err


def test_idle_worker_claims_entries_while_the_first_worker_is_busy(
    counting: Bench,
) -> None:
    (counting.folder / "waiting.py").write_text(WAITING)
    counting.register(STREAM)
    counting.add(STREAM, trades(1, 10))
    counting.redis.xgroup_create(STREAM, "counting", "0")
    counting.redis.xreadgroup("counting", "dead", {STREAM: ">"}, count=4)
    counting.start("waiting:Waiting", "--lease", "1", name="a")
    counting.until(lambda: counting.redis.exists("in hand"))
    counting.start(*RUN, name="b")
    counting.until(lambda: seen(counting) == Counter(range(1, 5)))
    counting.redis.set("go on", "1")
    counting.await_group(STREAM, "counting", last_id(10))
    assert seen(counting) == Counter(range(1, 11))


def test_the_last_status_of_a_killed_worker_is_deleted(counting: Bench) -> None:
    now_us = counting.redis.time()[0] * 1_000_000  # type: ignore[index]
    for name, at_us in (("old", now_us - 2 * 3600 * 1_000_000), ("new", now_us)):
        counting.redis.hset("consumers:status", f"counting/{name}", f'{{"updated_us": {at_us}}}')
    counting.start(*RUN, name="w")
    counting.until(
        lambda: (
            set(counting.redis.hkeys("consumers:status"))  # type: ignore[arg-type]
            == {"counting/new", "counting/w"}
        )
    )


def test_a_name_with_pending_entries_is_not_removed(counting: Bench) -> None:
    counting.register(STREAM)
    counting.add(STREAM, trades(1, 5))
    worker = counting.start(*RUN, "--option", "fails_at=3")
    counting.until(lambda: len(seen(counting)) == 4)
    assert worker.stop() == 0
    [left] = counting.redis.xinfo_consumers(STREAM, "counting")
    assert (left["name"], left["pending"]) == ("w0", 1)


def test_backlog_in_one_stream_does_not_delay_the_others(counting: Bench) -> None:
    others = [f"trade.M{n}_USDC" for n in range(20)]
    counting.register(STREAM, *others)
    counting.add(STREAM, trades(1, 8000))
    counting.start(*RUN, "--option", "slow_s=0.002")
    counting.until(lambda: seen(counting))
    for stream in others:
        counting.add(stream, trades(1, 5))
    for stream in others:
        counting.await_group(stream, "counting", last_id(5))
    assert len(seen(counting)) < 8000


def test_a_slow_worker_has_few_entries_pending(counting: Bench) -> None:
    counting.register(STREAM)
    counting.add(STREAM, trades(1, 1000))
    counting.start("outside:Portioned", *RUN[1:], "--option", "slow_s=0.02")
    counting.until(lambda: len(seen(counting)) > 150)  # the first batch is finished
    counting.until(lambda: 0 < counting.group(STREAM, "counting")["pending"] <= 60)


def test_a_slow_worker_has_few_entries_pending_after_a_quiet_time(counting: Bench) -> None:
    counting.register(STREAM)
    counting.add(STREAM, trades(1, 20))
    worker = counting.start(*RUN, "--option", "slow_s=0.02")
    counting.await_group(STREAM, "counting", last_id(20))
    counting.until(lambda: "updated_us" in counting.status("counting", worker))
    since_us = counting.status("counting", worker)["updated_us"]
    counting.until(  # after several empty reads
        lambda: counting.status("counting", worker)["updated_us"] > since_us + 1_000_000
    )
    counting.add(STREAM, trades(21, 1000))
    most = 0
    while len(seen(counting)) < 150:
        most = max(most, int(counting.group(STREAM, "counting")["pending"]))
    assert 0 < most <= 60


def test_hundreds_of_streams_are_read_by_one_worker(counting: Bench) -> None:
    streams = [f"trade.M{n}_USDC" for n in range(230)]
    counting.register(*streams)
    for stream in streams:
        counting.add(stream, trades(1, 3))
    counting.start(*RUN)
    for stream in streams:
        counting.await_group(stream, "counting", last_id(3))
        assert seen(counting, stream) == Counter([1, 2, 3])


def test_prefix_is_used_for_every_key(counting: Bench, tmp_path: Path) -> None:
    counting.redis.hset("mine:bridge:streams", STREAM, "{}")
    counting.add(f"mine:{STREAM}", trades(1, 5))
    counting.start(*RUN, BRIDGE_REDIS__KEY_PREFIX="mine:")
    counting.await_group(f"mine:{STREAM}", "counting", last_id(5))
    assert seen(counting) == Counter(range(1, 6))
    counting.until(lambda: counting.redis.exists("mine:consumers:status"))
    assert not isinstance(counting.redis, redis.RedisCluster)


TALLYING = """
import time
from consumers import Consumer

class Tallying(Consumer):
    name = "tallying"
    streams = ("trade.*",)

    def on_trade(self, delivery, results):
        time.sleep(0.0005)
        results.hincrby("", "sum", delivery.event.trade_id)
        results.hincrby("", "count", 1)
"""


def test_a_redis_that_is_killed_and_returns_counts_nothing_twice(tmp_path: Path) -> None:
    with (
        running_redis(appendonly=True) as server,
        running_bench(tmp_path, server.url) as one,
    ):
        (one.folder / "outside.py").write_text(TALLYING)
        one.register(STREAM)
        one.add(STREAM, trades(1, 2000))
        workers = [one.start("outside:Tallying", "--lease", "1") for _ in range(2)]
        results = f"consumers:{{{STREAM}}}:tallying"
        one.until(lambda: one.redis.hgetall(results))
        server.kill()
        one.until(lambda: all("redis_unavailable" in worker.err for worker in workers))
        server.start()
        one.await_group(STREAM, "tallying", last_id(2000))
        one.until(lambda: one.redis.hget(results, "count") == "2000")
        assert one.redis.hget(results, "sum") == str(sum(range(1, 2001)))
        one.until(lambda: all(worker.err.count("redis_connected") == 1 for worker in workers))


def test_slow_handlers_share_a_backlog_from_the_first_batch_and_give_it_back_at_a_stop(
    counting: Bench,
) -> None:
    names = [f"trade.M{n}_USDC" for n in range(5)]
    counting.register(*names)
    for name in names:
        counting.add(name, trades(1, 120))
    workers = [counting.start("outside:Slowly", "--lease", "3") for _ in range(3)]

    def handled(worker: Worker) -> int:
        return int(counting.status("counting", worker).get("handled", 0))

    counting.until(lambda: all(handled(worker) for worker in workers))
    began = time.monotonic()
    assert workers[0].stop() == 0
    # finishes one entry; its share of the backlog would take 10 s
    assert time.monotonic() - began < 8
    left = [
        one
        for name in names
        for one in counting.redis.xpending_range(
            name, "counting", "-", "+", 200, consumername=workers[0].name
        )
    ]
    # Never handled; another worker may claim them at once.
    assert all(one["times_delivered"] == 0 for one in left)
    assert all(one["time_since_delivered"] >= 3000 for one in left)
    for name in names:
        counting.await_group(name, "counting", last_id(120))
        seen = counting.redis.hgetall(f"seen:{name}")
        assert seen == {str(number): "1" for number in range(1, 121)}
