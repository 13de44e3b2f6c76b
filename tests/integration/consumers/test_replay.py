"""Replay of a time range to a handler, while the live group continues unchanged."""

import asyncio
import subprocess
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field

import pytest
from redis.asyncio import Redis

from bridge.contract.events import Trade
from bridge.errors import Fatal
from bridge.runtime.redis_client import connect
from consumers import Consumer, Delivery, Results
from consumers.kit.api.consumer import ConsumerSpec
from consumers.kit.api.results import Write
from consumers.kit.ordered.lease import Commit, Leases
from consumers.kit.redis.keys import Keys
from consumers.kit.replay import Replay
from consumers.kit.stats import Stats
from consumers.kit.stop import Stop
from tests.support.consumer_commands import consumers
from tests.support.consumer_entries import START_US, Fields, entry_id, trade
from tests.support.consumer_worker import Bench
from tests.support.eventually import eventually_async

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


LISTING = """
from consumers import Consumer

class Listing(Consumer):
    name = "listing"
    mode = "ordered"
    streams = ("trade.*",)

    def on_trade(self, delivery, results):
        results.hincrby("", "count", 1)
        results.xadd("out", delivery.entry_id, {"n": "1"}, keep_entries=2000)
"""


@dataclass
class Gate:
    """A gate at which a handler waits until the test opens it."""

    reached: asyncio.Event = field(default_factory=asyncio.Event)
    opened: asyncio.Event = field(default_factory=asyncio.Event)


class Gated(Consumer):
    """Records each trade of its streams; waits at the gates of STREAM."""

    name = "gated"
    mode = "ordered"
    streams = ("trade.*",)

    def __init__(self, gates: Mapping[int, Gate]) -> None:
        self._gates = gates

    async def on_trade(self, delivery: Delivery[Trade]) -> None:
        number = delivery.event.trade_id
        self.state["numbers"] = [*self.state.get("numbers", []), number]
        if delivery.stream == STREAM and number in self._gates:
            self._gates[number].reached.set()
            await self._gates[number].opened.wait()

    def write(self, results: Results) -> None:
        results.set("numbers", " ".join(map(str, self.state["numbers"])))


async def gated(client: Redis, name: str, gates: Mapping[int, Gate]) -> int:
    """Replay both streams completely, as the command does; the number of delivered entries."""
    stats = Stats(lambda: 0)
    one = Replay(ConsumerSpec(Gated, {"gates": gates}), client, Keys(), "gated-replay", name, stats)
    return await one.run((OTHER, STREAM), "-", "+", Stop())


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


def test_replay_gives_an_ordered_consumer_only_the_range(filled: Bench) -> None:
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


def test_replay_of_a_batch_function_writes_to_its_own_results(filled: Bench) -> None:
    done = replay(
        filled, "outside:counting", "--from", "0", "--group", "again", "--streams", STREAM
    )
    assert done.returncode == 0, done.stderr
    assert filled.redis.get(f"consumers:{{{STREAM}}}:again:count") == "1200"


def test_replay_ends_with_file_and_line_when_a_handler_fails(filled: Bench) -> None:
    filled.add(OTHER, {last_id(4): trade(4, START_US + 4000, price="13")})
    done = replay(filled, "outside:Summing", "--from", "0", "--streams", OTHER)
    assert done.returncode == 1
    assert f"failed on {OTHER} {last_id(4)}: ValueError: unlucky" in done.stderr
    assert "outside.py:12" in done.stderr
    assert "Traceback" not in done.stderr


def test_replay_refuses_the_name_of_a_live_group(filled: Bench) -> None:
    done = replay(filled, "outside:Summing", "--from", "0", "--group", "summing")
    assert done.returncode == 2
    assert "a live group's name" in done.stderr


async def test_replay_refuses_a_second_one_of_the_same_name_and_the_first_continues(
    filled: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumers.kit.replay._RENEW_S", 0)
    gates, lease = {600: Gate(), 1100: Gate()}, f"consumers:{{{OTHER}}}:gated-replay:lease"
    async with (
        connect(filled.url, name="test", decode_responses=True) as client,
        asyncio.TaskGroup() as tasks,
    ):
        first = tasks.create_task(gated(client, "first/1", gates))
        await gates[600].reached.wait()
        with pytest.raises(Fatal, match=f"gated-replay is at work on {OTHER}"):
            await gated(client, "second/2", {})
        filled.redis.delete(lease)  # as if the lease had expired
        gates[600].opened.set()
        await gates[1100].reached.wait()
        # OTHER is finished, but its lease is held
        assert filled.owner(OTHER, "gated-replay") == "first"
        gates[1100].opened.set()
    assert first.result() == 1203
    assert numbers(filled, "gated-replay", OTHER) == "1 2 3"
    assert numbers(filled, "gated-replay") == " ".join(map(str, range(1, 1201)))


class Slow(Consumer):
    """Takes five seconds for a page."""

    name = "slow"
    streams = ("trade.*",)
    handled = 0

    async def on_trade(self, delivery: Delivery[Trade]) -> None:
        await asyncio.sleep(0.1)
        Slow.handled += 1


async def test_replay_holds_all_its_streams_while_a_page_takes_longer_than_a_lease(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumers.kit.replay._LEASE_MS", 2500)
    monkeypatch.setattr("consumers.kit.replay._RENEW_S", 0.5)
    monkeypatch.setattr(Slow, "handled", 0)
    for stream in (STREAM, OTHER):
        bench.add(stream, trades(1, 50 if stream == STREAM else 1))
    async with connect(bench.url, name="test", decode_responses=True) as client:
        one = Replay(ConsumerSpec(Slow), client, Keys(), "slow-replay", "a/1", Stats(lambda: 0))
        running = asyncio.create_task(one.run((STREAM, OTHER), "-", "+", Stop()))
        await eventually_async(lambda: Slow.handled >= 40, "4 s of the page are over")
        assert not running.done()
        assert await client.exists(Keys().lease(OTHER, "slow-replay"))
        await running


async def test_replay_suspended_beyond_its_lease_takes_nothing_from_the_next_one(
    filled: Bench,
) -> None:
    slept, after = {600: Gate()}, {700: Gate()}
    async with (
        connect(filled.url, name="test", decode_responses=True) as client,
        asyncio.TaskGroup() as tasks,
    ):
        first = tasks.create_task(fatal(gated(client, "first/1", slept)))
        await slept[600].reached.wait()
        filled.redis.delete(*filled.redis.scan_iter("consumers:*:lease"))
        second = tasks.create_task(gated(client, "second/2", after))
        await after[700].reached.wait()
        slept[600].opened.set()
        assert "stale" in await first
        after[700].opened.set()
    assert second.result() == 1203
    assert numbers(filled, "gated-replay") == " ".join(map(str, range(1, 1201)))


async def fatal(running: Awaitable[object]) -> str:
    """The message of the `Fatal` with which `running` fails."""
    with pytest.raises(Fatal) as failed:
        await running
    return str(failed.value)


async def killed(bench: Bench, group: str) -> None:
    """Leave the keys of a replay that was killed after two entries."""
    async with connect(bench.url, name="test", decode_responses=True) as client:
        leases = Leases(client, Keys(), group, "killed", 60_000)
        lease = await leases.acquire(STREAM, "0-0")
        assert lease is not None
        state = [Write("HSET", "state", ("numbers", "[1,2]"))]
        await leases.commit([Commit(lease, "0-0", last_id(2), 2, state)])


def test_replay_killed_recently_counts_as_running_and_later_starts_again(
    filled: Bench,
) -> None:
    asyncio.run(killed(filled, "summing-replay"))
    refused = replay(filled, "outside:Summing", "--from", "0")
    assert refused.returncode == 1
    assert f"summing-replay is at work on {STREAM}" in refused.stderr
    assert "killed less than a minute ago" in refused.stderr
    # as if the minute had passed
    filled.redis.delete(f"consumers:{{{STREAM}}}:summing-replay:lease")
    done = replay(filled, "outside:Summing", "--from", "0")
    assert done.returncode == 0, done.stderr
    assert numbers(filled, "summing-replay") == " ".join(map(str, range(1, 1201)))
    left = set(filled.redis.scan_iter("consumers:*replay*"))
    assert left == {f"consumers:{{{s}}}:summing-replay:numbers" for s in (STREAM, OTHER)}


def test_replay_results_are_those_of_the_last_replay_only(filled: Bench) -> None:
    (filled.folder / "outside.py").write_text(LISTING)
    removed = "trade.GONE_USDC"
    filled.register(removed)
    beside = f"consumers:{{{STREAM}}}:"
    others = {f"{beside}again1", f"{beside}again[1]-too:out", f"{beside}again[1]:dead"}
    for key in (*others, f"{beside}again[1]:old:part", f"consumers:{{{removed}}}:again[1]"):
        filled.redis.set(key, "a")
    named = ("outside:Listing", "--group", "again[1]")
    assert replay(filled, *named, "--from", last_id(1001)).returncode == 0
    assert filled.redis.hgetall(f"{beside}again[1]") == {"count": "200"}
    assert replay(filled, *named, "--from", "0", "--to", last_id(101)).returncode == 0
    assert filled.redis.hgetall(f"{beside}again[1]") == {"count": "100"}
    out = filled.redis.xrange(f"{beside}again[1]:out")
    assert [at for at, _ in out] == [last_id(n) for n in range(1, 101)]  # type: ignore[union-attr]
    named = (*named, "--streams", STREAM)
    assert replay(filled, *named, "--from", last_id(1200)).returncode == 0
    assert filled.redis.hgetall(f"{beside}again[1]") == {"count": "1"}
    elsewhere = f"consumers:{{{OTHER}}}:again[1]"
    assert filled.redis.hgetall(elsewhere) == {"count": "3"}
    left = set(filled.redis.scan_iter("consumers:*"))
    assert left == {
        *others,
        f"{beside}again[1]",
        f"{beside}again[1]:out",
        elsewhere,
        f"{elsewhere}:out",
    }


def test_replay_reports_a_failing_timer_like_a_failing_handler(filled: Bench) -> None:
    failing = """
class Failing(Summing):
    name = "failing"

    def due(self, *, stopping):
        raise ValueError("not now")
"""
    (filled.folder / "outside.py").write_text(SUMMING + failing)
    done = replay(filled, "outside:Failing", "--from", "0", "--streams", OTHER)
    assert done.returncode == 1
    assert f"failed on {OTHER} due: ValueError: not now" in done.stderr
    assert "Traceback" not in done.stderr


def test_replay_logs_entries_that_are_not_kept(filled: Bench) -> None:
    filled.redis.xtrim(STREAM, minid=last_id(1000), approximate=False)
    done = replay(filled, "outside:Summing", "--from", "2026-09-02T16:44", "--streams", STREAM)
    assert done.returncode == 0
    assert "not_kept" in done.stderr


def test_replay_does_not_touch_another_programs_group(filled: Bench) -> None:
    filled.redis.xgroup_create(STREAM, "node-app", "0")
    filled.redis.xreadgroup("node-app", "one", {STREAM: ">"}, count=30)
    done = replay(filled, "outside:Summing", "--from", "0", "--group", "node-app")
    assert done.returncode == 1
    assert f"{STREAM} has a group node-app already" in done.stderr
    assert filled.group(STREAM, "node-app")["pending"] == 30


def test_replay_writes_the_results_of_due_timers_at_the_end(filled: Bench) -> None:
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


def test_replay_logs_and_skips_a_key_that_is_no_stream(filled: Bench) -> None:
    filled.register("trade.ODD_USDC")
    filled.redis.set("trade.ODD_USDC", "not a stream")
    done = replay(filled, "outside:Summing", "--from", "0")
    assert done.returncode == 0
    assert "stream_unusable" in done.stderr
    assert numbers(filled, "summing-replay", OTHER) == "1 2 3"


def test_replay_refuses_a_range_that_ends_before_it_begins(filled: Bench) -> None:
    done = replay(filled, "outside:Summing", "--from", "2h", "--to", "3h")
    assert done.returncode == 2
    assert "--from 2h is not before --to 3h" in done.stderr
