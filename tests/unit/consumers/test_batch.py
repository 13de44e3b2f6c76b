"""`BatchRunner`: entries that succeed or fail together, and their writes."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import pytest

from bridge.contract.entry import BadEntry
from consumers import Consumer, Delivery, Results, State, StopWorker, Trade
from consumers.kit.handling.batch import BatchRunner, Part, made_line
from consumers.kit.handling.entry import Entry, entry_of
from consumers.kit.handling.failure import HandlerFailed, TookTooLong
from consumers.kit.handling.yielding import RUN_S, Pace
from tests.support.consumer_batches import stats
from tests.support.consumer_entries import START_US, entry_id, trade

STREAM = "trade.SOL_USDC"


class Odd(Consumer):
    """Writes for trades with an odd number; 13 raises an error, 99 stops the worker."""

    name = "odd"
    streams = ("trade.*",)

    def on_trade(self, delivery: Delivery[Trade], results: Results) -> None:
        number = delivery.event.trade_id
        if number == 13:
            raise ValueError("unlucky")
        if number == 99:
            raise StopWorker
        if number % 2:
            results.hincrby("", "odd", 1)


class Summing(Odd):
    name = "summing"
    mode = "ordered"

    def on_trade(self, delivery: Delivery[Trade], results: Results) -> None:
        super().on_trade(delivery, results)
        self.state["sum"] = self.state.get("sum", 0) + delivery.event.trade_id


def trades(*numbers: int) -> list[Entry]:
    return [entry_of(f"{n}-0", trade(n, START_US)) for n in numbers]


def ids(part: Part) -> list[str]:
    return [entry_id for entry_id, _ in part.entries]


async def apart(kind: type[Consumer], entries: Sequence[Entry], **how: Any) -> list[Part]:
    parts: list[Part] = []
    await BatchRunner(kind(), stats()).run_apart(STREAM, entries, parts, Pace(), **how)
    return parts


def _nothing_runs() -> Any:
    yield


class Lazy(Consumer):
    """A handler that returns a generator."""

    name = "lazy"
    streams = ("trade.*",)

    def on_trade(self, delivery: Delivery[Trade]) -> Any:
        return _nothing_runs()


class LazyAsync(Lazy):
    async def on_trade(self, delivery: Delivery[Trade]) -> Any:
        return _nothing_runs()


async def test_a_handler_that_empties_its_event_does_not_fail() -> None:
    class Emptying(Odd):
        def on_trade(self, delivery: Delivery[Trade], results: Results) -> None:
            delivery.event.__dict__.clear()

    class Changing(Odd):
        def on_trade(self, delivery: Delivery[Trade], results: Results) -> None:
            delivery.event.__dict__["received_us"] = "now"

    for kind in (Emptying, Changing):
        [part] = await apart(kind, trades(1))
        assert part.failed is None


async def test_replacing_the_state_object_is_a_failure() -> None:
    class Replacing(Summing):
        def load(self) -> None:
            self.state = self.state or State()

    state = State()
    runner = await BatchRunner.open(Replacing(), STREAM, 1, state, stats())
    part = await runner.run_together(STREAM, trades(1), Pace())
    assert part.failed is not None
    assert str(part.failed.reason).startswith("state is another object")


@pytest.mark.parametrize("kind", [Lazy, LazyAsync])
async def test_a_handler_that_returns_a_generator_fails(kind: type[Consumer]) -> None:
    [part] = await apart(kind, trades(1))
    assert part.failed is not None
    assert str(part.failed.reason).startswith("it gave a generator, of which nothing has run")


async def test_due_that_returns_a_generator_fails() -> None:
    class LazyDue(Summing):
        def due(self, *, stopping: bool) -> Any:
            return _nothing_runs()

    with pytest.raises(HandlerFailed):
        await BatchRunner(LazyDue(), stats(), State()).is_due(STREAM, stopping=False)


async def test_the_text_of_made_is_cut_and_its_panic_is_reported() -> None:
    class Long(Odd):
        def made(self) -> str:
            return "x" * 1_000_000

    class Panics(Odd):
        def made(self) -> str:
            raise Panic

    assert made_line(Long()) == "x" * 200
    assert made_line(Panics()) == "made() failed: Panic"


async def test_separate_entries_without_writes_are_one_part() -> None:
    [part] = await apart(Odd, trades(2, 4, 6))
    assert (ids(part), part.writes, part.failed) == (["2-0", "4-0", "6-0"], (), None)


async def test_separate_entries_with_writes_are_one_part_each() -> None:
    parts = await apart(Odd, trades(2, 4, 5, 7, 8))
    assert [ids(part) for part in parts] == [["2-0", "4-0"], ["5-0"], ["7-0"], ["8-0"]]
    assert [len(part.writes) for part in parts] == [0, 1, 1, 0]


async def test_a_separate_entry_that_fails_does_not_affect_others() -> None:
    parts = await apart(Odd, trades(2, 13, 4))
    assert [ids(part) for part in parts] == [["2-0"], ["13-0"], ["4-0"]]
    assert [part.failed is None for part in parts] == [True, False, True]


async def test_stop_worker_keeps_the_parts_before_it() -> None:
    parts: list[Part] = []
    with pytest.raises(StopWorker):
        await BatchRunner(Odd(), stats()).run_apart(STREAM, trades(2, 5, 99), parts, Pace())
    assert [ids(part) for part in parts] == [["2-0"], ["5-0"]]


class Lists(Consumer):
    name = "lists"
    streams = ("trade.*",)

    def on_batch(self, batch: list[Delivery[Trade]]) -> None:
        if any(delivery.event.trade_id == 13 for delivery in batch):
            raise ValueError("unlucky")


async def test_a_list_that_fails_is_one_part_and_single_calls_find_the_entry() -> None:
    [part] = await apart(Lists, trades(2, 13, 4))
    assert part.failed is not None
    parts = await apart(Lists, trades(2, 13, 4), one_by_one=True)
    assert [ids(part) for part in parts if part.failed] == [["13-0"]]


async def test_a_batch_together_is_one_part_with_all_writes_and_the_state() -> None:
    state = State()
    runner = await BatchRunner.open(Summing(), STREAM, 1, state, stats())
    part = await runner.run_together(STREAM, trades(1, 2, 3), Pace())
    assert ids(part) == ["1-0", "2-0", "3-0"]
    assert [(w.command, w.part, w.arguments) for w in part.writes] == [
        ("HINCRBY", "", ("odd", "1")),
        ("HINCRBY", "", ("odd", "1")),
        ("HSET", "state", ("sum", "6")),
    ]
    assert runner.state is state  # an empty state is falsy, but must not be replaced


async def test_a_batch_together_ends_at_the_entry_that_fails_and_writes_nothing() -> None:
    runner = await BatchRunner.open(Summing(), STREAM, 1, State(), stats())
    part = await runner.run_together(STREAM, trades(1, 13, 3), Pace())
    assert part.failed is not None
    assert (part.failed.entry_id, part.failed.entries, part.writes) == ("13-0", 1, ())


async def test_a_slow_batch_together_ends_early_after_an_entry() -> None:
    class Slow(Summing):
        def on_trade(self, delivery: Delivery[Trade], results: Results) -> None:
            time.sleep(RUN_S * 0.6)
            super().on_trade(delivery, results)

    runner = await BatchRunner.open(Slow(), STREAM, 1, State(), stats())
    part = await runner.run_together(STREAM, trades(2, 4, 6, 8), Pace())
    assert ids(part) == ["2-0", "4-0"]
    assert part.writes[-1].arguments == ("sum", "6")


async def test_an_empty_batch_calls_write_of_an_ordered_consumer() -> None:
    class Writing(Summing):
        def write(self, results: Results) -> None:
            results.set("", "written")

    runner = await BatchRunner.open(Writing(), STREAM, 1, State(), stats())
    part = await runner.run_together(STREAM, (), Pace())
    assert (ids(part), [write.command for write in part.writes]) == ([], ["SET"])


class AsyncHooks(Summing):
    """A consumer with async hooks; `wrong` selects the hook's fault."""

    wrong = ""
    time_limit_s = 0.05

    async def load(self) -> None:
        await asyncio.sleep(0)
        if self.wrong == "load":
            raise ValueError("load")
        self.loaded = True

    async def write(self, results: Results) -> None:
        await asyncio.sleep(3600 if self.wrong == "late" else 0)
        if self.wrong == "cancelled":
            raise asyncio.CancelledError
        results.set("", str(self.loaded))

    async def due(self, *, stopping: bool) -> bool:
        await asyncio.sleep(0)
        return stopping


async def test_async_hooks_are_awaited() -> None:
    runner = await BatchRunner.open(AsyncHooks(), STREAM, 1, State(), stats())
    part = await runner.run_together(STREAM, (), Pace())
    assert [write.arguments for write in part.writes] == [("True",)]
    assert await runner.is_due(STREAM, stopping=True) is True
    assert await runner.is_due(STREAM, stopping=False) is False


@pytest.mark.parametrize(
    ("wrong", "reason"), [("late", TookTooLong), ("cancelled", asyncio.CancelledError)]
)
async def test_an_async_write_that_fails_fails_its_batch(
    wrong: str, reason: type[BaseException]
) -> None:
    kind = type("Wrong", (AsyncHooks,), {"wrong": wrong})
    runner = await BatchRunner.open(kind(), STREAM, 1, State(), stats())
    part = await runner.run_together(STREAM, trades(2, 4), Pace())
    assert part.failed is not None
    assert (part.failed.entry_id, part.failed.entries) == ("4-0", 2)
    assert isinstance(part.failed.reason, reason)


async def test_an_async_load_that_fails_is_a_failure_of_the_handler() -> None:
    kind = type("Wrong", (AsyncHooks,), {"wrong": "load"})
    with pytest.raises(HandlerFailed, match="load"):
        await BatchRunner.open(kind(), STREAM, 1, State(), stats())


async def test_an_exception_of_made_is_reported_and_not_raised() -> None:
    class Textless(Odd):
        def made(self) -> str:
            raise KeyError("nothing yet")

    assert BatchRunner(Textless(), stats()).made() == "made() failed: KeyError"


class SetsAside(Odd):
    on_undecodable = "dead_letter"


class ListsSetAside(Consumer):
    """Handles lists; a list with trade 13 fails."""

    name = "lists"
    streams = ("trade.*",)
    on_undecodable = "dead_letter"

    def on_batch(self, batch: list[Delivery[Trade]], results: Results) -> None:
        if any(delivery.event.trade_id == 13 for delivery in batch):
            raise ValueError("unlucky")
        results.hincrby("", "trades", len(batch))


BAD: Entry = ("5-0", ["type", "of a newer bridge"])


@pytest.mark.parametrize("kind", [SetsAside, ListsSetAside])
@pytest.mark.parametrize("number", [1, 13])
async def test_undecodable_entries_are_set_aside_apart_from_handled_ones(
    kind: type[Consumer], number: int
) -> None:
    parts: list[Part] = []
    await BatchRunner(kind(), stats()).run_apart(STREAM, [*trades(number), BAD], parts, Pace())
    good, bad = parts
    assert (ids(good), good.undecodable, good.failed is not None) == (
        [f"{number}-0"],
        0,
        number == 13,
    )
    assert (ids(bad), bad.undecodable, bad.failed) == (["5-0"], 1, None)
    [letter] = bad.writes
    assert (letter.command, letter.part) == ("XADD", "dead")
    assert '{"type":"of a newer bridge"}' in letter.arguments


async def test_undecodable_entries_write_nothing_unless_configured() -> None:
    parts: list[Part] = []
    await BatchRunner(Odd(), stats()).run_apart(
        STREAM, [*trades(2), BAD, *trades(4)], parts, Pace()
    )
    assert [(ids(part), part.undecodable, part.writes) for part in parts] == [
        (["2-0"], 0, ()),
        (["5-0"], 1, ()),
        (["4-0"], 0, ()),
    ]


async def test_dead_letter_that_still_cannot_be_decoded_has_failed() -> None:
    part = await BatchRunner(Odd(), stats()).run_dead_letter(STREAM, BAD)
    assert part.failed is not None
    assert isinstance(part.failed.reason, BadEntry)
    assert (await BatchRunner(Odd(), stats()).run_dead_letter(STREAM, *trades(2))).failed is None


class Panic(BaseException):
    """Not an `Exception`, like the panics that libraries in Rust raise."""


class Panicking(Consumer):
    """Raises the given exception in its handler or in the hook that `where` names."""

    name = "panicking"
    mode = "ordered"
    streams = ("trade.*",)

    def __init__(self, wrong: BaseException, *, where: str) -> None:
        self._wrong = wrong
        self._where = where

    def on_trade(self, delivery: Delivery[Trade]) -> None:
        if self._where == "sync":
            raise self._wrong

    def write(self, results: Results) -> None:
        if self._where == "hook":
            raise self._wrong


class AsyncPanicking(Panicking):
    async def on_trade(self, delivery: Delivery[Trade]) -> None:  # type: ignore[override]
        raise self._wrong


async def _failed(wrong: BaseException, where: str) -> HandlerFailed | None:
    kind = AsyncPanicking if where == "async" else Panicking
    runner = await BatchRunner.open(kind(wrong, where=where), STREAM, 1, State(), stats())
    entry = entry_of(entry_id(START_US, 1), trade(1, START_US))
    return (await runner.run_together(STREAM, [entry], Pace())).failed


@pytest.mark.parametrize("where", ["sync", "async", "hook"])
@pytest.mark.parametrize(
    "wrong", [Panic("x"), BaseExceptionGroup("x", [Panic("y")]), GeneratorExit()]
)
async def test_a_base_exception_is_a_failure_too(wrong: BaseException, where: str) -> None:
    failed = await _failed(wrong, where)

    assert failed is not None
    assert failed.reason is wrong


@pytest.mark.parametrize("where", ["sync", "async", "hook"])
@pytest.mark.parametrize("end", [KeyboardInterrupt(), SystemExit(3)])
async def test_an_exception_that_ends_the_process_is_no_failure(
    end: BaseException, where: str
) -> None:
    with pytest.raises(type(end)):
        await _failed(end, where)
