"""What REST replies say: the exchange's shapes, made from the state of markets and accounts. Pure.

REST trims decimals, writes `Limit` where the WebSocket writes `LIMIT`, and mixes units as the
exchange does.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from simulator.account import Account, FillRow
from simulator.book import Side
from simulator.candles import Candle, candle_end, candle_start, moment_text
from simulator.decimals import plain, trimmed, without_zeros
from simulator.listing import Listing, MarketType
from simulator.market import Market, TradeRow
from simulator.orders import Order, OrderView, PositionView, Status
from simulator.statistics import Statistics, day_figures

Body = dict[str, Any]
FUNDING_INTERVAL_MS = 3_600_000
MOST_CANDLES = 1_000
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
        "imfFunction": None,
        "marketType": item.market_type,
        "mmfFunction": None,
        "openInterestLimit": "0",
        "orderBookState": "Open",
        "positionLimitWeight": None,
        "quoteSymbol": item.quote,
        "rwaMarketType": item.rwa_type,
        "symbol": item.symbol,
        "visible": True,
    }


def depth(source: Market, limit: int, started_us: int) -> Body:
    """The book as it stands: best bids last, best asks first, the update id as a string."""
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


def klines(source: Market, interval: str, *, start_ms: int, end_ms: int, now_ms: int) -> list[Body]:
    """The closed candles from the one that holds `start_ms`, oldest first; the running one is left
    out.
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


def _kline(source: Market, candle: Candle | None, start_ms: int, end_ms: int) -> Body:
    places, steps = source.listing.price_places, source.listing.quantity_places
    return {
        "close": None if candle is None else trimmed(candle.close, places),
        "end": moment_text(end_ms, " "),
        "high": None if candle is None else trimmed(candle.high, places),
        "low": None if candle is None else trimmed(candle.low, places),
        "open": None if candle is None else trimmed(candle.open, places),
        "quoteVolume": "0" if candle is None else trimmed(candle.quote_volume, places + steps),
        "start": moment_text(start_ms, " "),
        "trades": "0" if candle is None else str(candle.trades),
        "volume": "0" if candle is None else trimmed(candle.volume, steps),
    }


def ticker(source: Market, now_ms: int) -> Body:
    """The rolling day; here the count of trades is a string."""
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


def order(source: Order) -> Body:
    """An open order."""
    view = source.view()
    return {
        "clientId": view.client_id,
        "createdAt": source.created_us // 1000,
        "executedQuantity": without_zeros(view.executed),
        "executedQuoteQuantity": without_zeros(view.executed_quote),
        "id": view.order_id,
        "orderType": view.order_type.capitalize(),
        "postOnly": view.post_only,
        "price": _trimmed_or_none(view.price),
        "quantity": _trimmed_or_none(view.quantity),
        "quoteQuantity": _trimmed_or_none(view.quote_quantity),
        "reduceOnly": view.reduce_only,
        "relatedOrderId": None,
        "selfTradePrevention": view.self_trade_prevention,
        "side": view.side,
        "status": view.status,
        "symbol": view.symbol,
        "timeInForce": view.time_in_force,
        **_trigger(view),
    }


def _trigger(view: OrderView) -> Body:
    pending = view.status == Status.TRIGGER_PENDING
    return {
        "triggerBy": view.trigger_by if pending else None,
        "triggerPrice": _trimmed_or_none(view.trigger_price) if pending else None,
        "triggerQuantity": _trimmed_or_none(view.trigger_quantity) if pending else None,
        "triggeredAt": None,
    }


def position(view: PositionView) -> Body:
    return {
        "breakEvenPrice": view.break_even_price,
        "cumulativeFundingPayment": "0",
        "cumulativeInterest": "0",
        "entryPrice": view.entry_price,
        "estLiquidationPrice": "0",
        "imf": view.initial_margin,
        "markPrice": view.mark_price,
        "mmf": view.maintenance_margin,
        "netCost": plain(Decimal(view.quantity) * Decimal(view.entry_price)),
        "netExposureNotional": view.exposure_notional,
        "netExposureQuantity": view.exposure_quantity,
        "netQuantity": view.quantity,
        "pnlRealized": view.realised,
        "pnlUnrealized": view.unrealised,
        "positionId": str(view.position_id),
        "symbol": view.symbol,
    }


def capital(account: Account) -> Body:
    return {
        asset: {
            "available": plain(balance.available),
            "locked": plain(balance.locked),
            "staked": "0",
        }
        for asset, balance in account.balances().items()
    }


def fill(row: FillRow) -> Body:
    """One past fill: here the client id is a string and the time has no zone."""
    moment = moment_text(row.at_ms, "T")
    return {
        "clientId": None if row.client_id is None else str(row.client_id),
        "fee": row.fee,
        "feeSymbol": row.fee_asset,
        "isMaker": row.maker,
        "orderId": row.order_id,
        "price": row.price,
        "quantity": row.quantity,
        "side": Side(row.side),
        "symbol": row.symbol,
        "systemOrderType": None,
        "timestamp": f"{moment}.{row.at_ms % 1000:03d}",
        "tradeId": row.trade_id,
    }


def _trimmed_or_none(text: str | None) -> str | None:
    return None if text is None else without_zeros(text)
