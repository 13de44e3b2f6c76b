"""Timers: due times, their order among entries, and each due time handled once."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from bridge.errors import ConfigError
from consumers import Consumer, Delivery, Results, StopWorker, Tick, Trade, every
from consumers.kit.api.consumer import ConsumerSpec
from consumers.kit.api.timers import timers_of
from consumers.kit.handling.batch import BatchRunner
from consumers.kit.ordered.assigned_stream import AssignedStream, Phase
from consumers.kit.ordered.lease import Answer, Commit, CommitStatus, Lease
from consumers.kit.shared.timers import GroupTimers
from consumers.testing import EventFactory, Trial
from examples.vwap import Vwap
from tests.support.consumer_batches import stats

STREAM = "trade.SOL_USDC"
MINUTE_MS = 60_000
NOON_MS = 1_788_350_400_000  # 2026-09-02T12:00:00


class Counting(Consumer):
    name = "counting"
    mode = "ordered"
    streams = ("trade.*",)

    def on_trade(self, delivery: Delivery[Trade]) -> None:
        self.state["trades"] = self.state.get("trades", 0) + 1

    @every("1m")
    def tell(self, tick: Tick, results: Results) -> None:
        if self.state.get("trades") == 13:
            raise ValueError("unlucky")
        row = {"trades": str(self.state.get("trades", 0)), "at_us": str(tick.at_us)}
        results.xadd("reports", "*", row, keep_entries=100)
        self.state["reports"] = self.state.get("reports", 0) + 1


class Shared(Counting):
    mode = "shared"

    def on_trade(self, delivery: Delivery[Trade]) -> None: ...

    @every("1m")
    async def tell(self, tick: Tick, results: Results) -> None:
        results.hincrby("", "reports", 1)


def test_intervals_are_read_and_wrong_ones_refused() -> None:
    assert timers_of(Counting) == {"tell": MINUTE_MS}
    for interval, ms in (("30s", 30_000), ("1h", 3_600_000), ("1d", 86_400_000), (2.5, 2500)):
        made: Callable[..., Any] = every(interval)(lambda self, tick: None)
        assert timers_of(type("K", (), {"t": made})) == {"t": ms}
    for wrong in ("", "1", "1w", "2d", "0s", "-1m", 0.5, 90_000, float("nan"), None, True):
        with pytest.raises(ConfigError, match=r"write 1s to 1d, such as '30s'"):
            every(wrong)  # type: ignore[arg-type]


def test_a_timer_that_cannot_be_called_is_refused() -> None:
    def without() -> None: ...

    def yields(self: object, tick: Tick) -> Any:
        yield

    for method, output in ((without, "one parameter, the tick"), (yields, "has a yield in it")):
        kind = type("K", (Counting,), {"tell": every("1m")(method)})
        with pytest.raises(ConfigError, match=output):
            ConsumerSpec(kind).build()


def assigned(kind: type[Consumer] = Counting, position: str = "0-0") -> AssignedStream:
    return AssignedStream(Lease(STREAM, 1, position), ConsumerSpec(kind), stats(), "w")


def written(one: AssignedStream) -> Sequence[str]:
    assert one.commit is not None
    return [write.part for write in one.commit.writes]


async def test_the_first_time_of_a_timer_is_noted_and_the_next_one_called() -> None:
    one = assigned()
    await one.begin({}, {})
    assert await one.run_timer(NOON_MS + 5, is_caught_up=True)
    assert written(one) == ["ticks"]
    await one.committed(0)
    assert not await one.run_timer(NOON_MS + MINUTE_MS - 1, is_caught_up=True)
    assert await one.run_timer(NOON_MS + MINUTE_MS, is_caught_up=True)
    assert written(one) == ["reports", "state", "ticks"]
    await one.committed(0)
    assert not await one.run_timer(NOON_MS + MINUTE_MS + 1, is_caught_up=True)


async def test_only_the_last_missed_time_of_a_timer_is_called() -> None:
    one = assigned()
    await one.begin({}, {"tell": NOON_MS})
    assert await one.run_timer(NOON_MS + 10 * MINUTE_MS + 1, is_caught_up=True)
    assert one.commit is not None
    assert one.commit.writes[-1].arguments == ("tell", str(NOON_MS + 10 * MINUTE_MS))
    await one.committed(0)
    assert not await one.run_timer(NOON_MS + 10 * MINUTE_MS + 2, is_caught_up=True)


async def test_a_timer_waits_for_entries_before_its_time() -> None:
    one = assigned(position=f"{NOON_MS}-0")
    await one.begin({}, {"tell": NOON_MS})
    assert not await one.run_timer(NOON_MS + MINUTE_MS, is_caught_up=False)
    later = assigned(position=f"{NOON_MS + MINUTE_MS}-0")
    await later.begin({}, {"tell": NOON_MS})
    assert await later.run_timer(NOON_MS + MINUTE_MS, is_caught_up=False)


async def test_a_timer_that_fails_pauses_its_stream_and_is_not_done() -> None:
    one = assigned()
    await one.begin({"trades": "13"}, {"tell": NOON_MS})
    assert await one.run_timer(NOON_MS + MINUTE_MS, is_caught_up=True)
    assert one.phase is Phase.PAUSED
    assert not await one.run_timer(NOON_MS + MINUTE_MS, is_caught_up=True)


@pytest.mark.parametrize("is_refused", [False, True])
async def test_a_timer_that_always_fails_does_not_keep_the_others_from_running(
    is_refused: bool,
) -> None:
    def fail(self: object, tick: Tick) -> None:
        if not is_refused:
            raise ValueError("no")

    one = assigned(type("Failing", (Counting,), {"a_fails": every("1m")(fail)}))
    told = []
    ticks = {"tell": NOON_MS, "a_fails": NOON_MS}
    for minute in (1, 2):
        now_ms = NOON_MS + minute * MINUTE_MS
        for _ in range(2):  # the one fails, and after its pause the other is run
            await one.begin({}, ticks)
            while await one.run_timer(now_ms, is_caught_up=True) and one.commit is not None:
                name, at_ms = one.commit.writes[-1].arguments
                if name == "a_fails":
                    one.refused("WRONGTYPE")
                    break
                await one.committed(0)
                ticks[name] = int(at_ms)
                told.append(int(at_ms))
            assert one.phase is Phase.PAUSED
    assert told == [NOON_MS + MINUTE_MS, NOON_MS + 2 * MINUTE_MS]


class OfOneWorker:
    """Leases and membership of a worker that is alone, at a time that the test sets."""

    beats = 1

    def __init__(self, now_ms: int, ticks: dict[str, int]) -> None:
        self.now_ms = now_ms
        self.told: list[tuple[str, ...]] = []
        self._ticks = ticks

    async def acquire(self, name: str, start: str, *, is_stream: bool) -> Lease:
        return Lease(name, 1, start, is_stream=is_stream)

    async def ticks(self, name: str) -> dict[str, int]:
        return self._ticks

    async def commit(self, commits: Sequence[Commit]) -> list[Answer]:
        self.told += [commit.writes[-1].arguments for commit in commits]
        return [Answer(CommitStatus.OK) for _ in commits]


async def test_a_shared_timer_that_always_fails_delays_no_other() -> None:
    def fail(self: object, tick: Tick) -> None:
        raise ValueError("no")

    consumer = type("Failing", (Shared,), {"a_fails": every("1m")(fail)})()
    worker: Any = OfOneWorker(NOON_MS, {"tell": NOON_MS - MINUTE_MS, "a_fails": 0})
    timers = GroupTimers(consumer, BatchRunner(consumer, stats()), worker, worker)
    for minute in range(5):
        worker.now_ms = NOON_MS + minute * MINUTE_MS
        await timers.run()
    assert worker.told == [("tell", str(NOON_MS + n * MINUTE_MS)) for n in range(5)]


async def test_a_timer_may_stop_its_worker() -> None:
    def stop(self: object, tick: Tick) -> None:
        raise StopWorker

    one = assigned(type("Stopping", (Counting,), {"tell": every("1m")(stop)}))
    await one.begin({}, {"tell": NOON_MS})
    with pytest.raises(StopWorker):
        await one.run_timer(NOON_MS + MINUTE_MS, is_caught_up=True)
    assert one.commit is None


def test_a_trial_calls_timers_once_for_each_time_also_after_a_takeover() -> None:
    market, trial = EventFactory(), Trial(Counting, STREAM)
    trial.deliver(market.trade("1"))
    trial.tick("2026-09-02T12:00:30")
    trial.take_over()
    trial.tick("2026-09-02T12:00:59")
    trial.tick("2026-09-02T12:02:00")
    assert [row["at_us"] for _, row in trial.entries("reports")] == [
        f"{NOON_MS}000",
        f"{NOON_MS + 2 * MINUTE_MS}000",
    ]
    assert trial.consumer.state["reports"] == 2


def test_a_trial_of_a_shared_consumer_keeps_what_timers_write_apart() -> None:
    trial = Trial(Shared, STREAM)
    trial.tick("2026-09-02T12:00:30")
    trial.tick("2026-09-02T12:00:40")
    assert trial.redis.hgetall(trial.key(stream="timers")) == {"reports": "1"}


def test_vwap_writes_a_minute_when_it_is_over_and_again_for_a_late_trade() -> None:
    market, trial = EventFactory(), Trial(Vwap, STREAM)  # its time begins at 16:44:00
    trial.deliver(market.trade("100", "1"), market.trade("103", "2"))
    trial.tick("2026-09-02T16:44:30")
    assert trial.entries("minutes") == []
    trial.tick("2026-09-02T16:45:00")
    trial.crash_after(market.trade("101", "1"))
    trial.tick("2026-09-02T16:46:00")
    rows = [row for _, row in trial.entries("minutes")]
    assert [(row["vwap"], row["trades"], row["revision"]) for row in rows] == [
        ("102", "2", "0"),
        ("101.75", "3", "1"),
    ]


def test_vwap_drops_written_minutes_from_its_state() -> None:
    market, trial = EventFactory(), Trial(Vwap, STREAM)
    trial.deliver(*(market.trade("100", after_s=60) for _ in range(15)))
    trial.tick("2026-09-02T17:30:00")
    assert len(trial.entries("minutes")) == 15
    assert len(trial.consumer.state) == 10
