"""Consumers refused at the start: handlers that cannot be called, settings without effect."""

from functools import partial
from typing import Any

import pytest

from bridge.errors import ConfigError
from consumers import Consumer, Delivery, Results, Trade, consumes
from consumers.kit.api.consumer import ConsumerSpec, joined_by
from consumers.kit.worker.loading import load


class Plain(Consumer):
    name = "plain"
    streams = ("trade.*",)

    def on_trade(self, delivery: Delivery[Trade]) -> None: ...


def yields(self: Any, delivery: Any) -> Any:
    yield delivery


async def yields_async(self: Any, delivery: Any) -> Any:
    yield delivery


def takes_none(self: Any) -> None: ...


def takes_three(self: Any, delivery: Any, results: Any, more: Any) -> None: ...


def needs_a_name(self: Any, delivery: Any, *, scale: Any) -> None: ...


def yields_stopping(self: Any, *, stopping: bool) -> Any:
    yield stopping


async def made_async(self: Any) -> str:
    return ""


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("on_trade", yields, "on_trade has a yield in it"),
        ("on_trade", yields_async, "on_trade has a yield in it"),
        ("on_trade", takes_none, "on_trade cannot be called, too many .*: write one parameter"),
        ("on_trade", takes_three, "on_trade cannot be called, missing .* 'more': write"),
        ("on_trade", needs_a_name, "on_trade cannot be called, missing .* 'scale': write"),
        ("on_trade", "a text", "on_trade is no function"),
        ("write", takes_none, r"write cannot be called, .*: write write\(self, results\)"),
        ("write", yields, "write has a yield in it"),
        ("due", takes_none, r"due cannot be called, .*: write due\(self, \*, stopping\)"),
        ("due", yields_stopping, "due has a yield in it"),
        ("load", yields, "load has a yield in it"),
        ("on_missed", takes_none, "on_missed cannot be called"),
        ("made", made_async, "made is async"),
    ],
)
def test_handler_or_hook_that_cannot_be_called_is_refused_when_the_consumer_is_made(
    name: str, value: Any, message: str
) -> None:
    kind = type("Wrong", (Plain,), {name: value})
    with pytest.raises(ConfigError, match=f"^Wrong.{message}"):
        ConsumerSpec(kind).build()


class Yielding:
    """A callable that returns a generator: a call does not run its body."""

    def __call__(self, delivery: Any) -> Any:
        yield delivery


class Called:
    async def __call__(self, delivery: Delivery[Trade]) -> None: ...


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("on_trade", Yielding(), "Wrong.on_trade has a yield in it"),
        ("on_trade", staticmethod(partial(yields, None)), "Wrong.on_trade has a yield in it"),
        ("on_event", 5, "5 cannot be a handler"),
        ("on_event", None, "None cannot be a handler"),
        ("on_event", dict, "dict cannot be a handler"),
        ("load", None, "Wrong.load is no function"),
        ("made", None, "Wrong.made is no function"),
    ],
)
def test_callable_objects_are_checked_like_functions(name: str, value: Any, message: str) -> None:
    kind = type("Wrong", (Plain,), {name: value})
    with pytest.raises(ConfigError, match=f"^{message}"):
        ConsumerSpec(kind).build()


def test_a_callable_object_and_a_partial_are_handlers_with_a_name_given() -> None:
    def scaled(scale: int, delivery: Delivery[Trade]) -> None: ...

    for function in (Called(), partial(scaled, 2)):
        kind = consumes("trade.*", name="given", concurrency=1)(function)
        assert ConsumerSpec(kind).build().name == "given"
        with pytest.raises(ConfigError, match=r'which has no name: write @consumes\(.*name="…"\)'):
            consumes("trade.*")(function)
    assert ConsumerSpec(consumes("trade.*", name="a", concurrency=2)(Called())).build()


def test_consumes_without_its_parentheses_states_how_it_is_written() -> None:
    def volume(delivery: Delivery[Trade]) -> None: ...

    with pytest.raises(ConfigError, match=r'volume\): write @consumes\("trade\.\*"\)$'):
        consumes(volume)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["Delivery[", "Delivery[Trade, Trade]", "[][0]", "int.nothing"])
def test_an_annotation_that_cannot_be_read_is_refused(text: str) -> None:
    def handle(self: Any, delivery: Any) -> None: ...

    handle.__annotations__["delivery"] = text
    kind = type("Wrong", (Plain,), {"on_event": handle})
    with pytest.raises(ConfigError, match="its annotation cannot be read, "):
        ConsumerSpec(kind).build()


@pytest.mark.parametrize(
    "error", [KeyError("a"), RuntimeError("a"), OSError("a"), AssertionError()]
)
def test_an_init_that_fails_is_reported_in_one_sentence(error: Exception) -> None:
    class Failing(Plain):
        def __init__(self) -> None:
            raise error

    with pytest.raises(ConfigError, match=f"its __init__ failed: {type(error).__name__}: "):
        ConsumerSpec(Failing).build()


def test_a_new_that_returns_another_type_is_refused() -> None:
    kind = type("Wrong", (Plain,), {"__new__": lambda _: 5})
    with pytest.raises(ConfigError, match="its __new__ gives a int"):
        ConsumerSpec(kind).build()


def test_a_joined_by_that_fails_raises_a_config_error_with_its_name() -> None:
    class Pairs(Plain):
        mode = "joined"

        def joined_by(self, stream: str) -> str:
            return {}[stream]  # type: ignore[no-any-return]

    with pytest.raises(ConfigError, match=r"^Pairs.joined_by\('trade.A'\) failed: KeyError: "):
        joined_by(Pairs(), "trade.A")


async def test_parameter_by_keyword_is_no_request_for_results() -> None:
    class Scaled(Plain):
        def on_trade(self, delivery: Delivery[Trade], *, scale: int = 2) -> None: ...

    class Writes(Plain):
        def on_trade(  # type: ignore[override]
            self, delivery: Delivery[Trade], results: Results, /
        ) -> None: ...

    assert [ConsumerSpec(kind).build().name for kind in (Scaled, Writes)] == ["plain", "plain"]


class Attempt(Plain):
    attempt = 3


class BatchEntires(Plain):
    batch_entires = 10


class Stream(Consumer):
    name = "stream"
    stream = ("trade.*",)  # type: ignore[assignment]

    def on_trade(self, delivery: Delivery[Trade]) -> None: ...


class Own(Plain):
    limit = 3
    intervals = ("1m", "5m")
    batch = 5


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Attempt", r"Attempt\.attempt is no setting .*; did you mean attempts\?"),
        ("BatchEntires", r"batch_entires is no setting .*; did you mean batch_entries\?"),
        ("Stream", r"Stream\.stream is no setting .*; did you mean streams\?"),
    ],
)
def test_misspelt_setting_is_refused_with_the_right_name(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(f"{__name__}:{name}")


def test_attribute_that_is_like_no_setting_is_the_consumers_own() -> None:
    assert load(f"{__name__}:Own") is Own


def test_setting_that_is_set_in_init_is_refused() -> None:
    class Late(Plain):
        def __init__(self) -> None:
            self.streams = ("depth.*",)  # type: ignore[misc]

    with pytest.raises(ConfigError, match="streams is set in __init__: it is a setting of the cl"):
        ConsumerSpec(Late).build()
