"""A time range to a handler once more, while the live group goes on undisturbed."""

import subprocess

import pytest

from tests.integration.consumers.test_door import consumers
from tests.support.consumer_entries import START_US, Fields, entry_id, trade
from tests.support.consumer_worker import Bench

pytestmark = pytest.mark.timeout(180)  # several processes each, on a busy machine

STREAM, OTHER = "trade.SOL_USDC", "trade.BTC_USDC"

SUMMING = """
from bridge.contract.events import Trade
from consumers import Consumer, Delivery, Results, consumes

class Summing(Consumer):
    name = "summing"
    mode = "ordered"
    streams = ("trade.*",)

    def on_trade(self, delivery):
        if delivery.event.price == "13":
            raise ValueError("unlucky")
        self.state["numbers"] = [*self.state.get("numbers", []), delivery.event.trade_id]

    def write(self, results):
        results.set("numbers", " ".join(map(str, self.state["numbers"])))

@consumes("trade.*")
def counting(batch: list[Delivery[Trade]], results: Results) -> None:
    results.incrby("count", len(batch))
"""


def last_id(number: int) -> str:
    return entry_id(START_US + number * 1000, number)


def trades(first: int, last: int) -> dict[str, Fields]:
    return {last_id(n): trade(n, START_US + n * 1000) for n in range(first, last + 1)}


@pytest.fixture
def filled(bench: Bench) -> Bench:
    (bench.folder / "outside.py").write_text(SUMMING)
    bench.register(STREAM, OTHER)
    bench.add(STREAM, trades(1, 1200))
    bench.add(OTHER, trades(1, 3))
    return bench


def replay(bench: Bench, *arguments: str) -> subprocess.CompletedProcess[str]:
    return consumers(bench.folder, "replay", *arguments, BRIDGE_REDIS__URL=bench.url)


def numbers(bench: Bench, group: str, stream: str = STREAM) -> str | None:
    return bench.redis.get(f"consumers:{{{stream}}}:{group}:numbers")  # type: ignore[return-value]


def test_an_ordered_consumer_sees_the_range_alone(filled: Bench) -> None:
    filled.start("outside:Summing")
    filled.await_group(STREAM, "summing", last_id(1200))
    live = filled.group(STREAM, "summing"), numbers(filled, "summing")
    done = replay(
        filled, "outside:Summing", "--from", "2026-09-02T16:44:00.100", "--to", last_id(1110)
    )
    assert done.returncode == 0, done.stderr
    assert "1010 entries of 2 streams, as summing-replay" in done.stderr
    assert numbers(filled, "summing-replay") == " ".join(map(str, range(100, 1110)))
    assert numbers(filled, "summing-replay", OTHER) is None
    assert (filled.group(STREAM, "summing"), numbers(filled, "summing")) == live
    assert [one["name"] for one in filled.redis.xinfo_groups(STREAM)] == ["summing"]
    left = set(filled.redis.scan_iter("consumers:*replay*"))
    assert left == {f"consumers:{{{STREAM}}}:summing-replay:numbers"}


def test_a_function_with_lists_is_replayed_into_results_of_its_own(filled: Bench) -> None:
    done = replay(
        filled, "outside:counting", "--from", "0", "--group", "again", "--streams", STREAM
    )
    assert done.returncode == 0, done.stderr
    assert filled.redis.get(f"consumers:{{{STREAM}}}:again:count") == "1200"


def test_a_handler_that_fails_ends_it_with_the_place(filled: Bench) -> None:
    filled.add(OTHER, {last_id(4): trade(4, START_US + 4000, price="13")})
    done = replay(filled, "outside:Summing", "--from", "0", "--streams", OTHER)
    assert done.returncode == 1
    assert f"failed on {OTHER} {last_id(4)}: ValueError: unlucky" in done.stderr
    assert "outside.py:12" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_live_groups_name_is_refused(filled: Bench) -> None:
    done = replay(filled, "outside:Summing", "--from", "0", "--group", "summing")
    assert done.returncode == 2
    assert "a live group's name" in done.stderr


def test_what_is_not_kept_any_more_is_said(filled: Bench) -> None:
    filled.redis.xtrim(STREAM, minid=last_id(1000), approximate=False)
    done = replay(filled, "outside:Summing", "--from", "2026-09-02T16:44", "--streams", STREAM)
    assert done.returncode == 0
    assert "not_kept" in done.stderr


def test_another_programs_group_is_not_touched(filled: Bench) -> None:
    filled.redis.xgroup_create(STREAM, "node-app", "0")
    filled.redis.xreadgroup("node-app", "one", {STREAM: ">"}, count=30)
    done = replay(filled, "outside:Summing", "--from", "0", "--group", "node-app")
    assert done.returncode == 1
    assert f"{STREAM} has a group node-app already" in done.stderr
    assert filled.group(STREAM, "node-app")["pending"] == 30


def test_what_is_due_at_the_end_is_written(filled: Bench) -> None:
    late = (
        SUMMING
        + """
class Late(Summing):
    name = "late"

    def due(self, *, stopping):
        return stopping

    def write(self, results):
        self.calls = getattr(self, "calls", 0) + 1
        results.set("writes", str(self.calls))
"""
    )
    (filled.folder / "outside.py").write_text(late)
    done = replay(filled, "outside:Late", "--from", "0", "--streams", OTHER)
    assert done.returncode == 0, done.stderr
    assert filled.redis.get(f"consumers:{{{OTHER}}}:late-replay:writes") == "2"


def test_a_key_that_is_no_stream_is_told_and_passed_over(filled: Bench) -> None:
    filled.register("trade.ODD_USDC")
    filled.redis.set("trade.ODD_USDC", "not a stream")
    done = replay(filled, "outside:Summing", "--from", "0")
    assert done.returncode == 0
    assert "stream_unusable" in done.stderr
    assert numbers(filled, "summing-replay", OTHER) == "1 2 3"


def test_a_range_that_ends_before_it_begins_is_told(filled: Bench) -> None:
    done = replay(filled, "outside:Summing", "--from", "2h", "--to", "3h")
    assert done.returncode == 2
    assert "--from 2h is not before --to 3h" in done.stderr
