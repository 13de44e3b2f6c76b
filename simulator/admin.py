"""What the simulator tells of itself under `/simulator/`: no part of the exchange, made for tests
and curiosity.

Read-only. Refuses to know how any of it came about.
"""

from __future__ import annotations

from typing import Any

from aiohttp import web

from simulator import rest_bodies
from simulator.engine import Engine
from simulator.hub import Hub
from simulator.rest import reply


class AdminServer:
    """Serves the simulator's own endpoints."""

    def __init__(self, engine: Engine, hub: Hub) -> None:
        self._engine = engine
        self._hub = hub

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/simulator/book", self._book),
            web.get("/simulator/account", self._account),
            web.get("/simulator/stats", self._stats),
        ]

    async def _book(self, request: web.Request) -> web.Response:
        """The whole book of a market and the update id it stands at."""
        market = self._engine.markets.get(request.query.get("symbol", ""))
        if market is None:
            return reply({"message": "no such market"}, status=404)
        levels = 2**31
        return reply(
            {"symbol": market.listing.symbol, "u": market.update_id}
            | rest_bodies.depth(market, levels, self._engine.plan.start_us)
        )

    async def _account(self, request: web.Request) -> web.Response:
        """An account's open orders, balances, positions and number of fills."""
        key = request.query.get("key", "").replace(" ", "+")  # an unescaped + arrives as a space
        account = self._engine.accounts.by_key.get(key)
        if account is None:
            return reply({"message": "no such account"}, status=404)
        views = self._engine.accounts.position_views(key)
        return reply(
            {
                "key": key,
                "engine_us": self._engine.played_us,
                "orders": [rest_bodies.order(order) for order in account.orders.values()],
                "balances": rest_bodies.capital(account),
                "positions": [rest_bodies.position(view) for view in views],
                "fills": len(account.fills),
            }
        )

    async def _stats(self, request: web.Request) -> web.Response:
        """What was put out so far, by stream, and who listens."""
        body: dict[str, Any] = {
            "engine_us": self._engine.played_us,
            "core_events": self._engine.core_events,
            "finished": self._engine.next_us is None,
            "clients": len(self._hub.clients),
            "streams": dict(sorted(self._hub.counts.items())),
        }
        return reply(body)
