"""The REST side: parameters, signatures, errors, and replies about the market at the current engine
time.

Knows neither how a body is made (`rest_bodies`, `account_bodies`) nor how a market moves.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any

from aiohttp import web

from simulator import account_bodies, rest_bodies, signing
from simulator.account import Account
from simulator.candles import INTERVALS, PricedCandles
from simulator.decimals import exact
from simulator.engine import Engine
from simulator.listing import Listing, MarketType, type_of
from simulator.market import Market

DEPTH_LIMITS = (5, 10, 20, 50, 100, 500, 1000)
USUAL_LIMIT = 100
LARGEST_LIMIT = 1000
DEEPEST_HISTORY = 10_000
USUAL_WINDOW = "5000"
MARKET_TYPES = ("SPOT", "PERP", "IPERP", "DATED", "PREDICTION", "RFQ")
PRICE_TYPES = ("Last", "Index", "Mark")
FILL_TYPES = (
    "User", "BookLiquidation", "Adl", "Backstop", "Liquidation", "AllLiquidation",
    "CollateralConversion", "CollateralConversionAndSpotLiquidation",
)  # fmt: skip
SORT_DIRECTIONS = ("Desc", "Asc")

Handler = Callable[[web.Request], Awaitable[web.Response]]


class RestError(Exception):
    """A request that gets an error reply. `code` None: a plain-text error about an invalid
    parameter.
    """

    def __init__(self, status: int, code: str | None, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code

    def response(self) -> web.Response:
        if self.code is None:
            return web.Response(status=self.status, text=str(self))
        return reply({"code": self.code, "message": str(self)}, status=self.status)


def reply(
    body: object, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> web.Response:
    """A JSON reply without spaces, as the exchange writes it."""
    text = json.dumps(body, separators=(",", ":"), ensure_ascii=False)
    return web.Response(status=status, text=text, content_type="application/json", headers=headers)


class RestServer:
    """Serves the exchange's REST endpoints over one engine."""

    def __init__(
        self,
        engine: Engine,
        accepted_keys: Collection[str],
        clock_ms: Callable[[], int],
        *,
        is_recording: bool,
    ) -> None:
        self._engine = engine
        self._clock_ms = clock_ms
        self._accepted_keys = accepted_keys
        self._is_recording = is_recording

    def routes(self) -> list[web.RouteDef]:
        public: dict[str, Handler] = {
            "/api/v1/status": self._status,
            "/api/v1/ping": self._ping,
            "/api/v1/time": self._time,
            "/api/v1/markets": self._all_markets,
            "/api/v1/market": self._one_market,
            "/api/v1/depth": self._depth,
            "/api/v1/trades": self._trades,
            "/api/v1/trades/history": self._trades_history,
            "/api/v1/klines": self._klines,
            "/api/v1/ticker": self._ticker,
            "/api/v1/tickers": self._tickers,
            "/api/v1/markPrices": self._mark_prices,
            "/api/v1/openInterest": self._open_interest,
            "/api/v1/fundingRates": self._funding_rates,
            "/api/v1/assets": self._assets,
            "/api/v1/securities": self._securities,
        }
        private: dict[str, tuple[str, Callable[[web.Request, Account], web.Response]]] = {
            "/api/v1/orders": ("orderQueryAll", self._orders),
            "/api/v1/order": ("orderQuery", self._order),
            "/api/v1/position": ("positionQuery", self._positions),
            "/api/v1/capital": ("balanceQuery", self._capital),
            "/api/v1/capital/collateral": ("collateralQuery", self._collateral),
            "/api/v1/account": ("accountQuery", self._account),
            "/api/v1/rfqs": ("rfqQuery", self._rfqs),
            "/wapi/v1/history/fills": ("fillHistoryQueryAll", self._fills),
            "/wapi/v1/history/orders": ("orderHistoryQueryAll", self._past_orders),
        }
        routes = [web.get(path, _guarded(handler)) for path, handler in public.items()]
        for path, (instruction, signed_handler) in private.items():
            routes.append(web.get(path, _guarded(self._signed(instruction, signed_handler))))
        return routes

    # Public ---------------------------------------------------------------------------------------

    async def _status(self, request: web.Request) -> web.Response:
        return reply({"message": None, "status": "Ok"})

    async def _ping(self, request: web.Request) -> web.Response:
        return web.Response(text="pong")

    async def _time(self, request: web.Request) -> web.Response:
        """The clock that signatures are checked against: the real one, not the market's time."""
        return web.Response(text=str(self._clock_ms()))

    async def _all_markets(self, request: web.Request) -> web.Response:
        return reply(_of_types(request, [rest_bodies.market(x) for x in self._listings()]))

    async def _assets(self, request: web.Request) -> web.Response:
        return reply(rest_bodies.assets(self._listings()))

    async def _securities(self, request: web.Request) -> web.Response:
        return reply(rest_bodies.securities(self._listings()))

    async def _one_market(self, request: web.Request) -> web.Response:
        return reply(rest_bodies.market(self._market(request).listing))

    async def _depth(self, request: web.Request) -> web.Response:
        limit = _number(request, "limit", LARGEST_LIMIT)
        if limit not in DEPTH_LIMITS:
            raise _unparsed("limit", str(limit))
        market = seen(request, self._market(request))
        if self._is_recording:
            raise RestError(404, "RESOURCE_NOT_FOUND", "Not found")
        return reply(rest_bodies.depth(market, limit, self._engine.plan.start_us))

    async def _trades(self, request: web.Request) -> web.Response:
        market = seen(request, self._market(request))
        return reply(rest_bodies.trades(market, _limit(request)))

    async def _trades_history(self, request: web.Request) -> web.Response:
        market, limit = seen(request, self._market(request)), _limit(request)
        offset = _number(request, "offset", 0)
        if offset + limit > DEEPEST_HISTORY:
            raise RestError(400, "INVALID_CLIENT_REQUEST", "Offset plus limit is too large")
        return reply(rest_bodies.trades(market, limit, offset))

    async def _klines(self, request: web.Request) -> web.Response:
        market = self._market(request)
        interval = _text(request, "interval")
        if interval not in INTERVALS:
            raise _unparsed("interval", interval)
        now_ms = self._engine.clock_us // 1000
        start_s = _number(request, "startTime", None)
        end_s = _number(request, "endTime", now_ms // 1000 + 1)
        first_ms = max(start_s * 1000, self._engine.plan.start_us // 1000)
        candles = self._candles(market, _choice(request, "priceType", PRICE_TYPES))
        return reply(
            rest_bodies.klines(
                candles, interval, start_ms=first_ms, end_ms=end_s * 1000, now_ms=now_ms
            )
        )

    def _candles(self, market: Market, price_type: str | None) -> PricedCandles:
        """Candles of trades, or of the mark or index prices, which have no trades."""
        listing = market.listing
        if price_type in (None, "Last"):
            return PricedCandles(market.candles, listing.price_places, listing.quantity_places)
        statistics = self._engine.statistics
        return statistics.marked_candles(listing.symbol, index=price_type == "Index")

    async def _ticker(self, request: web.Request) -> web.Response:
        return reply(rest_bodies.ticker(self._market(request), self._engine.clock_us // 1000))

    async def _tickers(self, request: web.Request) -> web.Response:
        now_ms = self._engine.clock_us // 1000
        return reply([rest_bodies.ticker(x, now_ms) for x in self._engine.markets.values()])

    async def _mark_prices(self, request: web.Request) -> web.Response:
        now_ms = self._engine.clock_us // 1000
        bodies = rest_bodies.mark_prices(self._engine.statistics, now_ms)
        return self._of_symbol(request, _of_types(request, bodies))

    async def _open_interest(self, request: web.Request) -> web.Response:
        now_ms = self._engine.clock_us // 1000
        return self._of_symbol(request, rest_bodies.open_interest(self._engine.statistics, now_ms))

    async def _funding_rates(self, request: web.Request) -> web.Response:
        """Funding paid since the market began, newest first."""
        symbol = self._market(request).listing.symbol
        paid = [*reversed(self._engine.statistics.funding_paid.get(symbol, ()))]
        return _page(request, rest_bodies.funding_rates(symbol, paid), DEEPEST_HISTORY)

    # Signed ---------------------------------------------------------------------------------------

    def _signed(
        self, instruction: str, handler: Callable[[web.Request, Account], web.Response]
    ) -> Handler:
        """A handler that accepts only requests signed with an accepted key."""

        async def checked(request: web.Request) -> web.Response:
            key = request.headers.get("X-API-Key", "")
            signature = [
                key,
                request.headers.get("X-Signature", ""),
                request.headers.get("X-Timestamp", ""),
                request.headers.get("X-Window", USUAL_WINDOW),
            ]
            if not signing.accepts(
                signature,
                instruction,
                accepted_keys=self._accepted_keys,
                now_ms=self._clock_ms(),
                params=dict(request.query),
            ):
                raise RestError(401, "INVALID_SIGNATURE", "Invalid signature")
            return handler(request, self._engine.accounts.by_key[key])

        return checked

    def _account(self, request: web.Request, account: Account) -> web.Response:
        return reply(account_bodies.summary(account))

    def _orders(self, request: web.Request, account: Account) -> web.Response:
        bodies = [account_bodies.order(order) for order in account.orders.values()]
        return self._of_symbol(request, _of_types(request, bodies))

    def _order(self, request: web.Request, account: Account) -> web.Response:
        """One resting order, by exactly one of its ids."""
        symbol = self._market(request).listing.symbol
        order_id, client_id = request.query.get("orderId"), request.query.get("clientId")
        if (order_id is None) == (client_id is None):
            raise RestError(
                400, "INVALID_CLIENT_REQUEST", "Must specify exactly one of orderId and clientId"
            )
        for order in account.orders.values():
            if order.listing.symbol == symbol and (
                order.order_id == order_id or str(order.client_id) == client_id
            ):
                return reply(account_bodies.order(order))
        raise RestError(404, "RESOURCE_NOT_FOUND", "Order not found")

    def _positions(self, request: web.Request, account: Account) -> web.Response:
        views = self._engine.accounts.position_views(account.key)
        bodies = [account_bodies.position(view) for view in views]
        return self._of_symbol(request, _of_types(request, bodies))

    def _capital(self, request: web.Request, account: Account) -> web.Response:
        return reply(account_bodies.capital(account))

    def _collateral(self, request: web.Request, account: Account) -> web.Response:
        """The collateral, at the last prices of the assets' spot markets."""
        spots = [
            market
            for market in self._engine.markets.values()
            if market.listing.market_type is MarketType.SPOT
        ]
        prices = {market.listing.quote: exact(1, 0) for market in spots}
        for market in spots:
            price = exact(market.last_price, market.listing.price_places)
            prices.setdefault(market.listing.base, price)
        views = self._engine.accounts.position_views(account.key)
        return reply(account_bodies.collateral(account, prices, views))

    def _rfqs(self, request: web.Request, account: Account) -> web.Response:
        bodies = [account_bodies.rfq(rfq) for rfq in account.rfqs.values()]
        return reply(_matching(request, bodies, "symbol", "rfqId", "clientId", "side"))

    def _fills(self, request: web.Request, account: Account) -> web.Response:
        """Past fills by page, newest first. None are liquidations: all are the user's."""
        first_ms, last_ms = _number(request, "from", 0), _number(request, "to", 2**62)
        if _choice(request, "fillType", FILL_TYPES) not in (None, "User"):
            return _page(request, [])
        bodies = [
            account_bodies.fill(row) for row in account.fills if first_ms <= row.at_ms <= last_ms
        ]
        return _page(request, _sorted(request, _matching(request, bodies, "symbol", "orderId")))

    def _past_orders(self, request: web.Request, account: Account) -> web.Response:
        """All placed orders by page, newest first, open ones included."""
        bodies = [account_bodies.past_order(order) for order in account.placed]
        order_id = request.query.get("orderId")
        found = [body for body in bodies if order_id in (None, body["id"])]
        return _page(request, _sorted(request, _matching(request, found, "symbol")))

    # Helpers --------------------------------------------------------------------------------------

    def _listings(self) -> list[Listing]:
        return [market.listing for market in self._engine.markets.values()]

    def _market(self, request: web.Request) -> Market:
        symbol = _text(request, "symbol")
        market = self._engine.markets.get(symbol)
        if market is None:
            raise RestError(400, "INVALID_CLIENT_REQUEST", "Invalid market symbol")
        return market

    def _of_symbol(self, request: web.Request, bodies: list[dict[str, Any]]) -> web.Response:
        """All bodies, or those of the requested symbol."""
        symbol = request.query.get("symbol")
        if symbol is None:
            return reply(bodies)
        self._market(request)
        return reply([body for body in bodies if body["symbol"] == symbol])


def seen(request: web.Request, market: Market) -> Market:
    """The current market, or the older one in the cache of a fault."""
    cached: Mapping[str, Market] = request.get("cached", {})
    return cached.get(market.listing.symbol, market)


def _matching(
    request: web.Request, bodies: list[dict[str, Any]], *members: str
) -> list[dict[str, Any]]:
    """Bodies of the requested market types that match each of these members in the query."""
    filters = {name: request.query[name] for name in members if name in request.query}
    return [
        body
        for body in _of_types(request, bodies)
        if all(str(body[name]) == value for name, value in filters.items())
    ]


def _of_types(request: web.Request, bodies: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Bodies of the requested market types; all without a request."""
    requested = request.query.getall("marketType", [])
    for name in requested:
        if name not in MARKET_TYPES:
            raise _unparsed("marketType", name)
    return [body for body in bodies if not requested or type_of(body["symbol"]) in requested]


def _sorted(request: web.Request, bodies: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Bodies, given oldest first, in the requested direction; newest first by default."""
    is_rising = _choice(request, "sortDirection", SORT_DIRECTIONS) == "Asc"
    return bodies if is_rising else bodies[::-1]


def _page(
    request: web.Request, bodies: list[dict[str, Any]], largest: int = LARGEST_LIMIT
) -> web.Response:
    """The requested page; headers give its position."""
    limit, offset = _limit(request, largest), _number(request, "offset", 0)
    headers = {
        "X-PAGE-COUNT": str(-(-len(bodies) // limit)),
        "X-CURRENT-PAGE": str(offset // limit + 1),
        "X-PAGE-SIZE": str(limit),
        "X-TOTAL": str(len(bodies)),
    }
    return reply(bodies[offset : offset + limit], headers=headers)


def _guarded(handler: Handler) -> Handler:
    """Answer refused requests in the exchange's form."""

    async def answer(request: web.Request) -> web.Response:
        try:
            return await handler(request)
        except RestError as error:
            return error.response()

    return answer


def _text(request: web.Request, name: str) -> str:
    value = request.query.get(name)
    if value is None:
        raise RestError(400, None, f"failed to parse parameter `{name}`: the parameter is required")
    return value


def _number(request: web.Request, name: str, default: int | None) -> int:
    """A whole number of the query; required without a default."""
    if name not in request.query and default is not None:
        return default
    text = _text(request, name)
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise _unparsed(name, text)
    return int(text)


def _choice(request: web.Request, name: str, choices: Collection[str]) -> str | None:
    """One of the choices, from the query; None where it is not given."""
    text = request.query.get(name)
    if text is not None and text not in choices:
        raise _unparsed(name, text)
    return text


def _limit(request: web.Request, largest: int = LARGEST_LIMIT) -> int:
    limit = _number(request, "limit", USUAL_LIMIT)
    if not 1 <= limit <= largest:
        raise RestError(400, "INVALID_CLIENT_REQUEST", "Invalid limit")
    return limit


def _unparsed(name: str, text: str) -> RestError:
    return RestError(400, None, f'failed to parse parameter `{name}`: invalid value "{text}"')
