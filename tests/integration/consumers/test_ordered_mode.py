"""Ordered mode with real workers: order and exact results when workers are killed, stopped or
added.
"""

import json
import signal
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import pytest

from tests.support.consumer_entries import START_US, Fields, entry_id, trade
from tests.support.consumer_worker import Bench, Worker
from tests.support.consumer_worker import bench as running_bench
from tests.support.redis_server import running_redis

pytestmark = pytest.mark.timeout(180)  # several processes each, on a busy machine

# Sums entries and records each batch: the record shows duplicates, gaps and a wrong order.
SUMMING = """
import ctypes, time
from consumers import Consumer, StopWorker

def keep_the_lock_and_sleep(seconds):
    ctypes.PyDLL(None).usleep(int(seconds * 1_000_000))

class Summing(Consumer):
    name = "summing"
    mode = "ordered"
    streams = ("trade.*",)

    def __init__(self, slow_s="0", fails_at="none", stop_at="none", alone=""):
        self.sleep = keep_the_lock_and_sleep if alone else time.sleep
        self.slow_s, self.fails_at, self.stop_at = float(slow_s), fails_at, stop_at
        self.batch = []

    def on_trade(self, delivery):
        number = delivery.event.trade_id
        self.sleep(self.slow_s)
        self.state["sum"] = self.state.get("sum", 0) * 31 % 1_000_003 + number
        self.state.setdefault("first", number)
        self.batch.append(number)
        self.last_id = delivery.entry_id
        if str(number) == self.fails_at:
            raise ValueError("not to my taste")
        if str(number) == self.stop_at:
            raise StopWorker

    def due(self, *, stopping):
        return stopping and bool(self.batch)

    def write(self, results):
        results.set("sum", str(self.state.get("sum", 0)))
        results.set("first", str(self.state.get("first")))
        if self.batch:
            fields = {"first": str(self.batch[0]), "last": str(self.batch[-1])}
            results.xadd("batches", self.last_id, fields, keep_entries=100_000)
        self.batch = []

    def made(self):
        return f"{self.stream} {self.state.get('sum')}"
"""
STREAM = "trade.SOL_USDC"
RUN = ("outside:Summing", "--lease", "1")


@pytest.fixture
def summing(bench: Bench) -> Bench:
    return with_consumer(bench)


def with_consumer(bench: Bench) -> Bench:
    (bench.folder / "outside.py").write_text(SUMMING)
    return bench


def streams(count: int) -> list[str]:
    return [f"trade.M{n}_USDC" for n in range(count)]


def trades(first: int, last: int) -> dict[str, Fields]:
    return {last_id(n): trade(n, START_US + n * 1000) for n in range(first, last + 1)}


def last_id(number: int) -> str:
    return entry_id(START_US + number * 1000, number)


def right_sum(numbers: Iterable[int]) -> str:
    total = 0
    for number in numbers:
        total = total * 31 % 1_000_003 + number
    return str(total)


def beside(stream: str, part: str) -> str:
    return f"consumers:{{{stream}}}:summing:{part}"


def assert_exact(bench: Bench, stream: str, last: int) -> None:
    """The group has handled all entries once and in order, in batches without gap or overlap."""
    bench.await_group(stream, "summing", last_id(last))
    assert bench.redis.get(beside(stream, "sum")) == right_sum(range(1, last + 1))
    assert json.loads(bench.redis.hget(beside(stream, "state"), "sum")) == int(  # type: ignore[arg-type]
        right_sum(range(1, last + 1))
    )
    batches = bench.redis.xrange(beside(stream, "batches"))
    edges = [(int(b["first"]), int(b["last"])) for _, b in batches]  # type: ignore[union-attr]
    assert edges[0][0] == 1
    assert edges[-1][1] == last
    assert all(a[1] + 1 == b[0] for a, b in pairwise(edges))


def owners(bench: Bench, of: Iterable[str]) -> dict[str, int]:
    """The number of streams per owner; the empty name stands for streams without an owner."""
    counts: dict[str, int] = {}
    for stream in of:
        name = bench.owner(stream, "summing")
        counts[name] = counts.get(name, 0) + 1
    return counts


def shared_evenly(bench: Bench, of: list[str], workers: list[Worker]) -> bool:
    counts = owners(bench, of)
    return (
        set(counts) == {w.name for w in workers}
        and max(counts.values()) - min(counts.values()) <= 1
    )


def test_ordered_worker_reads_all_in_order_and_writes_its_status(summing: Bench) -> None:
    summing.register(*streams(3))
    for stream in streams(3):
        summing.add(stream, trades(1, 900))
    worker = summing.start(*RUN)
    for stream in streams(3):
        assert_exact(summing, stream, 900)
    summing.until(lambda: summing.status("summing", worker).get("handled") == 2700)
    status = summing.status("summing", worker)
    assert (status["mode"], status["consumer"]) == ("ordered", worker.name)
    assert status["streams"]["trade.M1_USDC"] == {"handled": 900, "last_id": last_id(900)}
    assert status["made"].endswith(right_sum(range(1, 901)))
    about = summing.group("trade.M1_USDC", "summing")
    assert (about["entries-read"], about["lag"]) == (900, 0)


def test_each_stream_has_an_owner_where_workers_of_a_group_want_different_streams(
    summing: Bench,
) -> None:
    names = streams(12)
    summing.register(*names)
    wide = summing.start(*RUN)
    narrow = summing.start(*RUN, "--streams", "trade.M1_*", "--streams", "trade.M2_*")
    only_wide = [name for name in names if name not in (names[1], names[2])]
    summing.until(lambda: owners(summing, only_wide) == {wide.name: 10})
    summing.until(lambda: owners(summing, names[1:3]) == {wide.name: 1, narrow.name: 1})
    assert wide.stop() == 0
    summing.until(lambda: owners(summing, names[1:3]) == {narrow.name: 2})
    assert narrow.stop() == 0


def test_plain_calls_of_three_leases_do_not_lose_their_stream_among_five_workers(
    summing: Bench,
) -> None:
    summing.register(STREAM)
    summing.add(STREAM, trades(1, 2))
    run = ("outside:Summing", "--lease", "1", "-o", "slow_s=3")
    workers = [summing.start(*run) for _ in range(5)]
    assert_exact(summing, STREAM, 2)
    assert not any("stream_lost" in worker.err for worker in workers)


def test_call_that_blocks_all_threads_loses_its_stream_once_per_worker(
    summing: Bench,
) -> None:
    summing.register(STREAM)
    summing.add(STREAM, trades(1, 2))
    run = ("outside:Summing", "--lease", "0.5", "-o", "slow_s=1.5", "-o", "alone=1")
    workers = [summing.start(*run) for _ in range(2)]
    assert_exact(summing, STREAM, 2)
    assert any("stream_lost" in worker.err for worker in workers)


def test_streams_are_shared_evenly_and_move_as_workers_come_and_go(summing: Bench) -> None:
    names = streams(7)
    summing.register(*names)
    workers = [summing.start(*RUN)]
    summing.until(lambda: shared_evenly(summing, names, workers))
    workers.append(summing.start(*RUN))
    workers.append(summing.start(*RUN))
    summing.until(lambda: shared_evenly(summing, names, workers))
    assert workers[0].stop() == 0
    summing.until(lambda: shared_evenly(summing, names, workers[1:]))
    workers[1].kill()
    summing.until(lambda: shared_evenly(summing, names, workers[2:]))


def test_takeover_from_a_killed_owner_keeps_results_exact(summing: Bench) -> None:
    names = streams(4)
    summing.register(*names)
    for stream in names:
        summing.add(stream, trades(1, 1000))
    run = (*RUN, "--option", "slow_s=0.0005")
    victim = summing.start(*run)
    summing.until(lambda: summing.redis.get(beside(names[0], "sum")))
    others = [summing.start(*run) for _ in range(2)]
    summing.until(lambda: len(owners(summing, names)) > 1)
    victim.kill()
    for stream in names:
        summing.add(stream, trades(1001, 1100))
        assert_exact(summing, stream, 1100)
    assert all(other.process.poll() is None for other in others)


def test_owner_suspended_beyond_its_lease_commits_nothing_after_a_takeover(summing: Bench) -> None:
    summing.register(STREAM)
    summing.add(STREAM, trades(1, 1500))
    run = (*RUN, "--option", "slow_s=0.001")
    sleeper = summing.start(*run)
    summing.until(lambda: summing.redis.get(beside(STREAM, "sum")))
    sleeper.signal(signal.SIGSTOP)  # in the middle of a batch
    other = summing.start(*run)
    summing.until(lambda: summing.owner(STREAM, "summing") == other.name)
    sleeper.signal(signal.SIGCONT)
    summing.until(lambda: "stream_lost" in sleeper.err)
    assert_exact(summing, STREAM, 1500)


def test_an_owner_suspended_beyond_its_lease_continues_if_no_other_took_it(summing: Bench) -> None:
    summing.register(STREAM)
    summing.add(STREAM, trades(1, 500))
    only = summing.start(*RUN, "--option", "slow_s=0.001")
    summing.until(lambda: summing.owner(STREAM, "summing") == only.name)
    only.signal(signal.SIGSTOP)
    summing.until(lambda: summing.owner(STREAM, "summing") == "")
    only.signal(signal.SIGCONT)
    assert_exact(summing, STREAM, 500)


def test_ctrl_c_commits_what_is_handled_and_gives_the_leases_back(summing: Bench) -> None:
    names = streams(3)
    summing.register(*names)
    for stream in names:
        summing.add(stream, trades(1, 1500))
    worker = summing.start(*RUN, "--lease", "60", "--option", "slow_s=0.0005")
    summing.until(lambda: summing.redis.get(beside(names[0], "sum")))
    assert worker.stop() == 0
    assert owners(summing, names) == {"": 3}
    assert summing.status("summing", worker) == {}
    assert summing.redis.zcard("consumers:workers:summing") == 0
    summing.start(*RUN, "--lease", "60")  # need not wait until leases expire
    for stream in names:
        assert_exact(summing, stream, 1500)


def test_deleted_stream_that_returns_is_read_on(summing: Bench) -> None:
    summing.register(STREAM)
    summing.add(STREAM, trades(1, 10))
    summing.start(*RUN)
    summing.await_group(STREAM, "summing", last_id(10))
    summing.redis.delete(STREAM)
    summing.add(STREAM, trades(1, 15))
    assert_exact(summing, STREAM, 15)


def test_destroyed_group_is_created_again_by_the_next_commit(summing: Bench) -> None:
    summing.register(STREAM)
    summing.add(STREAM, trades(1, 10))
    summing.start(*RUN)
    summing.await_group(STREAM, "summing", last_id(10))
    summing.redis.xgroup_destroy(STREAM, "summing")
    summing.add(STREAM, trades(11, 12))
    assert_exact(summing, STREAM, 12)


def test_an_emptied_redis_gets_position_and_state_back(summing: Bench) -> None:
    summing.register(STREAM)
    summing.add(STREAM, trades(1, 10))
    worker = summing.start(*RUN)
    summing.await_group(STREAM, "summing", last_id(10))
    summing.redis.flushall()
    summing.until(lambda: summing.status("summing", worker))
    first_us = summing.status("summing", worker)["updated_us"]
    # The worker must read the empty registry completely before the bridge writes it again.
    summing.until(lambda: summing.status("summing", worker)["updated_us"] > first_us)
    summing.register(STREAM)
    summing.add(STREAM, trades(1, 15))
    summing.await_group(STREAM, "summing", last_id(15))
    assert summing.redis.get(beside(STREAM, "sum")) == right_sum(range(1, 16))
    assert "position_put_back" in worker.err
    worker.kill()
    summing.start(*RUN)
    summing.add(STREAM, trades(16, 20))
    summing.await_group(STREAM, "summing", last_id(20))
    assert summing.redis.get(beside(STREAM, "sum")) == right_sum(range(1, 21))
    assert summing.redis.get(beside(STREAM, "first")) == "1"  # unchanged since the flush


@pytest.mark.parametrize("start", ["beginning", "new"])
def test_an_emptied_redis_gets_every_owners_state_back(summing: Bench, start: str) -> None:
    names = streams(8)
    summing.register(*names)
    run = (*RUN, "--from", start)
    workers = [summing.start(*run) for _ in range(2)]
    summing.until(lambda: shared_evenly(summing, names, workers))
    for stream in names:
        summing.add(stream, trades(1, 10))
        summing.await_group(stream, "summing", last_id(10))
    before = [summing.owner(stream, "summing") for stream in names]

    # The first worker with a heartbeat finds no other worker, and streams without an owner.
    summing.redis.flushall()
    for stream in names:
        summing.until(lambda: summing.redis.hget(beside(stream, "state"), "sum"))  # noqa: B023
    assert [summing.owner(stream, "summing") for stream in names] == before
    summing.register(*names)
    for stream in names:
        summing.add(stream, trades(1, 15))
        summing.await_group(stream, "summing", last_id(15))
        assert summing.redis.get(beside(stream, "sum")) == right_sum(range(1, 16))
    summing.until(lambda: shared_evenly(summing, names, workers))


def test_an_emptied_redis_gets_the_state_of_the_position_where_a_handler_fails(
    summing: Bench,
) -> None:
    summing.register(STREAM)
    summing.add(STREAM, trades(1, 10))
    worker = summing.start(*RUN, "--option", "fails_at=5")
    summing.until(lambda: worker.err.count("handler_failed") >= 3)
    summing.redis.flushall()
    summing.until(lambda: summing.redis.hget(beside(STREAM, "state"), "sum"))
    assert summing.redis.hget(beside(STREAM, "position"), "id") == last_id(4)
    assert summing.redis.hget(beside(STREAM, "state"), "sum") == right_sum(range(1, 5))


def test_handler_that_stops_its_worker_commits_nothing_of_its_batch(summing: Bench) -> None:
    summing.register(STREAM)
    summing.add(STREAM, trades(1, 10))
    assert summing.start(*RUN, "--option", "stop_at=7").wait() == 0
    assert summing.redis.hget(beside(STREAM, "position"), "id") == "0-0"
    assert summing.redis.hgetall(beside(STREAM, "state")) == {}
    summing.start(*RUN)
    assert_exact(summing, STREAM, 10)


def test_an_entry_that_always_fails_blocks_its_stream_and_no_other(summing: Bench) -> None:
    summing.register(STREAM, "trade.WELL_USDC")
    summing.add(STREAM, trades(1, 100))
    summing.add("trade.WELL_USDC", trades(1001, 1050))
    worker = summing.start(*RUN, "--option", "fails_at=60")
    summing.await_group("trade.WELL_USDC", "summing", last_id(1050))
    summing.until(lambda: summing.group(STREAM, "summing")["last-delivered-id"] == last_id(59))
    summing.until(lambda: worker.err.count("handler_failed") >= 3)
    assert summing.redis.get(beside(STREAM, "sum")) == right_sum(range(1, 60))
    assert worker.stop() == 0
    summing.start(*RUN)
    assert_exact(summing, STREAM, 100)


def test_an_ordered_group_from_new_begins_with_later_entries(summing: Bench) -> None:
    summing.register(STREAM)
    summing.add(STREAM, trades(1, 10))
    summing.start(*RUN, "--from", "new")
    summing.until(lambda: summing.owner(STREAM, "summing"))
    summing.add(STREAM, trades(11, 15))
    summing.await_group(STREAM, "summing", last_id(15))
    assert summing.redis.get(beside(STREAM, "sum")) == right_sum(range(11, 16))


def test_one_key_that_is_no_stream_does_not_stop_the_others(summing: Bench) -> None:
    summing.register(STREAM, "trade.ODD_USDC")
    summing.redis.set("trade.ODD_USDC", "not a stream")
    summing.add(STREAM, trades(1, 10))
    worker = summing.start(*RUN)
    assert_exact(summing, STREAM, 10)
    assert worker.err.count("stream_unusable") == 1


def test_a_stream_that_becomes_another_kind_of_key_does_not_stop_the_others(summing: Bench) -> None:
    summing.register(STREAM, "trade.ODD_USDC")
    summing.add(STREAM, trades(1, 10))
    summing.add("trade.ODD_USDC", trades(1, 10))
    worker = summing.start(*RUN)
    for stream in (STREAM, "trade.ODD_USDC"):
        assert_exact(summing, stream, 10)
    summing.redis.set("trade.ODD_USDC", "not a stream")
    summing.add(STREAM, trades(11, 20))
    assert_exact(summing, STREAM, 20)
    summing.until(lambda: "stream_unusable" in worker.err)
    summing.redis.delete("trade.ODD_USDC")
    summing.add("trade.ODD_USDC", trades(1, 15))
    assert_exact(summing, "trade.ODD_USDC", 15)


def test_one_ordered_worker_reads_hundreds_of_streams(summing: Bench) -> None:
    names = streams(230)
    summing.register(*names)
    for stream in names:
        summing.add(stream, trades(1, 5))
    summing.start(*RUN)
    for stream in names:
        assert_exact(summing, stream, 5)


def test_a_redis_that_is_killed_and_returns_changes_no_result(tmp_path: Path) -> None:
    with (
        running_redis(appendonly=True) as server,
        running_bench(tmp_path, server.url) as one,
    ):
        with_consumer(one)
        one.register(STREAM)
        one.add(STREAM, trades(1, 2000))
        worker = one.start(*RUN, "--option", "slow_s=0.0005")
        one.until(lambda: one.redis.get(beside(STREAM, "sum")))
        server.kill()
        one.until(lambda: "redis_unavailable" in worker.err)
        server.start()
        assert_exact(one, STREAM, 2000)
        assert worker.err.count("redis_unavailable") == 1
        assert worker.err.count("redis_connected") == 1
