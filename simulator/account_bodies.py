"""REST bodies about an account: the exchange's formats, made from its state. Pure.

REST trims decimals, writes `Limit` where the WebSocket writes `LIMIT`, and gives times partly in
milliseconds, partly as text without a zone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

from simulator.account import PERP_FEES, SPOT_FEES, Account, FillRow, OpenRfq
from simulator.book import Side
from simulator.candles import moment_text
from simulator.decimals import padded, plain, trimmed, without_zeros
from simulator.listing import IMF_FUNCTION, MMF_FUNCTION
from simulator.orders import Order, OrderView, PositionView, Status

Body = dict[str, Any]
USER_ID = 1
BASIS_POINTS = 10_000
UNLIMITED = "100000000"
COLLATERAL_WEIGHTS = {"USDC": Decimal(1)}
USUAL_WEIGHT = Decimal("0.9")
_NO_TARGETS = dict.fromkeys(
    (
        "stopLossLimitPrice",
        "stopLossTriggerBy",
        "stopLossTriggerPrice",
        "takeProfitLimitPrice",
        "takeProfitTriggerBy",
        "takeProfitTriggerPrice",
        "strategyId",
        "systemOrderType",
    )
)


def order(source: Order) -> Body:
    """An open order."""
    view = source.view()
    body = {
        **_order(view),
        "createdAt": source.created_us // 1000,
        "reduceOnly": view.reduce_only,
        "relatedOrderId": None,
        "triggeredAt": None,
    }
    if source.price is None:
        body["quoteQuantity"] = _trimmed_or_none(view.quote_quantity)
    else:
        body |= {"postOnly": view.post_only, "price": _trimmed_or_none(view.price)}
    return body


def past_order(source: Order) -> Body:
    """An order of the history; its time has no zone."""
    view = source.view()
    return {
        **_order(view),
        "createdAt": _moment(source.created_us // 1000),
        "expiryReason": source.expiry_reason,
        "postOnly": view.post_only,
        "price": _trimmed_or_none(view.price),
        "quoteQuantity": _trimmed_or_none(view.quote_quantity),
    }


def _order(view: OrderView) -> Body:
    pending = view.status == Status.TRIGGER_PENDING
    return {
        "clientId": view.client_id,
        "executedQuantity": without_zeros(view.executed),
        "executedQuoteQuantity": without_zeros(view.executed_quote),
        "id": view.order_id,
        "orderType": view.order_type.capitalize(),
        "quantity": _trimmed_or_none(view.quantity),
        "selfTradePrevention": view.self_trade_prevention,
        "side": view.side,
        "status": view.status,
        "symbol": view.symbol,
        "timeInForce": view.time_in_force,
        "triggerBy": view.trigger_by if pending else None,
        "triggerPrice": _trimmed_or_none(view.trigger_price) if pending else None,
        "triggerQuantity": _trimmed_or_none(view.trigger_quantity) if pending else None,
        **_NO_TARGETS,
    }


def position(view: PositionView) -> Body:
    return {
        "breakEvenPrice": view.break_even_price,
        "cumulativeFundingPayment": "0",
        "cumulativeInterest": "0",
        "entryPrice": view.entry_price,
        "estLiquidationPrice": "0",
        "imf": view.initial_margin,
        "imfFunction": IMF_FUNCTION,
        "markPrice": view.mark_price,
        "mmf": view.maintenance_margin,
        "mmfFunction": MMF_FUNCTION,
        "netCost": plain(Decimal(view.quantity) * Decimal(view.entry_price)),
        "netExposureNotional": view.exposure_notional,
        "netExposureQuantity": view.exposure_quantity,
        "netQuantity": view.quantity,
        "pnlRealized": view.realised,
        "pnlUnrealized": view.unrealised,
        "positionId": str(view.position_id),
        "subaccountId": None,
        "symbol": view.symbol,
        "userId": USER_ID,
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


def summary(account: Account) -> Body:
    """Settings, fees in basis points, limits, and how many orders are open."""
    pending = sum(each.status is Status.TRIGGER_PENDING for each in account.orders.values())
    return {
        "autoBorrowSettlements": False,
        "autoLend": False,
        "autoRealizePnl": False,
        "autoRepayBorrows": False,
        "borrowLimit": UNLIMITED,
        "futuresMakerFee": plain(PERP_FEES[0] * BASIS_POINTS),
        "futuresTakerFee": plain(PERP_FEES[1] * BASIS_POINTS),
        "leverageLimit": "50",
        "limitOrders": len(account.orders) - pending,
        "liquidating": False,
        "positionLimit": UNLIMITED,
        "spotMakerFee": plain(SPOT_FEES[0] * BASIS_POINTS),
        "spotTakerFee": plain(SPOT_FEES[1] * BASIS_POINTS),
        "triggerOrders": pending,
    }


def collateral(
    account: Account, prices: Mapping[str, Decimal], positions: Iterable[PositionView]
) -> Body:
    """The account's assets as margin, at these prices, and what its positions require.

    Nothing is borrowed or lent here.
    """
    held = [
        _collateral(asset, balance.available, balance.locked, prices.get(asset, Decimal(0)))
        for asset, balance in account.balances().items()
    ]
    views = list(positions)
    unrealised = sum((Decimal(view.unrealised) for view in views), Decimal(0))
    exposure = sum((abs(Decimal(view.exposure_notional)) for view in views), Decimal(0))
    assets = sum((Decimal(row["balanceNotional"]) for row in held), Decimal(0))
    equity = sum((Decimal(row["collateralValue"]) for row in held), Decimal(0)) + unrealised
    locked = exposure * Decimal(IMF_FUNCTION["base"])
    return {
        "assetsValue": plain(assets),
        "borrowLiability": "0",
        "collateral": held,
        "imf": IMF_FUNCTION["base"],
        "liabilitiesValue": "0",
        "marginFraction": plain(round(equity / exposure, 8)) if exposure else None,
        "mmf": MMF_FUNCTION["base"],
        "netEquity": plain(equity),
        "netEquityAvailable": plain(max(equity - locked, Decimal(0))),
        "netEquityLocked": plain(locked),
        "netExposureFutures": plain(exposure),
        "pnlUnrealized": plain(unrealised),
        "unsettledEquity": "0",
    }


def _collateral(asset: str, available: Decimal, locked: Decimal, price: Decimal) -> Body:
    total = available + locked
    weight = COLLATERAL_WEIGHTS.get(asset, USUAL_WEIGHT)
    return {
        "assetMarkPrice": plain(price),
        "availableQuantity": plain(available),
        "balanceNotional": plain(total * price),
        "collateralValue": plain(total * price * weight),
        "collateralWeight": plain(weight),
        "lendQuantity": "0",
        "openOrderQuantity": plain(locked),
        "symbol": asset,
        "totalQuantity": plain(total),
    }


def fill(row: FillRow) -> Body:
    """One past fill; its client id is a string and its time has no zone."""
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
        "timestamp": _moment(row.at_ms),
        "tradeId": row.trade_id,
    }


def rfq(source: OpenRfq) -> Body:
    """An open request of the account for a quote, and the best quote so far."""
    terms, rfq_id = source.terms, str(source.rfq_id)
    quotes = []
    if source.quote_id is not None:
        assert terms.price is not None
        price = padded(terms.price, terms.listing.price_places)
        quotes.append(
            {
                "askPrice": price,
                "bidPrice": price,
                "clientId": None,
                "createdAt": source.quoted_ms,
                "quoteId": str(source.quote_id),
                "rfqId": rfq_id,
                "status": "New",
            }
        )
    return {
        "clientId": terms.client_id,
        "createdAt": source.submitted_ms,
        "executionMode": "AwaitAccept",
        "expiryTime": source.expires_ms,
        "price": None,
        "quantity": trimmed(terms.quantity, terms.listing.quantity_places),
        "quoteQuantity": None,
        "quotes": quotes,
        "rfqId": rfq_id,
        "side": terms.side,
        "status": "New",
        "submissionTime": source.submitted_ms,
        "symbol": source.symbol,
        "systemOrderType": None,
    }


def _moment(at_ms: int) -> str:
    return f"{moment_text(at_ms, 'T')}.{at_ms % 1000:03d}"


def _trimmed_or_none(text: str | None) -> str | None:
    return None if text is None else without_zeros(text)
