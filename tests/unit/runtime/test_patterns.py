"""Expansion of patterns to the instruments that the exchange lists."""

import json

import pytest

from bridge.contract.streams import BadStreamName, parse_stream
from bridge.runtime.markets import Market, read_markets, unlisted
from bridge.runtime.patterns import parse_pattern

MARKETS = {
    market.symbol: market
    for market in (
        Market("SOL_USDC", "SPOT", "Open"),
        Market("SOL_USDC_PERP", "PERP", "Open"),
        Market("AAPL.US_USDC_PERP", "PERP", "Open"),
        Market("OLD_USDC", "SPOT", "Closed"),
    )
}


def stands_for(name: str) -> list[str]:
    return [stream.name for stream in parse_pattern(name).streams(MARKETS)]


def test_a_pattern_is_one_stream_for_each_open_market_that_fits() -> None:
    assert stands_for("trade.*_PERP") == ["trade.SOL_USDC_PERP", "trade.AAPL.US_USDC_PERP"]
    assert stands_for("kline.1m.SOL*") == ["kline.1m.SOL_USDC", "kline.1m.SOL_USDC_PERP"]
    assert stands_for("depth.200ms.SOL_USD?") == ["depth.200ms.SOL_USDC"]


def test_all_markets_are_those_that_have_such_a_stream() -> None:
    assert stands_for("markPrice.*") == ["markPrice.SOL_USDC_PERP", "markPrice.AAPL.US_USDC_PERP"]
    assert len(stands_for("trade.*")) == 3


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("*.SOL_USDC", "only the market may be a pattern"),
        ("trad.*", "is not a stream"),
        ("kline.*.SOL_USDC", "write kline.<interval>.<symbol>"),
        ("account.*", "is not a stream"),
        ("account.orderUpdate.*", "only the market may be a pattern"),
        ("stockPrice.*", "has no list"),
    ],
)
def test_only_listed_markets_may_be_a_pattern(name: str, reason: str) -> None:
    with pytest.raises(BadStreamName, match=reason) as raised:
        parse_pattern(name)
    assert str(raised.value).startswith(repr(name))  # it begins with the name as written


def test_a_pattern_matches_the_streams_it_could_stand_for() -> None:
    pattern = parse_pattern("kline.1m.*_PERP")

    assert pattern.fits(parse_stream("kline.1m.SOL_USDC_PERP"))
    assert not pattern.fits(parse_stream("kline.5m.SOL_USDC_PERP"))
    assert not pattern.fits(parse_stream("kline.1m.SOL_USDC"))


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("trade.SOL_USDC", ""),
        ("liquidation", ""),
        ("stockPrice.NVDA", ""),
        ("trade.SOL_USCD", "SOL_USCD is not listed by the exchange; did you mean SOL_USDC"),
        ("markPrice.SOL_USDC", "SOL_USDC is a spot market, without markPrice"),
        ("trade.OLD_USDC", "OLD_USDC is closed for trading"),
    ],
)
def test_the_reason_why_a_stream_will_have_no_messages_is_given(name: str, why: str) -> None:
    message = unlisted(parse_stream(name), MARKETS)
    assert message.startswith(why)
    assert bool(message) == bool(why)


DEEP = b"[" * 100_000 + b"]" * 100_000
TOO_MANY = json.dumps([{"symbol": f"A{n}_USDC"} for n in range(2_001)]).encode()


@pytest.mark.parametrize(
    "body",
    [b"[]", b"{}", b"rubbish", b"<html>", b'"\xff"', b'[{"symbol":["SOL"]}]', DEEP, TOO_MANY],
    ids=lambda body: body[:12].decode(errors="replace"),
)
def test_a_body_that_is_no_list_of_markets_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        read_markets(body)


def test_a_market_that_no_stream_could_name_is_left_out() -> None:
    listed = read_markets(
        b'[{"symbol":"SOL/USDC"},{"symbol":"A B"},{"symbol":7},null,'
        b'{"symbol":"SOL_USDC","marketType":"SPOT","orderBookState":"Open"}]'
    )

    assert listed == {"SOL_USDC": Market("SOL_USDC", "SPOT", "Open")}
