"""Data of another program in the kit's keys is logged, and delays no other stream."""

import json
from collections import Counter

import pytest

from tests.support.consumer_commands import run_here
from tests.support.consumer_worker import Bench
from tests.support.picky import BOTH_MODES, RUN, STREAM, deadletters, last_id, seen, trades

pytestmark = pytest.mark.timeout(180)  # several processes each, on a busy machine


@BOTH_MODES
def test_foreign_data_in_a_streams_kit_keys_ends_no_worker(
    picky: Bench, name: str, group: str
) -> None:
    beside = f"consumers:{{{STREAM}}}:{group}"
    for _ in range(101):  # more entries than one check reads
        picky.redis.xadd(f"{beside}:again", {"x": "y"})
    picky.redis.xadd(f"{beside}:dead", {"x": "y"})
    picky.register("trade.BAD_USDC", "trade.ODD_USDC")
    picky.redis.hset(f"consumers:{{trade.BAD_USDC}}:{group}:position", "id", "far along")
    picky.redis.hset(f"consumers:{{trade.ODD_USDC}}:{group}:state", "sum", "{")
    worker = picky.start(f"outside:{name}", *RUN)
    picky.await_group(STREAM, group, last_id(50))
    assert seen(picky, group) == Counter(range(1, 51))
    picky.until(lambda: picky.redis.xlen(f"{beside}:again") == 0)
    listed = deadletters(picky, "list", "--json")
    assert (listed.returncode, json.loads(listed.stdout)["attempts"]) == (0, 0)
    assert run_here(picky.folder, picky.url, "status", "--json").returncode == 0
    assert worker.stop() == 0


@pytest.mark.parametrize("part", ["again", "lease", "position", "state", "settled", "ticks"])
@pytest.mark.parametrize(("name", "group"), [("Picky", "picky"), ("Ordered", "ordered")])
def test_key_of_another_kind_for_one_stream_delays_no_other(
    picky: Bench, name: str, group: str, part: str
) -> None:
    picky.register("trade.BAD_USDC")
    picky.add("trade.BAD_USDC", {"1-0": {"type": "none"}})
    picky.redis.rpush(f"consumers:{{trade.BAD_USDC}}:{group}:{part}", "x")
    worker = picky.start(f"outside:{name}", *RUN)
    picky.await_group(STREAM, group, last_id(50))
    assert seen(picky, group) == Counter(range(1, 51))
    assert "group_gone" not in worker.err
    assert "redis_unavailable" not in worker.err
    assert worker.stop() == 0


def test_where_what_is_settled_becomes_a_key_of_another_kind_its_stream_waits_and_no_other(
    picky: Bench,
) -> None:
    bad, key = "trade.BAD_USDC", "consumers:{trade.BAD_USDC}:picky:settled"
    picky.register(bad)
    picky.add(bad, trades(1, 10))
    worker = picky.start("outside:Picky", *RUN)
    picky.await_group(STREAM, "picky", last_id(50))
    picky.await_group(bad, "picky", last_id(10))

    picky.redis.delete(key)
    picky.redis.rpush(key, "x")
    picky.add(bad, trades(11, 20))
    picky.until(lambda: "stream_unusable" in worker.err)
    picky.add(STREAM, trades(51, 100))
    picky.await_group(STREAM, "picky", last_id(100))
    [reported] = [line for line in worker.err.splitlines() if "stream_unusable" in line]
    assert f"{key} is a list" in reported
    assert worker.err.count("group_gone") <= 1
    assert seen(picky, "picky", bad) == Counter(range(1, 11))

    picky.redis.delete(key)
    picky.await_group(bad, "picky", last_id(20))
    assert seen(picky, "picky", bad) == Counter(range(1, 21))
    assert seen(picky, "picky") == Counter(range(1, 101))
    assert worker.stop() == 0


def test_where_a_joined_position_becomes_a_key_of_another_kind_nothing_is_committed(
    picky: Bench,
) -> None:
    bad = "trade.BAD_USDC"
    key = "consumers:{trade.BAD_USDC}:joined:position"
    picky.register(bad)
    picky.add(bad, trades(1, 50))
    worker = picky.start("outside:Joined", *RUN)
    for stream in (STREAM, bad):
        picky.await_group(stream, "joined", last_id(50))

    position = picky.redis.dump(key)
    picky.redis.delete(key)
    picky.redis.rpush(key, "x")
    for stream in (STREAM, bad):
        picky.add(stream, trades(51, 60))
    picky.until(lambda: "commit_refused" in worker.err)
    assert not seen(picky, "joined", "joined.all").keys() & set(range(51, 61))

    picky.redis.restore(key, 0, position, replace=True)  # type: ignore[arg-type]
    for stream in (STREAM, bad):
        picky.await_group(stream, "joined", last_id(60))
    assert seen(picky, "joined", "joined.all") == dict.fromkeys(range(1, 61), 2)
    assert worker.stop() == 0


@pytest.mark.parametrize("place", ["the group", "what is settled", "position", "joined position"])
def test_position_in_the_far_future_is_reported_and_read_after_it_is_set_back(
    picky: Bench, place: str
) -> None:
    stream, to_come = "trade.BAD_USDC", "99999999999999-0"
    picky.register(stream)
    picky.add(stream, trades(1, 50))
    name = {"position": "Ordered", "joined position": "Joined"}.get(place, "Picky")
    part = "settled" if name == "Picky" else "position"
    key = f"consumers:{{{stream}}}:{name.lower()}:{part}"
    if place == "the group":
        picky.redis.xgroup_create(stream, "picky", to_come)
    else:
        picky.redis.hset(key, "id", to_come)

    worker = picky.start(f"outside:{name}", *RUN)

    picky.until(lambda: "stream_unusable" in worker.err)
    [reported] = [line for line in worker.err.splitlines() if "stream_unusable" in line]
    assert f"nothing is read behind {to_come}, a time to come" in reported
    if name != "Joined":  # a joined unit stops as a whole
        picky.await_group(STREAM, name.lower(), last_id(50))
    if place == "the group":
        assert "XGROUP SETID" in reported
        picky.redis.xgroup_setid(stream, "picky", "0-0")
    else:
        assert f"set the field id of {key} back" in reported
        picky.redis.hset(key, "id", "0-0")
    for each in (STREAM, stream):
        picky.await_group(each, name.lower(), last_id(50))
    assert worker.err.count("stream_unusable") == 1
    assert worker.stop() == 0


@pytest.mark.parametrize(
    ("name", "where"),
    [("Timed", "{timers}:timed"), ("TimedOrdered", f"{{{STREAM}}}:timed-ordered")],
)
def test_timer_due_in_the_far_future_is_still_called(picky: Bench, name: str, where: str) -> None:
    picky.redis.hset(f"consumers:{where}:ticks", "note", "99999999999999")
    worker = picky.start(f"outside:{name}", *RUN)
    picky.until(lambda: picky.redis.exists(f"consumers:{where}:tick"))
    assert worker.stop() == 0


@pytest.mark.parametrize("part", ["lease", "position", "ticks"])
def test_timer_key_of_another_kind_delays_no_entry(picky: Bench, part: str) -> None:
    picky.redis.rpush(f"consumers:{{timers}}:timed:{part}", "x")
    worker = picky.start("outside:Timed", *RUN)
    picky.await_group(STREAM, "timed", last_id(50))
    picky.until(lambda: "stream_unusable" in worker.err)
    assert "group_gone" not in worker.err
    picky.redis.delete(f"consumers:{{timers}}:timed:{part}")
    picky.until(lambda: picky.redis.exists("consumers:{timers}:timed:tick"))
    assert worker.err.count("stream_unusable") == 1
    assert worker.stop() == 0


def test_worker_skips_and_reports_once_a_name_in_the_registry_that_is_no_stream(
    bench: Bench,
) -> None:
    hostile = "a/../../T"
    bench.register(hostile, STREAM)
    for stream in (hostile, STREAM):
        bench.add(stream, trades(1, 5))
    worker = bench.start("archive", "--option", "rows=1")
    bench.until(lambda: list(bench.folder.glob(f"archive/stream={STREAM}/*/*.parquet")))
    bench.until(lambda: bench.status("archive", worker).get("handled") == 5)
    assert not (bench.folder / "T").exists()
    assert bench.redis.keys("*T}*") == []
    assert worker.err.count("stream_name_refused") == 1
