"""The plan of the streams to receive now."""

from bridge.feed.plan import SubscriptionPlan, other_forms
from bridge.runtime.markets import Market
from bridge.runtime.patterns import parse_pattern
from bridge.runtime.share import Share

SOL = Market("SOL_USDC", "SPOT", "Open")
PERP = Market("SOL_USDC_PERP", "PERP", "Open")
MARKETS = {market.symbol: market for market in (SOL, PERP)}


def test_plan_of_a_share_receives_and_reports_only_its_streams() -> None:
    names = ("trade.SOL_USDC", "trade.SOL_USDC_PERP", "trade.NO_SUCH", "account.orderUpdate")
    plans = [
        SubscriptionPlan(names, (parse_pattern("depth.*"),), share=Share(("a", "b"), member))
        for member in ("a", "b")
    ]
    whole = SubscriptionPlan(names, (parse_pattern("depth.*"),))
    shares = [set(plan.streams(MARKETS)) for plan in plans]

    assert shares[0] | shares[1] == set(whole.streams(MARKETS))
    assert not shares[0] & shares[1]
    assert "account.orderUpdate" in shares[0]
    assert sum(len(plan.troubles(MARKETS)) for plan in plans) == len(whole.troubles(MARKETS)) == 1


def test_plan_has_names_before_the_streams_of_patterns_and_each_once() -> None:
    plan = SubscriptionPlan(("trade.SOL_USDC",), (parse_pattern("trade.*"),))

    assert list(plan.streams({})) == ["trade.SOL_USDC"]
    assert list(plan.streams(MARKETS)) == ["trade.SOL_USDC", "trade.SOL_USDC_PERP"]


def test_plan_replaces_the_one_stream_of_liquidations_that_is_refused_by_those_of_markets() -> None:
    plan = SubscriptionPlan(("liquidation",), refused=frozenset(["liquidation"]))

    assert list(plan.streams(MARKETS)) == ["liquidation", "liquidation.SOL_USDC_PERP"]


def test_plan_replaces_liquidations_of_a_market_that_are_refused_by_the_stream_of_all() -> None:
    name = "liquidation.SOL_USDC_PERP"

    assert list(SubscriptionPlan((name,), refused=frozenset([name])).streams(MARKETS)) == [
        name,
        "liquidation",
    ]


def test_plan_ignores_a_refusal_of_a_stream_that_is_no_longer_wanted() -> None:
    plan = SubscriptionPlan(("trade.SOL_USDC",), refused=frozenset(["liquidation"]))

    assert list(plan.streams(MARKETS)) == ["trade.SOL_USDC"]


def test_plan_reports_unlisted_names_once_the_list_is_known() -> None:
    plan = SubscriptionPlan(("trade.SOL_USCD", "trade.SOL_USDC"))

    assert plan.troubles({}) == {}
    assert list(plan.troubles(MARKETS)) == ["trade.SOL_USCD"]


def test_other_forms_of_liquidations_are_those_that_are_planned() -> None:
    names = ["liquidation", "liquidation.SOL_USDC_PERP", "trade.SOL_USDC"]

    assert list(other_forms("liquidation", names)) == ["liquidation.SOL_USDC_PERP"]
    assert list(other_forms("liquidation.SOL_USDC_PERP", names)) == ["liquidation"]
    assert list(other_forms("trade.SOL_USDC", names)) == []
