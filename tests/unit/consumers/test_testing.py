"""The harness for the tests of one's own consumers, used as its users would."""

from typing import ClassVar

import pytest

from bridge.contract.entry import EXCHANGE_MODELS, OWN_MODELS, decode, encode, field_names
from bridge.contract.events import Event, Gap, MarkPrice, Trade
from bridge.contract.identity import EntryId
from consumers import Consumer, Delivery, Results
from consumers.handlers.candles import Candles
from consumers.testing import Tape, Trial

TRADES = "trade.SOL_USDC"


class Count(Consumer):
    """Counts trades; keeps the count, writes it, and a stream of every second one."""

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


class Heard(Consumer):
    """Shared, async: remembers what it was given."""

    name = "heard"
    streams = ("trade.*",)
    all: ClassVar[list[str]] = []

    async def on_batch(self, batch: list[Delivery[Trade | Gap]]) -> None:
        self.all.append(",".join(d.event.type for d in batch))


def test_results_of_an_ordered_consumer_are_in_redis() -> None:
    tape, trial = Tape(), Trial(Count, TRADES, step="1")
    trial.give(tape.trade("98.96"), tape.trade("98.97"))
    trial.give(tape.trade("98.98"), tape.trade("98.99"))
    assert trial.hash() == {"count": "4"}
    assert [fields for _, fields in trial.entries("second")] == [
        {"price": "98.97"},
        {"price": "98.99"},
    ]
    assert trial.redis.exists("consumers:{trade.SOL_USDC}:count")


def test_options_arrive_as_on_the_command_line() -> None:
    tape, trial = Tape(), Trial(Count, TRADES, step="5")
    trial.give(tape.trade("1"))
    assert trial.hash() == {"count": "5"}


def test_a_worker_that_takes_over_goes_on_from_redis() -> None:
    tape, trial = Tape(), Trial(Count, TRADES)
    trial.give(tape.trade("1"), tape.trade("2"))
    before = trial.consumer
    trial.take_over()
    assert trial.consumer is not before
    trial.give(tape.trade("3"))
    assert trial.hash() == {"count": "3"}


def test_what_a_worker_handled_before_it_died_counts_once() -> None:
    tape, trial = Tape(), Trial(Count, TRADES)
    trial.give(tape.trade("1"))
    trial.crash_after(tape.trade("2"), tape.trade("3"), tape.trade("4"))
    assert trial.hash() == {"count": "4"}
    assert len(trial.entries("second")) == 2


def test_what_a_handler_raises_comes_out_and_nothing_of_its_batch_is_written() -> None:
    tape, trial = Tape(), Trial(Count, TRADES)
    with pytest.raises(ValueError, match="unlucky"):
        trial.give(tape.trade("1"), tape.trade("13"))
    assert trial.hash() == {}


def test_a_consumer_that_keeps_its_count_in_itself_is_found_out() -> None:
    class Forgetful(Count):
        def on_trade(self, delivery: Delivery[Trade]) -> None:
            self.step += 1
            self.state["count"] = self.step

    tape, trial = Tape(), Trial(Forgetful, TRADES)
    trial.give(tape.trade("1"), tape.trade("2"))
    trial.take_over()
    trial.give(tape.trade("3"))
    assert trial.hash()["count"] != "4"


def test_batches_are_as_large_as_asked_for() -> None:
    Heard.all = []
    tape, trial = Tape(), Trial(Heard, TRADES)
    trial.give(tape.trade("1"), tape.trades_missing(3), tape.trade("2"), at_once=2)
    trial.crash_after(tape.trade("3"))
    assert Heard.all == ["trade,gap", "trade", "trade", "trade"]


async def test_on_a_loop_the_async_methods_do_the_same() -> None:
    tape, trial = Tape(), Trial(Count, TRADES)
    with pytest.raises(RuntimeError, match="_async"):
        trial.give(tape.trade("1"))
    await trial.give_async(tape.trade("2"))
    await trial.crash_after_async(tape.trade("3"))
    assert trial.hash() == {"count": "2"}


def test_a_tape_numbers_and_times_as_the_bridge_does() -> None:
    tape = Tape(first=100)
    ids = [
        tape.trade("1").entry_id,
        tape.trades_missing(5).entry_id,
        tape.trade("1", after_s=60).entry_id,
        tape.depth([("1", "2")], updates=3).entry_id,
        tape.snapshot([("1", "2")]).entry_id,
    ]
    assert ids == [
        "1788367440250-1000",
        "1788367440250-1051",
        "1788367500250-1060",
        "1788367500500-1020",
        "1788367500500-1022",
    ]
    gap = Tape().trades_missing(2).event
    assert isinstance(gap, Gap)
    assert (gap.from_, gap.to) == (1, 2)


def test_ids_of_unnumbered_entries_rise_also_where_no_time_passes() -> None:
    tape = Tape()
    ids = [EntryId.parse(tape.event(MarkPrice, after_s=0).entry_id) for _ in range(5)]
    assert ids == sorted(set(ids))


@pytest.mark.parametrize("kind", [*EXCHANGE_MODELS.values(), *OWN_MODELS])
def test_every_event_can_be_made_and_stands_in_the_contract(kind: type[Event]) -> None:
    event = Tape().event(kind).event
    fields = dict(zip(field_names(kind), encode(event), strict=True))
    assert decode(fields) == event


def test_a_misspelt_field_is_found_out() -> None:
    with pytest.raises(TypeError, match="no field 'mark_prise'; did you mean mark_price"):
        Tape().event(MarkPrice, mark_prise="1")


def test_the_example_of_the_documents() -> None:
    tape, trial = Tape("SOL_USDC"), Trial(Candles, TRADES, intervals="1m")
    trial.give(tape.trade("98.96"), tape.trade("99.10"), tape.trade("98.70"))
    assert trial.hash("1m")["high"] == "99.10"


class Traded(Consumer):
    """Shared: counts with results, each entry's own."""

    name = "traded"
    streams = ("trade.*",)

    def on_trade(self, delivery: Delivery[Trade], results: Results) -> None:
        results.hincrby("", "trades", 1)


def test_results_of_a_shared_consumer_count_once() -> None:
    tape, trial = Tape(), Trial(Traded, TRADES)
    trial.give(tape.trade("98.96"), tape.trade("98.97"))
    trial.crash_after(tape.trade("98.98"))
    assert trial.hash() == {"trades": "3"}
