"""The simulator's own endpoints under `/simulator/`, for tests and inspection; not part of the
exchange.

Calls other parts and implements none of their functions.
"""

from __future__ import annotations

from typing import Any

from aiohttp import web

from simulator import account_bodies, rest_bodies
from simulator.engine import Engine
from simulator.faults import reading
from simulator.faults.director import Director
from simulator.faults.on_rest import RestFaults
from simulator.faults.reading import BadCommand
from simulator.faults.running import Running
from simulator.hub import Hub
from simulator.rest import reply

_TRADES = 10_000  # of a market, the newest
_DIGITS = 20  # no number of the simulator is longer


class AdminServer:
    """Serves the simulator's own endpoints."""

    def __init__(
        self, engine: Engine, hub: Hub, director: Director, rest_faults: RestFaults
    ) -> None:
        self._engine = engine
        self._hub = hub
        self._director = director
        self._rest_faults = rest_faults

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/simulator/book", self._book),
            web.get("/simulator/trades", self._trades),
            web.get("/simulator/account", self._account),
            web.get("/simulator/stats", self._stats),
            web.get("/simulator/connections", self._connections),
            web.get("/simulator/faults", self._faults),
            web.get("/simulator/faults/{number}", self._fault),
            web.post("/simulator/faults", self._begin),
            web.post("/simulator/faults/script", self._schedule),
            web.delete("/simulator/faults", self._end_all),
            web.delete("/simulator/faults/{number}", self._end),
        ]

    # Reports --------------------------------------------------------------------------------------

    async def _book(self, request: web.Request) -> web.Response:
        """The whole book of a market and its current update id."""
        market = self._engine.markets.get(request.query.get("symbol", ""))
        if market is None:
            return reply({"message": "no such market"}, status=404)
        levels = 2**31
        return reply(
            {"symbol": market.listing.symbol, "u": market.update_id}
            | rest_bodies.depth(market, levels, self._engine.plan.start_us)
        )

    async def _trades(self, request: web.Request) -> web.Response:
        """The market's trades after the trade `after`, oldest first; not rate-limited."""
        market = self._engine.markets.get(request.query.get("symbol", ""))
        after = request.query.get("after", "0")
        if market is None or not (after.isascii() and after.isdigit() and len(after) < _DIGITS):
            return reply({"message": "give a market, and a trade's id as `after`"}, status=404)
        newer = [row for row in rest_bodies.trades(market, _TRADES) if row["id"] > int(after)]
        return reply(newer[::-1])

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
                "engine_us": self._engine.clock_us,
                "orders": [account_bodies.order(order) for order in account.orders.values()],
                "balances": account_bodies.capital(account),
                "positions": [account_bodies.position(view) for view in views],
                "fills": len(account.fills),
            }
        )

    async def _stats(self, request: web.Request) -> web.Response:
        """Counts of emitted events by stream, and the number of clients."""
        body: dict[str, Any] = {
            "engine_us": self._engine.clock_us,
            "core_events": self._engine.core_events,
            "finished": self._engine.next_us is None,
            "clients": len(self._hub.clients),
            "rest": dict(sorted(self._rest_faults.statuses.items())),
            "streams": dict(sorted(self._hub.counts.items())),
        }
        return reply(body)

    async def _connections(self, request: web.Request) -> web.Response:
        """The connections, by number, with their subscriptions."""
        clients = sorted(self._hub.clients, key=lambda client: client.number)
        return reply(
            [
                {
                    "number": client.number,
                    "streams": sorted(topic.stream for topic in self._hub.topics(client)),
                    "sent": client.sent,
                    "waiting": client.queued,
                }
                for client in clients
            ]
        )

    # Faults ---------------------------------------------------------------------------------------

    async def _faults(self, request: web.Request) -> web.Response:
        """The active faults and those that ended recently."""
        return reply([fault.body() for fault in self._director.known()])

    async def _fault(self, request: web.Request) -> web.Response:
        fault = self._named(request)
        return _no_such_fault(request) if fault is None else reply(fault.body())

    async def _begin(self, request: web.Request) -> web.Response:
        """Start one fault, or several at once; all, or none where one is invalid."""
        try:
            source = reading.parsed(await request.read())
            sources = source if isinstance(source, list) else [source]
            commands = [reading.command(each) for each in sources]
            for command in commands:
                self._director.check(command)
            begun = [self._director.begin(command).body() for command in commands]
        except BadCommand as error:
            return reply({"message": str(error)}, status=400)
        return reply(begun if isinstance(source, list) else begun[0])

    async def _schedule(self, request: web.Request) -> web.Response:
        """Run a script of faults, its times counted from now."""
        try:
            script = reading.script((await request.read()).decode(), "the script")
        except UnicodeDecodeError:
            return reply({"message": "the script is not text"}, status=400)
        except BadCommand as error:
            return reply({"message": str(error)}, status=400)
        self._director.schedule(script)
        return reply({"scheduled": len(script)})

    async def _end(self, request: web.Request) -> web.Response:
        fault = self._named(request)
        if fault is None:
            return _no_such_fault(request)
        self._director.end(fault)
        return reply(fault.body())

    async def _end_all(self, request: web.Request) -> web.Response:
        self._director.end_all()
        return reply([])

    def _named(self, request: web.Request) -> Running | None:
        text = request.match_info["number"]
        is_number = text.isascii() and text.isdigit() and len(text) < _DIGITS
        return self._director.find(int(text)) if is_number else None


def _no_such_fault(request: web.Request) -> web.Response:
    message = (
        f"there is no fault {request.match_info['number']!r}; GET /simulator/faults lists them"
    )
    return reply({"message": message}, status=404)
