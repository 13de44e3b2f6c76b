"""Writing a consumer: handlers by name, options, and the mistakes that are told at start."""

from typing import Any, ClassVar

import pytest

from bridge.contract.events import Depth, DepthSnapshot, Event, Gap, Trade
from bridge.errors import ConfigError
from consumers import Consumer, Delivery, StopWorker
from consumers.consumer import build, options_of, sets_aside
from consumers.dispatch import Dispatcher, HandlerFailed
from consumers.loading import SAMPLES, load, options
from consumers.meter import Meter
from consumers.routes import handlers_of
from tests.support.consumer_entries import START_US, gap, trade


class Seen(Consumer):
    name = "seen"
    streams = ("trade.*",)

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def on_trade(self, delivery: Delivery[Trade]) -> None:
        self.seen.append(delivery)


def meter() -> Meter:
    return Meter(lambda: START_US)


async def test_a_handler_gets_stream_entry_id_and_the_typed_event() -> None:
    consumer = Seen()
    await Dispatcher(consumer, meter()).handle("trade.SOL_USDC", [("1-1000", trade(100, START_US))])
    [(stream, entry_id, event)] = consumer.seen
    assert (stream, entry_id) == ("trade.SOL_USDC", "1-1000")
    assert isinstance(event, Trade)
    assert (event.trade_id, event.price, event.buyer_is_maker) == (100, "98.96", True)


async def test_an_async_handler_is_awaited() -> None:
    class Later(Seen):
        async def on_trade(self, delivery: Delivery[Trade]) -> None:  # type: ignore[override]
            self.seen.append(delivery.entry_id)

    consumer = Later()
    await Dispatcher(consumer, meter()).handle("trade.SOL_USDC", [("1-1", trade(100, START_US))])
    assert consumer.seen == ["1-1"]


@pytest.mark.parametrize(
    ("mode", "poison", "aside"),
    [
        ("shared", None, True),
        ("ordered", None, False),
        ("shared", "block", False),
        ("ordered", "set aside", True),
    ],
)
def test_poison_is_set_aside_or_not_by_mode_unless_it_is_said(
    mode: Any, poison: Any, *, aside: bool
) -> None:
    kind = type("Kind", (Seen,), {"mode": mode, "poison": poison})
    assert sets_aside(kind) is aside


async def test_an_entry_that_no_handler_wants_is_passed_over_undecoded() -> None:
    consumer, counted = Seen(), meter()
    broken = gap(99) | {"cause": ""}
    await Dispatcher(consumer, counted).handle("trade.SOL_USDC", [("1-1", broken)])
    assert consumer.seen == []
    assert counted.undecodable("trade.SOL_USDC") == 1  # this very count is the first


@pytest.mark.parametrize(
    "fields", [{"type": "nonsense"}, {"a": "b"}, trade(100, 0) | {"price": "x"}]
)
async def test_an_entry_that_is_not_of_the_contract_is_counted_not_handled(fields: Any) -> None:
    consumer, counted = Seen(), meter()
    await Dispatcher(consumer, counted).handle("trade.SOL_USDC", [("1-1", fields)])
    assert consumer.seen == []
    assert counted.undecodable("trade.SOL_USDC") == 2


async def test_what_a_handler_raises_names_the_entry() -> None:
    class Broken(Seen):
        def on_trade(self, delivery: Delivery[Trade]) -> None:
            raise KeyError("mine")

    with pytest.raises(HandlerFailed, match=r"trade\.SOL_USDC 1-1") as failed:
        await Dispatcher(Broken(), meter()).handle("trade.SOL_USDC", [("1-1", trade(1, START_US))])
    assert isinstance(failed.value.__cause__, KeyError)


async def test_a_handler_may_ask_for_the_end() -> None:
    class Enough(Seen):
        def on_trade(self, delivery: Delivery[Trade]) -> None:
            raise StopWorker

    with pytest.raises(StopWorker):
        await Dispatcher(Enough(), meter()).handle("trade.SOL_USDC", [("1-1", trade(1, START_US))])


def test_on_event_gets_what_has_no_handler_of_its_own() -> None:
    class Both(Consumer):
        def on_depth(self, delivery: Delivery[Depth]) -> None: ...
        def on_event(self, delivery: Delivery[Event]) -> None: ...

    found = handlers_of(Both)
    assert (found[Depth], found[DepthSnapshot], found[Gap]) == ("on_depth", "on_event", "on_event")


def test_a_misspelt_handler_is_told_with_the_right_name() -> None:
    class Typo(Consumer):
        def on_trades(self, delivery: Delivery[Trade]) -> None: ...

    with pytest.raises(
        ConfigError, match=r"on_trades is the handler of no event; did you mean on_trade"
    ):
        handlers_of(Typo)


def test_a_consumer_without_handlers_is_refused() -> None:
    with pytest.raises(ConfigError, match="has no handler"):
        handlers_of(Consumer)


class Tuned(Seen):
    def __init__(self, limit: str = "5") -> None:
        super().__init__()
        self.limit = int(limit)


def test_options_arrive_as_arguments() -> None:
    assert options_of(Tuned) == {"limit": "5"}
    tuned = build(Tuned, {"limit": "7"})
    assert isinstance(tuned, Tuned)
    assert tuned.limit == 7


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"limits": "7"}, "no option 'limits'; did you mean limit"),
        ({"colour": "7"}, "no option 'colour': its options are limit"),
        ({"limit": "x"}, "seen: invalid literal"),
    ],
)
def test_wrong_options_are_told(given: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(Tuned, given)


def test_options_are_written_name_equals_value() -> None:
    assert options(["intervals=1m,5m", "a=b=c"]) == {"intervals": "1m,5m", "a": "b=c"}
    with pytest.raises(ConfigError, match="write name=value"):
        options(["intervals"])


def test_every_sample_loads_and_has_handlers() -> None:
    for name in SAMPLES:
        kind = load(name)
        assert kind.name == name
        assert handlers_of(kind)


class Nameless(Consumer):
    streams = ("trade.*",)


class OneString(Consumer):
    name = "one"
    streams: ClassVar[Any] = "trade.*"


class BadAttempts(Consumer):
    name = "attempts"
    streams = ("trade.*",)
    attempts: ClassVar[Any] = "3"


class BadWait(Consumer):
    name = "wait"
    streams = ("trade.*",)
    batch_wait_s: ClassVar[Any] = 3600


class BadMode(Consumer):
    name = "bad"
    streams = ("trade.*",)
    mode: ClassVar[Any] = "sorted"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cadles", "did you mean candles"),
        ("no_such_module:Thing", "cannot import no_such_module"),
        ("consumers.handlers.tail:Nothing", "neither a subclass"),
        (f"{__name__}:Nameless", "needs a name"),
        (f"{__name__}:OneString", "a tuple of patterns"),
        (f"{__name__}:BadMode", "write shared or ordered"),
        (f"{__name__}:BadAttempts", "attempts is '3': write a whole number"),
        (f"{__name__}:BadWait", "batch_wait_s: write 0 to 60"),
        ("..x:Thing", r"cannot import \.\.x"),
    ],
)
def test_what_cannot_be_run_is_told(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(name)
