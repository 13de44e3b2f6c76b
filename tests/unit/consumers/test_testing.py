"""`consumers.testing`, the harness for users' own consumers."""

from typing import ClassVar

import pytest

from bridge.contract.entry import MODELS, decode, encode, field_names
from bridge.contract.events import Event, Gap, MarkPrice, Trade
from bridge.contract.identity import EntryId
from consumers import Consumer, Delivery, Results
from consumers.handlers.candles import Candles
from consumers.testing import EventFactory, Trial

TRADES = "trade.SOL_USDC"


class Count(Consumer):
    """Keeps a count of trades in its state, writes it, and writes every second trade."""

    name = "count"
    streams = ("trade.*",)
    mode = "ordered"

    def __init__(self, step: str = "1") -> None:
        self.step = int(step)
        self.new: list[tuple[str, str]] = []

    def on_trade(self, delivery: Delivery[Trade]) -> None:
        if delivery.event.price == "13":
            raise ValueError("unlucky")
        self.state["count"] = self.state.get("count", 0) + self.step
        if self.state["count"] % 2 == 0:
            self.new.append((delivery.entry_id, delivery.event.price))

    def write(self, results: Results) -> None:
        results.hset("", {"count": str(self.state["count"])})
        for entry_id, price in self.new:
            results.xadd("second", entry_id, {"price": price}, keep_entries=100)
        self.new = []


class Received(Consumer):
    """A shared, async consumer that records its deliveries."""

    name = "received"
    streams = ("trade.*",)
    all: ClassVar[list[str]] = []

    async def on_batch(self, batch: list[Delivery[Trade | Gap]]) -> None:
        self.all.append(",".join(d.event.type for d in batch))


def test_trial_writes_results_of_an_ordered_consumer_to_redis() -> None:
    factory, trial = EventFactory(), Trial(Count, TRADES, step="1")
    trial.deliver(factory.trade("98.96"), factory.trade("98.97"))
    trial.deliver(factory.trade("98.98"), factory.trade("98.99"))
    assert trial.hash() == {"count": "4"}
    assert [fields for _, fields in trial.entries("second")] == [
        {"price": "98.97"},
        {"price": "98.99"},
    ]
    assert trial.redis.exists("consumers:{trade.SOL_USDC}:count")


def test_trial_passes_options_as_the_command_line_does() -> None:
    factory, trial = EventFactory(), Trial(Count, TRADES, step="5")
    trial.deliver(factory.trade("1"))
    assert trial.hash() == {"count": "5"}


def test_trial_take_over_continues_from_what_is_in_redis() -> None:
    factory, trial = EventFactory(), Trial(Count, TRADES)
    trial.deliver(factory.trade("1"), factory.trade("2"))
    before = trial.consumer
    trial.take_over()
    assert trial.consumer is not before
    trial.deliver(factory.trade("3"))
    assert trial.hash() == {"count": "3"}


def test_trial_crash_after_counts_entries_once() -> None:
    factory, trial = EventFactory(), Trial(Count, TRADES)
    trial.deliver(factory.trade("1"))
    trial.crash_after(factory.trade("2"), factory.trade("3"), factory.trade("4"))
    assert trial.hash() == {"count": "4"}
    assert len(trial.entries("second")) == 2


def test_trial_raises_what_a_handler_raises_and_writes_nothing_of_its_batch() -> None:
    factory, trial = EventFactory(), Trial(Count, TRADES)
    with pytest.raises(ValueError, match="unlucky"):
        trial.deliver(factory.trade("1"), factory.trade("13"))
    assert trial.hash() == {}


def test_trial_take_over_shows_a_consumer_that_keeps_its_count_outside_the_state() -> None:
    class Forgetful(Count):
        def on_trade(self, delivery: Delivery[Trade]) -> None:
            self.step += 1
            self.state["count"] = self.step

    factory, trial = EventFactory(), Trial(Forgetful, TRADES)
    trial.deliver(factory.trade("1"), factory.trade("2"))
    trial.take_over()
    trial.deliver(factory.trade("3"))
    assert trial.hash()["count"] != "4"


def test_trial_delivers_batches_of_the_given_size() -> None:
    Received.all = []
    factory, trial = EventFactory(), Trial(Received, TRADES)
    trial.deliver(factory.trade("1"), factory.trades_missing(3), factory.trade("2"), at_once=2)
    trial.crash_after(factory.trade("3"))
    assert Received.all == ["trade,gap", "trade", "trade", "trade"]


async def test_trial_on_a_loop_needs_the_async_methods() -> None:
    factory, trial = EventFactory(), Trial(Count, TRADES)
    with pytest.raises(RuntimeError, match="_async"):
        trial.deliver(factory.trade("1"))
    await trial.deliver_async(factory.trade("2"))
    await trial.crash_after_async(factory.trade("3"))
    assert trial.hash() == {"count": "2"}


def test_event_factory_numbers_and_times_entries_as_the_bridge_does() -> None:
    factory = EventFactory(first=100)
    ids = [
        factory.trade("1").entry_id,
        factory.trades_missing(5).entry_id,
        factory.trade("1", after_s=60).entry_id,
        factory.depth([("1", "2")], updates=3).entry_id,
        factory.snapshot([("1", "2")]).entry_id,
    ]
    assert ids == [
        "1788367440250-1000",
        "1788367440250-1051",
        "1788367500250-1060",
        "1788367500500-1020",
        "1788367500500-1022",
    ]
    gap = EventFactory().trades_missing(2).event
    assert isinstance(gap, Gap)
    assert (gap.from_, gap.to) == (1, 2)


def test_event_factory_ids_rise_although_no_time_passes() -> None:
    factory = EventFactory()
    ids = [EntryId.parse(factory.event(MarkPrice, after_s=0).entry_id) for _ in range(5)]
    assert ids == sorted(set(ids))


@pytest.mark.parametrize("kind", MODELS)
def test_event_factory_makes_every_event_of_the_contract(kind: type[Event]) -> None:
    event = EventFactory().event(kind).event
    fields = dict(zip(field_names(kind), encode(event), strict=True))
    assert decode(fields) == event


def test_event_factory_refuses_a_misspelt_field() -> None:
    with pytest.raises(TypeError, match="no field 'mark_prise'; did you mean mark_price"):
        EventFactory().event(MarkPrice, mark_prise="1")


def test_trial_runs_the_example_of_the_documents() -> None:
    factory, trial = EventFactory("SOL_USDC"), Trial(Candles, TRADES, intervals="1m")
    trial.deliver(factory.trade("98.96"), factory.trade("99.10"), factory.trade("98.70"))
    assert trial.hash("1m")["high"] == "99.10"


class Traded(Consumer):
    """A shared consumer that counts trades with `Results`."""

    name = "traded"
    streams = ("trade.*",)

    def on_trade(self, delivery: Delivery[Trade], results: Results) -> None:
        results.hincrby("", "trades", 1)


def test_trial_counts_results_of_a_shared_consumer_once() -> None:
    factory, trial = EventFactory(), Trial(Traded, TRADES)
    trial.deliver(factory.trade("98.96"), factory.trade("98.97"))
    trial.crash_after(factory.trade("98.98"))
    assert trial.hash() == {"trades": "3"}


class Once(Count):
    """Ordered; the first call of its handler fails."""

    failures: ClassVar[int] = 1

    def on_trade(self, delivery: Delivery[Trade]) -> None:
        super().on_trade(delivery)
        self.step = 100  # not in the state: lost with the object
        if type(self).failures:
            type(self).failures -= 1
            raise OSError("not now")


def test_trial_hands_a_failed_ordered_batch_to_a_new_object_with_the_saved_state() -> None:
    Once.failures = 1
    factory, trial = EventFactory(), Trial(Once, TRADES)
    before = trial.consumer
    with pytest.raises(OSError, match="not now"):
        trial.deliver(factory.trade("1"))
    assert trial.hash() == {}
    trial.deliver()
    assert trial.consumer is not before
    assert trial.hash() == {"count": "1"}


class TradedOnce(Traded):
    """Shared; the first call of its handler fails."""

    failures: ClassVar[int] = 1

    def on_trade(self, delivery: Delivery[Trade], results: Results) -> None:
        super().on_trade(delivery, results)
        if type(self).failures:
            type(self).failures -= 1
            raise OSError("not now")


def test_trial_hands_a_failed_shared_batch_to_the_same_object_and_counts_it_once() -> None:
    TradedOnce.failures = 1
    factory, trial = EventFactory(), Trial(TradedOnce, TRADES)
    before = trial.consumer
    with pytest.raises(OSError, match="not now"):
        trial.deliver(factory.trade("1"))
    trial.deliver(factory.trade("2"))
    assert trial.consumer is before
    assert trial.hash() == {"trades": "2"}
