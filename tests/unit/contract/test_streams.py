"""Parsing of stream names, whose symbols may contain dots, digits and lower case."""

import pytest

from bridge.contract.streams import (
    KLINE_INTERVALS,
    BadStreamName,
    Identity,
    Stream,
    StreamType,
    parse_stream,
)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("trade.SOL_USDC", (StreamType.TRADE, "SOL_USDC", "", "")),
        ("depth.AAPL.US_USDC_PERP", (StreamType.DEPTH, "AAPL.US_USDC_PERP", "", "")),
        ("depth.200ms.AAPL.US_USDC", (StreamType.DEPTH, "AAPL.US_USDC", "", "200ms")),
        ("depth.1000ms.kSHIB_USDC_PERP", (StreamType.DEPTH, "kSHIB_USDC_PERP", "", "1000ms")),
        ("kline.1month.0G_USDC_PERP", (StreamType.KLINE, "0G_USDC_PERP", "1month", "")),
        ("stockPrice.BRK.B", (StreamType.STOCK_PRICE, "BRK.B", "", "")),
        ("liquidation", (StreamType.LIQUIDATION, "", "", "")),
        ("liquidation.SOL_USDC_PERP", (StreamType.LIQUIDATION, "SOL_USDC_PERP", "", "")),
        ("account.orderUpdate", (StreamType.ORDER_UPDATE, "", "", "")),
        (
            "account.positionUpdate.ETH_USDC_PERP",
            (StreamType.POSITION_UPDATE, "ETH_USDC_PERP", "", ""),
        ),
        ("account.balanceUpdate", (StreamType.BALANCE_UPDATE, "", "", "")),
        ("trade.币安人生_USDC", (StreamType.TRADE, "币安人生_USDC", "", "")),
    ],
)
def test_a_name_is_read_from_the_left(name: str, expected: tuple[str, str, str, str]) -> None:
    stream = parse_stream(name)

    assert (stream.type, stream.symbol, stream.interval, stream.window) == expected
    assert stream.name == name


@pytest.mark.parametrize("interval", KLINE_INTERVALS)
def test_every_interval_of_the_exchange_is_known(interval: str) -> None:
    assert parse_stream(f"kline.{interval}.SOL_USDC").interval == interval


@pytest.mark.parametrize(
    "name",
    [
        "",
        "trade",
        "trade.",
        "trades.SOL_USDC",
        "kline.SOL_USDC",
        "kline.7m.SOL_USDC",
        "kline.1m",
        "depth",
        "depth.100ms.SOL_USDC",
        "depth.200ms",
        "depth.5.SOL_USDC",
        "account.order",
        "account.balanceUpdate.USDC",
        "trade.SOL USDC",
        "trade.*",
        "trade.SOL_USDC,BTC_USDC",
        "trade.SOL\nUSDC",
    ],
)
def test_a_name_that_the_exchange_could_not_serve_is_refused(name: str) -> None:
    with pytest.raises(BadStreamName, match=r"."):
        parse_stream(name)


def test_each_stream_follows_one_law_of_identity() -> None:
    laws = {
        name: parse_stream(name).identity
        for name in ("trade.X", "depth.X", "depth.200ms.X", "bookTicker.X", "liquidation")
    }

    assert laws == {
        "trade.X": Identity.SEQUENCED,
        "depth.X": Identity.SEQUENCED,
        "depth.200ms.X": Identity.SEQUENCED,
        "bookTicker.X": Identity.STATES,
        "liquidation": Identity.EVENTS,
    }


def test_account_streams_are_private() -> None:
    assert parse_stream("account.rfqUpdate").is_private
    assert not Stream("liquidation", StreamType.LIQUIDATION).is_private
