"""Concurrent calls of a handler: limit, order per key, failures, filters and lifespans."""

import asyncio
from collections.abc import AsyncIterator, Callable, Hashable, Mapping
from typing import Any

import pytest

from bridge.errors import ConfigError, Fatal
from consumers import Consumer, Delivery, Results, StopWorker, Trade, consumes
from consumers.kit.api.consumer import ConsumerSpec
from consumers.kit.handling.batch import BatchRunner, Part
from consumers.kit.handling.entry import Entry, entry_of
from consumers.kit.handling.limits import RateLimit
from consumers.kit.handling.resources import with_resources
from consumers.kit.handling.yielding import Pace
from consumers.kit.worker.loading import load
from consumers.testing import EventFactory, Trial
from tests.support.consumer_batches import handle, stats
from tests.support.consumer_entries import START_US, trade

STREAM = "trade.SOL_USDC"


class Slow(Consumer):
    """Each call yields 60 - trade ID times to the loop; 13 raises an error, 49 stops the worker."""

    name = "slow"
    streams = ("trade.*",)
    concurrency = 3

    def __init__(self) -> None:
        self.running = self.most = 0
        self.over: list[int] = []

    async def on_trade(self, delivery: Delivery[Trade], results: Results) -> None:
        number = delivery.event.trade_id
        self.running += 1
        self.most = max(self.most, self.running)
        for _ in range(60 - number):
            await asyncio.sleep(0)
        self.running -= 1
        if number == 13:
            raise ValueError("unlucky")
        if number == 49:
            raise StopWorker
        self.over.append(number)
        results.xadd("numbers", "*", {"n": str(number)}, keep_entries=100)


class Keyed(Slow):
    mode = "ordered"

    def key(self, delivery: Delivery[Any]) -> Hashable:
        return delivery.event.trade_id % 2


def trades(*numbers: int) -> list[Entry]:
    return [entry_of(f"{n}-0", trade(n, START_US)) for n in numbers]


async def run(consumer: Consumer, *numbers: int) -> list[tuple[str, Part]]:
    parts: list[tuple[str, Part]] = []
    items = [(f"trade.M{entry[0]}", entry) for entry in trades(*numbers)]
    await BatchRunner(consumer, stats()).run_at_once(items, parts, Pace())
    return parts


class Quitting(Slow):
    """The call for trade 5 cancels its own task."""

    async def on_trade(self, delivery: Delivery[Trade], results: Results) -> None:
        if delivery.event.trade_id == 5:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
        await super().on_trade(delivery, results)


class QuittingKeyed(Quitting):
    mode = "ordered"

    def key(self, delivery: Delivery[Any]) -> Hashable:
        return delivery.event.trade_id % 2


async def test_a_call_that_cancels_its_own_task_has_failed_and_no_other() -> None:
    parts = await run(Quitting(), 4, 5, 6)
    failed = [part.failed.entry_id for _, part in parts if part.failed is not None]
    assert (len(parts), failed) == (3, ["5-0"])


async def test_a_batch_with_a_call_that_cancels_its_own_task_has_failed() -> None:
    runner = BatchRunner(QuittingKeyed(), stats())
    part = await runner.run_together(STREAM, trades(4, 5, 6), Pace())
    assert part.failed is not None
    assert (part.failed.entry_id, part.writes) == ("5-0", ())
    assert str(part.failed.reason) == "code of the consumer has cancelled the task of its call"


async def test_concurrent_calls_are_limited_by_concurrency() -> None:
    consumer = Slow()
    parts = await run(consumer, *range(1, 9))
    assert consumer.most == 3
    assert sorted(consumer.over) == list(range(1, 9)) != consumer.over
    assert [stream for stream, _ in parts] == [f"trade.M{n}-0" for n in range(1, 9)]


async def test_a_call_that_fails_among_others_fails_alone() -> None:
    parts = await run(Slow(), 11, 12, 13, 14)
    assert [part.failed is not None for _, part in parts] == [False, False, True, False]
    assert [len(part.writes) for _, part in parts] == [1, 1, 0, 1]


async def test_stop_worker_lets_running_calls_end_and_begins_no_more() -> None:
    consumer, parts = Slow(), list[tuple[str, Part]]()
    items = [(STREAM, entry) for entry in trades(48, 49, 47, 1, 2)]
    with pytest.raises(StopWorker):
        await BatchRunner(consumer, stats()).run_at_once(items, parts, Pace())
    assert [part.entries[0][0] for _, part in parts] == ["48-0", "47-0"]
    assert consumer.running == 0


@pytest.mark.parametrize("hook", ["filter", "key"])
@pytest.mark.parametrize("mode", ["shared", "ordered"])
async def test_stop_worker_of_a_hook_lets_the_calls_that_run_end(hook: str, mode: str) -> None:
    def stop_at_47(self: object, *what: Any) -> Any:
        number = what[-1]["trade_id"] if hook == "filter" else str(what[0].event.trade_id)
        if number == "47":
            raise StopWorker
        return number

    members = {"mode": mode, "concurrency": 2, "key": Keyed.key, hook: stop_at_47}
    consumer = type("Stops", (Slow,), members)()
    runner, items = BatchRunner(consumer, stats()), trades(45, 48, 47, 1)
    if mode == "shared":
        running: Any = runner.run_at_once([(STREAM, entry) for entry in items], [], Pace())
    else:
        running = runner.run_together(STREAM, items, Pace())
    with pytest.raises(StopWorker):
        await running
    assert (consumer.over, consumer.running) == ([48, 45], 0)


async def test_calls_of_a_key_keep_their_order_and_results_that_of_the_entries() -> None:
    consumer = Keyed()
    writes = await handle(consumer, [(f"{n}-0", trade(n, START_US)) for n in range(1, 11)])
    assert consumer.most == 2  # two keys: odd and even numbers
    assert [n for n in consumer.over if n % 2] == [1, 3, 5, 7, 9]
    assert [n for n in consumer.over if not n % 2] == [2, 4, 6, 8, 10]
    assert [write.arguments[-1] for write in writes] == [str(n) for n in range(1, 11)]


async def test_a_failed_call_of_a_keyed_batch_fails_the_batch_with_its_entry() -> None:
    part = await BatchRunner(Keyed(), stats()).run_together(STREAM, trades(12, 13, 14), Pace())
    assert part.failed is not None
    assert part.failed.entry_id == "13-0"
    assert part.writes == ()


async def test_undecodable_entries_are_counted_apart_among_concurrent_calls() -> None:
    parts: list[tuple[str, Part]] = []
    bad: Entry = ("2-0", ["type", "trade"])
    items = [(STREAM, entry) for entry in (*trades(1), bad, *trades(3))]
    await BatchRunner(Slow(), stats()).run_at_once(items, parts, Pace())
    assert [part.undecodable for _, part in parts] == [0, 1, 0]


@pytest.mark.parametrize("kind", [Slow, Keyed])
def test_a_trial_runs_calls_at_once(kind: type[Slow]) -> None:
    market, trial = EventFactory("SOL_USDC"), Trial(kind, STREAM)
    trial.deliver(*(market.trade("98.96") for _ in range(8)))
    assert isinstance(trial.consumer, Slow)
    assert trial.consumer.most > 1
    assert len(trial.entries("numbers")) == 8


def test_concurrency_is_refused_for_plain_handlers_and_lists() -> None:
    def plain(delivery: Delivery[Trade]) -> None: ...

    async def listed(batch: list[Delivery[Trade]]) -> None: ...

    with pytest.raises(ConfigError, match="plain function, and concurrency is 2: write async def"):
        ConsumerSpec(consumes("trade.*", concurrency=2)(plain)).build()
    with pytest.raises(ConfigError, match="concurrency is not for it"):
        ConsumerSpec(consumes("trade.*", concurrency=2)(listed)).build()


@pytest.mark.parametrize(
    ("setting", "value", "expected"),
    [
        ("concurrency", 0, "concurrency: write 1 to 1000"),
        ("concurrency", 2.5, "concurrency is 2.5: write a whole number"),
        ("rate_limit", 0, "rate_limit is 0: write calls a second, at least 0.1"),
        ("rate_limit", "fast", "rate_limit is 'fast': write calls a second"),
    ],
)
def test_impossible_settings_of_concurrent_calls_are_refused(
    monkeypatch: pytest.MonkeyPatch, setting: str, value: object, expected: str
) -> None:
    monkeypatch.setattr(Slow, setting, value)
    with pytest.raises(ConfigError, match=expected):
        load(f"{__name__}:Slow")


def test_a_rate_limit_allows_a_burst_of_a_tenth_of_a_second_and_spaces_later_calls() -> None:
    rate = RateLimit(50)
    waits = [rate.reserve(100.0) for _ in range(8)]
    assert waits[:5] == [0, 0, 0, 0, 0]
    assert waits[5:] == pytest.approx([0.02, 0.04, 0.06])
    assert RateLimit(0.5).reserve(100.0) == 0


async def test_the_rate_limit_holds_for_calls_one_by_one_and_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    for kind in (type("One", (Slow,), {"concurrency": 1}), Slow):
        monkeypatch.setattr(kind, "rate_limit", 0.5, raising=False)
        runner = BatchRunner(kind(), stats())
        with monkeypatch.context() as patched:
            patched.setattr("consumers.kit.handling.limits.asyncio.sleep", sleep)
            if kind is Slow:
                await runner.run_at_once([(STREAM, one) for one in trades(59, 60)], [], Pace())
            else:
                await runner.run_apart(STREAM, trades(59, 60), [], Pace())
    assert [wait > 1.5 for wait in waits if wait] == [True, True]


class Filtered(Consumer):
    name = "filtered"
    streams = ("trade.*",)

    def __init__(self) -> None:
        self.got: list[int] = []

    def filter(self, stream: str, fields: Mapping[str, str]) -> bool:
        return float(fields["quantity"]) > 1

    def on_trade(self, delivery: Delivery[Trade]) -> None:
        self.got.append(delivery.event.trade_id)


async def filtered(*entries: Entry) -> tuple[Filtered, Part]:
    consumer = Filtered()
    return consumer, await BatchRunner(consumer, stats()).run_together(STREAM, entries, Pace())


async def test_a_filter_keeps_entries_from_being_decoded() -> None:
    small = trade(1, START_US, quantity="0.5") | {"price": "not decoded"}
    consumer, part = await filtered(entry_of("1-0", small), *trades(2))
    assert consumer.got == [2]
    assert (part.failed, part.undecodable, len(part.entries)) == (None, 0, 2)


async def test_a_filter_that_fails_is_the_entrys_failure_unless_it_cannot_be_decoded() -> None:
    _, part = await filtered(entry_of("1-0", trade(1, START_US) | {"quantity": "much"}))
    assert part.undecodable == 1
    consumer, part = await filtered(("1-0", ["type", "trade"]), *trades(2))
    assert (consumer.got, part.undecodable) == ([2], 1)


def raises(stream: str, fields: Mapping[str, str]) -> bool:
    raise KeyError("no such field")


def returns_nothing(stream: str, fields: Mapping[str, str]) -> None:
    fields["quantity"]


@pytest.mark.parametrize(("how", "reason"), [(raises, KeyError), (returns_nothing, TypeError)])
async def test_a_filter_that_returns_none_fails_a_valid_entry(
    how: Callable[[str, Mapping[str, str]], object], reason: type[Exception]
) -> None:
    kind = type("Failing", (Filtered,), {"filter": staticmethod(how)})
    part = await BatchRunner(kind(), stats()).run_together(STREAM, trades(1), Pace())
    assert part.failed is not None
    assert isinstance(part.failed.reason, reason)


class Opening(Filtered):
    events: list[str] = []  # noqa: RUF012 - emptied by each test

    async def lifespan(self) -> AsyncIterator[str]:
        self.events.append("open")
        yield "the connection"
        self.events.append("closed")


async def test_each_object_gets_the_value_of_lifespan_which_is_closed_at_the_end() -> None:
    Opening.events.clear()
    async with with_resources(ConsumerSpec(Opening)) as spec:
        assert spec.build().resources == spec.build().resources == "the connection"
        assert Opening.events == ["open"]
    assert Opening.events == ["open", "closed"]


async def test_lifespan_is_closed_if_the_worker_ends_with_an_error() -> None:
    Opening.events.clear()
    with pytest.raises(RuntimeError):
        async with with_resources(ConsumerSpec(Opening)):
            raise RuntimeError
    assert Opening.events == ["open", "closed"]


def _failing() -> Callable[[], Any]:
    async def lifespan() -> AsyncIterator[None]:
        raise OSError("no such service")
        yield

    return lifespan


async def test_a_lifespan_that_fails_is_reported_in_one_sentence() -> None:
    kind = type("Failing", (Filtered,), {"lifespan": staticmethod(_failing())})
    with pytest.raises(Fatal, match="its lifespan failed before the first entry: OSError: no such"):
        async with with_resources(ConsumerSpec(kind)):
            pass


class Panic(BaseException):
    """Not an `Exception`, like the panics that libraries in Rust raise."""


def _panics() -> None:
    raise Panic("lost")


async def _panics_within() -> AsyncIterator[None]:
    _panics()
    yield


@pytest.mark.parametrize("lifespan", [_panics, _panics_within])
async def test_a_lifespan_that_panics_is_reported_in_one_sentence(lifespan: Any) -> None:
    kind = type("Failing", (Filtered,), {"lifespan": staticmethod(lifespan)})
    with pytest.raises(Fatal, match="its lifespan failed before the first entry: Panic: lost"):
        async with with_resources(ConsumerSpec(kind)):
            pass


async def test_a_lifespan_that_takes_too_long_is_cancelled() -> None:
    async def lifespan() -> AsyncIterator[None]:
        await asyncio.sleep(60)
        yield

    members = {"lifespan": staticmethod(lifespan), "time_limit_s": 0.01}
    with pytest.raises(Fatal, match="TimeoutError"):
        async with with_resources(ConsumerSpec(type("Late", (Filtered,), members))):
            pass


def test_a_function_has_filter_key_and_lifespan_without_self() -> None:
    async def score(delivery: Delivery[Trade]) -> None: ...

    made = consumes(
        "trade.*",
        concurrency=2,
        filter=lambda stream, fields: stream == STREAM,
        key=lambda delivery: delivery.stream,
    )(score)
    consumer = ConsumerSpec(made).build()
    assert consumer.filter(STREAM, {})
    assert not consumer.filter("trade.X", {})
