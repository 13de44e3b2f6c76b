"""Consumer classes: handlers by name, options, and mistakes reported at the start."""

from pathlib import Path
from typing import Any, ClassVar

import pytest

from bridge.contract.events import Depth, DepthSnapshot, Event, Gap, Trade
from bridge.errors import ConfigError
from consumers import Consumer, Delivery, Results, StopWorker
from consumers.kit.api.consumer import ConsumerSpec, makes_dead_letters, options_of
from consumers.kit.api.routes import handlers_of
from consumers.kit.handling.batch import BatchRunner
from consumers.kit.handling.entry import entry_of
from consumers.kit.handling.failure import HandlerFailed, source_line
from consumers.kit.handling.yielding import Pace
from consumers.kit.worker.loading import SAMPLES, load, options
from tests.support.consumer_batches import handle, stats
from tests.support.consumer_entries import START_US, gap, trade


class Seen(Consumer):
    name = "seen"
    streams = ("trade.*",)

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def on_trade(self, delivery: Delivery[Trade]) -> None:
        self.seen.append(delivery)


async def test_a_handler_gets_stream_entry_id_and_the_typed_event() -> None:
    consumer = Seen()
    await handle(consumer, [("1-1000", trade(100, START_US))])
    [(stream, entry_id, event)] = consumer.seen
    assert (stream, entry_id) == ("trade.SOL_USDC", "1-1000")
    assert isinstance(event, Trade)
    assert (event.trade_id, event.price, event.buyer_is_maker) == (100, "98.96", True)


async def test_an_async_handler_is_awaited() -> None:
    class Later(Seen):
        async def on_trade(self, delivery: Delivery[Trade]) -> None:  # type: ignore[override]
            self.seen.append(delivery.entry_id)

    consumer = Later()
    await handle(consumer, [("1-1", trade(100, START_US))])
    assert consumer.seen == ["1-1"]


@pytest.mark.parametrize(
    ("mode", "on_failure", "expected"),
    [
        ("shared", None, True),
        ("ordered", None, False),
        ("shared", "block", False),
        ("ordered", "dead_letter", True),
    ],
)
def test_an_entry_that_fails_becomes_a_dead_letter_by_mode_unless_on_failure_states_otherwise(
    mode: Any, on_failure: Any, *, expected: bool
) -> None:
    kind = type("Kind", (Seen,), {"mode": mode, "on_failure": on_failure})
    assert makes_dead_letters(kind) is expected


async def test_an_entry_without_a_handler_is_skipped_and_not_decoded() -> None:
    consumer, counted = Seen(), stats()
    broken = gap(99) | {"cause": ""}
    await handle(consumer, [("1-1", broken)], counted)
    assert consumer.seen == []
    assert counted.is_first_undecodable("trade.SOL_USDC")


@pytest.mark.parametrize(
    "fields", [{"type": "nonsense"}, {"a": "b"}, trade(100, 0) | {"price": "x"}]
)
async def test_an_entry_that_is_not_of_the_contract_is_counted_not_handled(fields: Any) -> None:
    consumer, counted = Seen(), stats()
    part = await BatchRunner(consumer, counted).run_together(
        "trade.SOL_USDC", [entry_of("1-1", fields), entry_of("1-2", trade(2, START_US))], Pace()
    )
    assert [one.entry_id for one in consumer.seen] == ["1-2"]
    assert (len(part.entries), part.undecodable, part.writes) == (2, 1, [])
    assert not counted.is_first_undecodable("trade.SOL_USDC")


@pytest.mark.parametrize("first", ["", "foo", "depth", "gap", "trade"])
@pytest.mark.parametrize("last", ["", "foo", "depth", "gap", "trade"])
async def test_the_last_of_repeated_types_counts(first: str, last: str) -> None:
    rest = entry_of("1-1", trade(100, START_US))[1][2:]
    found = []
    for flat in (["type", first, *rest, "type", last], ["type", last, *rest]):
        consumer = Seen()
        runner = BatchRunner(consumer, stats())
        part = await runner.run_together("trade.SOL_USDC", [("1-1", flat)], Pace())
        found.append(([one.event for one in consumer.seen], part.undecodable, part.failed))
    assert found[0] == found[1]


async def test_a_refusal_of_the_kit_names_the_line_of_the_handler() -> None:
    class Odd(Seen):
        def on_trade(self, delivery: Delivery[Trade], results: Results) -> None:  # type: ignore[override]
            results.hincrby("", "n", 1.5)  # type: ignore[arg-type]

    with pytest.raises(HandlerFailed) as failed:
        await handle(Odd(), [("1-1", trade(1, START_US))])
    file, _, line = source_line(failed.value.reason).rpartition(":")
    assert file == __file__
    assert "hincrby" in Path(file).read_text().splitlines()[int(line) - 1]


async def test_a_handler_that_raises_gives_handler_failed_with_the_entry() -> None:
    class Broken(Seen):
        def on_trade(self, delivery: Delivery[Trade]) -> None:
            raise KeyError("mine")

    with pytest.raises(HandlerFailed, match=r"trade\.SOL_USDC 1-1") as failed:
        await handle(Broken(), [("1-1", trade(1, START_US))])
    assert isinstance(failed.value.__cause__, KeyError)


async def test_stop_worker_raised_by_a_handler_is_propagated() -> None:
    class Enough(Seen):
        def on_trade(self, delivery: Delivery[Trade]) -> None:
            raise StopWorker

    with pytest.raises(StopWorker):
        await handle(Enough(), [("1-1", trade(1, START_US))])


def test_on_event_gets_events_without_a_handler_of_their_own() -> None:
    class Both(Consumer):
        def on_depth(self, delivery: Delivery[Depth]) -> None: ...
        def on_event(self, delivery: Delivery[Event]) -> None: ...

    found = handlers_of(Both)
    assert (found[Depth], found[DepthSnapshot], found[Gap]) == ("on_depth", "on_event", "on_event")


def test_a_misspelt_handler_is_refused_with_the_nearest_name() -> None:
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
    tuned = ConsumerSpec(Tuned, {"limit": "7"}).build()
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
def test_wrong_options_are_refused_with_the_right_form(given: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ConsumerSpec(Tuned, given).build()


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


class NumberedStreams(Seen):
    streams: ClassVar[Any] = (5,)


class NumberedName(Seen):
    name: ClassVar[Any] = 5


class BadAttempts(Consumer):
    name = "attempts"
    streams = ("trade.*",)
    attempts: ClassVar[Any] = "3"


class BadUndecodable(Seen):
    on_undecodable: ClassVar[Any] = "block"


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
        (f"{__name__}:NumberedStreams", "a tuple of patterns"),
        (f"{__name__}:NumberedName", "needs a name"),
        (f"{__name__}:BadMode", "write shared, ordered or joined"),
        (f"{__name__}:BadAttempts", "attempts is '3': write a whole number"),
        (f"{__name__}:BadUndecodable", "on_undecodable is 'block': write skip or dead_letter"),
        (f"{__name__}:BadWait", "batch_wait_s: write 0 to 60"),
        ("..x:Thing", r"cannot import \.\.x"),
    ],
)
def test_load_refuses_what_is_not_a_consumer_with_the_reason(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(name)


def test_load_reports_the_line_of_a_decorator_with_a_refused_argument(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "seven_minutes.py"
    module.write_text(
        "from consumers import Consumer, every\n\n"
        "class Mine(Consumer):\n"
        '    streams = ("trade.*",)\n\n'
        '    @every("7 minutes")\n'
        "    def summary(self, tick): ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(ConfigError, match=r"write 1s to 1d") as refused:
        load("seven_minutes:Mine")

    assert str(refused.value).endswith(f"({module}:6)")
