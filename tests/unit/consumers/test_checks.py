"""What is refused at the start: handlers that cannot be called, settings that count for nothing."""

from typing import Any

import pytest

from bridge.errors import ConfigError
from consumers import Consumer, Delivery, Results, Trade
from consumers.kit.api.consumer import ConsumerSpec
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
def test_misspelt_setting_is_refused_with_the_right_word(name: str, message: str) -> None:
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
