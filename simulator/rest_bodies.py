"""REST bodies about markets: the exchange's formats, made from their state. Pure.

REST trims decimals, and mixes units as the exchange does.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from simulator.candles import Candle, PricedCandles, candle_end, candle_start, moment_text
from simulator.decimals import trimmed, without_zeros
from simulator.listing import IMF_FUNCTION, MMF_FUNCTION, Listing, MarketType
from simulator.market import Market, TradeRow
from simulator.statistics import FundingRate, Statistics, day_figures

Body = dict[str, Any]
FUNDING_INTERVAL_MS = 3_600_000
MOST_CANDLES = 1_000
SESSIONS: tuple[Body, ...] = (
    {
        "maxQuantity": "1000",
        "minQuantity": "1",
        "name": "US_EQUITIES_PRE_MARKET",
        "stepSize": "1",
    },
    {
        "maxQuantity": "10000",
        "minQuantity": "0.01",
        "name": "US_EQUITIES_REGULAR",
        "stepSize": "0.01",
    },
    {
        "maxQuantity": "1000",
        "minQuantity": "1",
        "name": "US_EQUITIES_POST_MARKET",
        "stepSize": "1",
    },
)
CREATED_AT = "2025-01-21T06:34:54.691858"


def market(item: Listing) -> Body:
    """One element of /markets."""
    tick = trimmed(1, item.price_places)
    step = trimmed(1, item.quantity_places)
    is_perp = item.market_type is MarketType.PERP
    highest = None
    if item.market_type is MarketType.PREDICTION:
        highest = trimmed(item.highest_price, item.price_places)
    return {
        "baseSymbol": item.base,
        "createdAt": CREATED_AT,
        "filters": {
            "price": {
                "borrowEntryFeeMaxMultiplier": None,
                "borrowEntryFeeMinMultiplier": None,
                "discoveryBoundBand": None,
                "maxImpactMultiplier": "1.01",
                "maxMultiplier": "2",
                "maxPrice": highest,
                "maxPriceUpdateMultiplier": None,
                "meanMarkPriceBand": None,
                "meanPremiumBand": None,
                "minImpactMultiplier": "0.99",
                "minMultiplier": "0.25",
                "minPrice": tick,
                "minPriceUpdateMultiplier": None,
                "tickSize": tick,
            },
            "quantity": {"maxQuantity": None, "minQuantity": step, "stepSize": step},
        },
        "fundingInterval": FUNDING_INTERVAL_MS if is_perp else None,
        "fundingRateLowerBound": "-100" if is_perp else None,
        "fundingRateUpperBound": "100" if is_perp else None,
        "imfFunction": IMF_FUNCTION if is_perp else None,
        "marketType": item.market_type,
        "mmfFunction": MMF_FUNCTION if is_perp else None,
        "openInterestLimit": "0",
        "orderBookState": "Open",
        "positionLimitWeight": None,
        "quoteSymbol": item.quote,
        "rwaMarketType": item.rwa_type,
        "symbol": item.symbol,
        "visible": True,
    }


def depth(source: Market, limit: int, started_us: int) -> Body:
    """The current book: best bids last, best asks first, the update id as a string."""
    bids = source.book.bids.rows()[-limit:]
    asks = source.book.asks.rows()[:limit]
    return {
        "asks": _rows(source.listing, asks),
        "bids": _rows(source.listing, bids),
        "lastUpdateId": str(source.update_id),
        "timestamp": source.updated_us or started_us,
    }


def _rows(item: Listing, levels: list[tuple[int, int]]) -> list[tuple[str, str]]:
    return [
        (trimmed(price, item.price_places), trimmed(quantity, item.quantity_places))
        for price, quantity in levels
    ]


def trades(source: Market, limit: int, offset: int = 0) -> list[Body]:
    """Past trades, the newest first."""
    rows = list(source.trades)
    rows.reverse()
    return [_trade(source.listing, row) for row in rows[offset : offset + limit]]


def _trade(item: Listing, row: TradeRow) -> Body:
    return {
        "id": row.trade_id,
        "isBuyerMaker": row.buyer_is_maker,
        "price": trimmed(row.price, item.price_places),
        "quantity": trimmed(row.quantity, item.quantity_places),
        "quoteQuantity": trimmed(
            row.price * row.quantity, item.price_places + item.quantity_places
        ),
        "timestamp": row.at_ms,
    }


def klines(
    source: PricedCandles, interval: str, *, start_ms: int, end_ms: int, now_ms: int
) -> list[Body]:
    """The closed candles from the one that contains `start_ms`, oldest first, without the running
    one.
    """
    found: list[Body] = []
    start = candle_start(interval, start_ms)
    while start < end_ms and len(found) < MOST_CANDLES:
        end = candle_end(interval, start)
        if end > now_ms:
            break
        found.append(_kline(source, source.candles.get(interval, start), start, end))
        start = end
    return found


def _kline(source: PricedCandles, candle: Candle | None, start_ms: int, end_ms: int) -> Body:
    places, steps = source.price_places, source.quantity_places
    # Polled prices are no trades: such a candle has no volume.
    trades = 0 if candle is None or not candle.volume else candle.trades
    return {
        "close": None if candle is None else trimmed(candle.close, places),
        "end": moment_text(end_ms, " "),
        "high": None if candle is None else trimmed(candle.high, places),
        "low": None if candle is None else trimmed(candle.low, places),
        "open": None if candle is None else trimmed(candle.open, places),
        "quoteVolume": "0" if candle is None else trimmed(candle.quote_volume, places + steps),
        "start": moment_text(start_ms, " "),
        "trades": str(trades),
        "volume": "0" if candle is None else trimmed(candle.volume, steps),
    }


def ticker(source: Market, now_ms: int) -> Body:
    """The rolling day; the count of trades is a string here."""
    first, last, high, low, volume, quote_volume, count = day_figures(source, now_ms)
    change = float(last) - float(first)
    return {
        "firstPrice": first,
        "high": high,
        "lastPrice": last,
        "low": low,
        "priceChange": without_zeros(f"{change:.{source.listing.price_places}f}"),
        "priceChangePercent": f"{change / float(first):.6f}",
        "quoteVolume": quote_volume,
        "symbol": source.listing.symbol,
        "trades": str(count),
        "volume": volume,
    }


def mark_prices(statistics: Statistics, now_ms: int) -> list[Body]:
    return [
        {
            "fundingRate": statistics.funding.get(name, "0"),
            "indexPrice": statistics.indexes.get(name, mark),
            "markPrice": mark,
            "nextFundingTimestamp": statistics.next_funding_ms(now_ms),
            "symbol": name,
        }
        for name, mark in statistics.marks.items()
    ]


def open_interest(statistics: Statistics, now_ms: int) -> list[Body]:
    return [
        {"openInterest": statistics.open_interest(name), "symbol": name, "timestamp": now_ms}
        for name in statistics.interest
    ]


def funding_rates(symbol: str, rates: Iterable[FundingRate]) -> list[Body]:
    """Funding paid at the end of each interval, in the given order; times without a zone."""
    return [
        {
            "fundingRate": rate.rate,
            "intervalEndTimestamp": moment_text(rate.end_ms, "T"),
            "symbol": symbol,
        }
        for rate in rates
    ]


def assets(listings: Iterable[Listing]) -> list[Body]:
    """All assets that are traded or paid with."""
    spots = [item for item in listings if item.market_type is MarketType.SPOT]
    names = dict.fromkeys(name for item in spots for name in (item.base, item.quote))
    return [
        {
            "coingeckoId": None,
            "displayName": name,
            "symbol": name,
            "tokens": [
                {
                    "blockchain": "Solana",
                    "contractAddress": None,
                    "depositEnabled": True,
                    "displayName": name,
                    "maximumWithdrawal": None,
                    "minimumDeposit": "0.01",
                    "minimumWithdrawal": "0.02",
                    "withdrawEnabled": True,
                    "withdrawalFee": "0.01",
                }
            ],
        }
        for name in names
    ]


def securities(listings: Iterable[Listing]) -> list[Body]:
    """The stocks of the markets, each with its trading sessions."""
    stocks = dict.fromkeys(item.base for item in listings if item.rwa_type == "STOCK")
    return [
        {"asset": name, "cusip": None, "name": name, "sessions": list(SESSIONS)} for name in stocks
    ]
