"""Routing of events to handlers: annotations, batches, plain functions, refusals."""

from typing import Any

import pytest

from bridge.contract.events import BookTicker, Depth, Event, Gap, Trade
from bridge.errors import ConfigError
from consumers import Consumer, Delivery, Results, consumes
from consumers.kit.api.consumer import ConsumerSpec
from consumers.kit.api.routes import check_streams, handlers_of
from consumers.kit.handling.failure import HandlerFailed
from consumers.kit.worker.loading import load
from tests.support.consumer_batches import handle
from tests.support.consumer_entries import START_US, gap, trade


def made(kind: type[Consumer]) -> Consumer:
    return ConsumerSpec(kind).build()


@consumes("trade.*")
def last_price(delivery: Delivery[Trade]) -> None:
    """Keeps the last price."""
    prices[delivery.stream] = delivery.event.price


prices: dict[str, str] = {}


async def test_a_function_gets_the_events_that_its_annotation_names() -> None:
    assert (last_price.name, last_price.streams) == ("last-price", ("trade.*",))
    assert last_price.__doc__ == "Keeps the last price."
    assert set(handlers_of(last_price)) == {Trade}
    await handle(made(last_price), [("1-1", trade(1, START_US, "98.5"))])
    assert prices == {"trade.SOL_USDC": "98.5"}


def test_a_function_is_loaded_like_a_class() -> None:
    assert load(f"{__name__}:last_price") is last_price


def test_annotations_may_name_several_events_or_none() -> None:
    @consumes("*", name="two", mode="ordered", batch_entries=7)
    def two(delivery: Delivery[Trade | Gap]) -> None: ...

    @consumes("*")
    def everything(delivery): ...  # type: ignore[no-untyped-def]

    @consumes("*")
    def all_events(delivery: Delivery[Event]) -> None: ...

    assert set(handlers_of(two)) == {Trade, Gap}
    assert (two.name, two.mode, two.batch_entries) == ("two", "ordered", 7)
    assert {Trade, Depth, BookTicker, Gap} <= set(handlers_of(everything))
    assert set(handlers_of(all_events)) == set(handlers_of(everything))


async def test_a_list_in_the_annotation_requests_batches() -> None:
    seen: list[Any] = []

    @consumes("trade.*")
    async def store(batch: list[Delivery[Trade]]) -> None:
        seen.append([(d.stream, d.entry_id, d.event.trade_id) for d in batch])

    entries = [("1-1", trade(1, START_US)), ("1-2", gap(1)), ("1-3", trade(2, START_US))]
    await handle(made(store), entries)
    assert seen == [[("trade.SOL_USDC", "1-1", 1), ("trade.SOL_USDC", "1-3", 2)]]


async def test_a_batch_without_a_wanted_event_is_not_delivered() -> None:
    @consumes("trade.*")
    def store(batch: list[Delivery[Trade]]) -> None:
        raise AssertionError("nothing to store")

    await handle(made(store), [("1-2", gap(1))])


async def test_a_batch_that_fails_names_its_first_entry_and_how_many() -> None:
    @consumes("trade.*")
    def store(batch: list[Delivery[Trade]]) -> None:
        raise OSError("disk full")

    entries = [("1-1", trade(1, START_US)), ("1-3", trade(2, START_US))]
    with pytest.raises(HandlerFailed) as failed:
        await handle(made(store), entries)
    assert (failed.value.entry_id, failed.value.entries) == ("1-1", 2)


async def test_a_batch_consumer_gets_a_single_entry_as_a_list_of_one() -> None:
    seen: list[int] = []

    class Sizes(Consumer):
        name = "sizes"
        streams = ("trade.*",)

        def on_batch(self, batch: list[Delivery[Trade]]) -> None:
            seen.append(len(batch))

    await handle(made(Sizes), [("1-1", trade(1, START_US))])
    assert seen == [1]


async def test_a_second_parameter_of_a_handler_gets_the_results() -> None:
    @consumes("trade.*", mode="ordered")
    def last(delivery: Delivery[Trade], results: Results) -> None:
        results.set("price", delivery.event.price)

    writes = await handle(made(last), [("1-1", trade(1, START_US, "7"))])
    assert [tuple(write) for write in writes] == [("SET", "price", ("7",))]


def test_on_batch_beside_another_handler_is_refused() -> None:
    class Both(Consumer):
        def on_batch(self, batch: list[Delivery[Event]]) -> None: ...
        def on_trade(self, delivery: Delivery[Trade]) -> None: ...

    with pytest.raises(ConfigError, match="on_batch and on_trade: on_batch gets all events"):
        handlers_of(Both)


def test_consumes_refuses_an_unknown_setting() -> None:
    with pytest.raises(ConfigError, match="there is no 'batch_size'"):

        @consumes("trade.*", batch_size=7)
        def store(batch: list[Delivery[Trade]]) -> None: ...


def test_consumes_over_a_class_states_how_a_class_names_its_streams() -> None:
    with pytest.raises(ConfigError, match=r"is a class: .* write streams = \('trade\.\*',\) in it"):

        @consumes("trade.*")
        class Mistaken(Consumer):
            pass


def test_consumes_refuses_a_function_without_a_parameter() -> None:
    with pytest.raises(ConfigError, match="needs a parameter: the delivery"):

        @consumes("trade.*")
        def nothing() -> None: ...


@pytest.mark.parametrize(
    ("patterns", "is_accepted"),
    [
        (("trade.*",), False),
        (("account.*", "bridge:*"), False),
        (("trade.*", "book*"), True),
        (("bookTicker.SOL_USDC",), True),
        (("*",), True),
    ],
)
def test_streams_without_an_event_that_has_a_handler_are_refused(
    patterns: tuple[str, ...], is_accepted: bool
) -> None:
    class Best(Consumer):
        def on_book_ticker(self, delivery: Delivery[BookTicker]) -> None: ...

    if is_accepted:
        check_streams(Best, patterns)
    else:
        with pytest.raises(ConfigError, match=r"^Best has no handler for any event of"):
            check_streams(Best, patterns)
