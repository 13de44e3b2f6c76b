"""`on_batch` consumers, plain and async functions, in both modes, with one bad entry among many."""

from collections import Counter
from itertools import pairwise

import pytest

from tests.support.consumer_entries import START_US, Fields, entry_id, trade
from tests.support.consumer_worker import Bench

pytestmark = pytest.mark.timeout(180)  # several processes each, on a busy machine

STREAM = "trade.SOL_USDC"

STORING = """
import os
import redis
from bridge.contract.events import Trade
from consumers import Delivery, Results, consumes

client = redis.Redis.from_url(os.environ["BRIDGE_REDIS__URL"])

def check(batch):
    if any(d.event.trade_id == 60 for d in batch) and not client.exists("cured"):
        client.rpush("failed", len(batch))
        raise OSError("disk full")

@consumes("trade.*", batch_entries=200)
async def storing(batch: list[Delivery[Trade]]) -> None:
    check(batch)
    client.rpush("sizes", len(batch))
    client.rpush("stored", *(d.event.trade_id for d in batch))

@consumes("trade.*", mode="ordered", batch_entries=200)
def filing(batch: list[Delivery[Trade]], results: Results) -> None:
    check(batch)
    numbers = [d.event.trade_id for d in batch]
    fields = {"first": str(numbers[0]), "last": str(numbers[-1])}
    results.xadd("files", batch[-1].entry_id, fields, keep_entries=10_000)
"""


def trades(first: int, last: int) -> dict[str, Fields]:
    return {last_id(n): trade(n, START_US + n * 1000) for n in range(first, last + 1)}


def last_id(number: int) -> str:
    return entry_id(START_US + number * 1000, number)


@pytest.fixture
def storing(bench: Bench) -> Bench:
    (bench.folder / "outside.py").write_text(STORING)
    bench.register(STREAM)
    bench.add(STREAM, trades(1, 500))
    return bench


def stored(bench: Bench) -> Counter[int]:
    return Counter(int(n) for n in bench.redis.lrange("stored", 0, -1))  # type: ignore[union-attr]


def test_on_batch_gets_lists_of_at_most_batch_entries(storing: Bench) -> None:
    storing.redis.set("cured", "1")
    storing.start("outside:storing")
    storing.await_group(STREAM, "storing", last_id(500))
    assert storing.redis.lrange("sizes", 0, -1) == ["200", "200", "100"]
    assert stored(storing) == Counter(range(1, 501))


def test_bad_entry_fails_its_batch_once_and_is_then_handled_alone(storing: Bench) -> None:
    storing.start("outside:storing")
    storing.until(lambda: set(stored(storing)) == set(range(1, 501)) - {60})
    storing.until(lambda: storing.group(STREAM, "storing")["pending"] == 1)
    storing.redis.set("cured", "1")
    storing.await_group(STREAM, "storing", last_id(500))
    assert stored(storing) == Counter(range(1, 501))
    failed = storing.redis.lrange("failed", 0, -1)
    assert (failed[0], set(failed[1:])) == ("200", {"1"})  # type: ignore[index]


def test_ordered_batch_that_fails_is_handled_singly_up_to_the_bad_entry(storing: Bench) -> None:
    storing.start("outside:filing")
    storing.until(lambda: storing.group(STREAM, "filing").get("last-delivered-id") == last_id(59))
    storing.redis.set("cured", "1")
    storing.await_group(STREAM, "filing", last_id(500))
    files = storing.redis.xrange(f"consumers:{{{STREAM}}}:filing:files")
    edges = [(int(f["first"]), int(f["last"])) for _, f in files]  # type: ignore[union-attr]
    assert edges[:60] == [(n, n) for n in range(1, 61)]
    assert edges[-1][1] == 500
    assert all(before[1] + 1 == after[0] for before, after in pairwise(edges))


def test_batch_wait_s_lets_lists_grow_but_delays_no_first_read(storing: Bench) -> None:
    source = STORING.replace("batch_entries=200", "batch_entries=200, batch_wait_s=60", 1)
    (storing.folder / "outside.py").write_text(source)
    storing.redis.set("cured", "1")
    worker = storing.start("outside:storing")
    # Full batches do not wait, nor do the entries after them, nor the first read.
    storing.await_group(STREAM, "storing", last_id(500))
    storing.add(STREAM, trades(501, 510))
    assert worker.stop() == 0  # the signal ends the wait for a full batch
    assert storing.redis.lrange("sizes", 0, -1) == ["200", "200", "100"]
