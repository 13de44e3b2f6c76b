"""The streams that given names and patterns select, and the messages for unknown ones."""

import pytest

from bridge.view.choose import absence, chosen, mistake

REGISTRY = ("trade.SOL_USDC", "trade.BTC_USDC", "depth.SOL_USDC")


def test_names_are_kept_and_patterns_are_expanded() -> None:
    wanted = ["depth.NEW_USDC", "trade.*", "trade.SOL_USDC"]
    assert chosen(wanted, REGISTRY) == ["depth.NEW_USDC", "trade.BTC_USDC", "trade.SOL_USDC"]


def test_a_pattern_minds_upper_and_lower_case() -> None:
    assert chosen(["TRADE.*"], REGISTRY) == []


@pytest.mark.parametrize("name", ["trade.ANY_USDC", "trade.*", "bridge:quarantine"])
def test_a_name_that_could_be_a_stream_is_no_mistake(name: str) -> None:
    assert mistake(name, REGISTRY) == ""


def test_a_misspelt_name_is_reported_with_the_nearest() -> None:
    message = mistake("trad.SOL_USDC", REGISTRY)
    assert message.startswith("'trad.SOL_USDC' is not a stream; similar: trade.SOL_USDC")


def test_a_name_without_a_near_stream_is_reported_with_the_types() -> None:
    assert "types are trade, depth" in mistake("xyz", ())


def test_an_absent_stream_is_waited_for_with_the_nearest_named() -> None:
    message = absence("trade.SOL_USDT", REGISTRY)
    assert message.startswith(
        "no bridge publishes trade.SOL_USDT yet: waiting (similar: trade.SOL_U"
    )


def test_a_registered_stream_without_entries_is_waited_for() -> None:
    assert absence("trade.SOL_USDC", REGISTRY) == "trade.SOL_USDC has no entry yet: waiting"


@pytest.mark.parametrize(
    ("registry", "expected"),
    [
        (REGISTRY, "no stream matches 'ticker.*' yet; there are 3 other streams: waiting"),
        ((), "no stream matches 'ticker.*' yet; there are none at all: waiting"),
    ],
)
def test_a_pattern_without_a_match_is_waited_for(registry: tuple[str, ...], expected: str) -> None:
    assert absence("ticker.*", registry) == expected


def test_nothing_is_reported_of_a_pattern_with_a_match() -> None:
    assert absence("trade.*", REGISTRY) == ""


@pytest.mark.parametrize("name", ["trade.\udcff*", "bridge:\udcff", "trade.\udcff"])
def test_bytes_that_are_not_text_are_reported(name: str) -> None:
    assert mistake(name, REGISTRY) == f"{name!r} is no UTF-8 text: no stream has this name"
