"""Which streams are to be heard now."""

import random

from bridge.feed.clock import ExchangeClock, _Sample
from bridge.feed.listing import Listing
from bridge.feed.wanted import Wanted
from bridge.runtime.backoff import Backoff
from bridge.runtime.markets import Market
from bridge.runtime.patterns import parse_pattern

SOL = Market("SOL_USDC", "SPOT", "Open")
PERP = Market("SOL_USDC_PERP", "PERP", "Open")
MARKETS = {market.symbol: market for market in (SOL, PERP)}


def test_names_come_before_what_patterns_stand_for_and_each_once() -> None:
    wanted = Wanted(("trade.SOL_USDC",), (parse_pattern("trade.*"),))

    assert list(wanted.streams({})) == ["trade.SOL_USDC"]
    assert list(wanted.streams(MARKETS)) == ["trade.SOL_USDC", "trade.SOL_USDC_PERP"]


def test_one_stream_of_liquidations_that_is_refused_is_heard_market_by_market() -> None:
    wanted = Wanted(("liquidation",), refused=frozenset(["liquidation"]))

    assert list(wanted.streams(MARKETS)) == ["liquidation", "liquidation.SOL_USDC_PERP"]


def test_liquidations_of_a_market_that_are_refused_are_heard_with_all_others() -> None:
    name = "liquidation.SOL_USDC_PERP"

    assert list(Wanted((name,), refused=frozenset([name])).streams(MARKETS)) == [
        name,
        "liquidation",
    ]


def test_a_refusal_of_what_is_not_wanted_any_more_is_of_no_matter() -> None:
    wanted = Wanted(("trade.SOL_USDC",), refused=frozenset(["liquidation"]))

    assert list(wanted.streams(MARKETS)) == ["trade.SOL_USDC"]


def test_names_that_will_stay_silent_are_told_once_the_list_is_known() -> None:
    wanted = Wanted(("trade.SOL_USCD", "trade.SOL_USDC"))

    assert wanted.troubles({}) == {}
    assert list(wanted.troubles(MARKETS)) == ["trade.SOL_USCD"]


def listing(changes: list[list[str]]) -> Listing:
    subject = Listing(
        None,  # type: ignore[arg-type]  # nothing is asked here
        60,
        Backoff(1, 60, random.Random(1)),
        lambda: changes.append(list(subject.markets)),
    )
    return subject


def test_a_market_is_gone_when_it_is_missing_twice() -> None:
    changes: list[list[str]] = []
    subject = listing(changes)

    subject.take(MARKETS)
    subject.take({"SOL_USDC": SOL})
    assert list(subject.markets) == ["SOL_USDC", "SOL_USDC_PERP"]
    subject.take({"SOL_USDC": SOL})

    assert changes == [["SOL_USDC", "SOL_USDC_PERP"], ["SOL_USDC"]]


def test_a_market_that_is_back_was_never_gone() -> None:
    changes: list[list[str]] = []
    subject = listing(changes)
    for listed in (MARKETS, {"SOL_USDC": SOL}, MARKETS, {"SOL_USDC": SOL}):
        subject.take(listed)

    assert list(subject.markets) == ["SOL_USDC", "SOL_USDC_PERP"]


def clock(changes: list[int]) -> ExchangeClock:
    return ExchangeClock(
        None,  # type: ignore[arg-type]  # nothing is asked here
        lambda: 1_000_000_000,
        lambda: changes.append(1),
    )


def test_the_surest_answer_of_late_tells_the_exchanges_time() -> None:
    subject = clock([])
    assert subject.now_us() == 1_000_000_000

    for offset_us, unsure_us in ((40_000, 90_000), (3_000, 5_000), (60_000, 80_000)):
        subject.learn(_Sample(offset_us, unsure_us))

    assert subject.now_us() == 1_000_003_000


def test_a_clock_that_was_set_is_believed_at_once() -> None:
    changes: list[int] = []
    subject = clock(changes)
    subject.learn(_Sample(3_000, 5_000))

    subject.learn(_Sample(30_000_000, 90_000))

    assert subject.offset_us == 30_000_000
    assert changes == [1, 1]
