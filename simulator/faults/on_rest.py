"""The middleware of REST: the exchange's request budget, and the injected faults.

Each request is in the ledger with its status and the faults that affected it. Knows no endpoint's
content.
"""

from __future__ import annotations

import asyncio
import copy
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiohttp import web

from simulator.engine import Engine
from simulator.faults.commands import Broken, RestBroken, RestSlow, RestStale, RestStatus
from simulator.faults.director import Director
from simulator.faults.running import Running
from simulator.hub import Hub
from simulator.market import Market
from simulator.rest import reply
from simulator.transport import abort, until_disconnected

EXCHANGE = ("/api/", "/wapi/")
HISTORICAL = ("/api/v1/klines", "/api/v1/trades", "/api/v1/trades/history")
CACHED = ("/api/v1/depth", "/api/v1/trades", "/api/v1/trades/history")
KNOWN_PARAMETERS = frozenset({"symbol", "limit", "offset"})
MINUTE_S = 60.0
PER_MINUTE = 2000
HISTORICAL_PER_MINUTE = 30
SECOND_US = 1_000_000
HTML = "<html><head><title>{0}</title></head><body><center><h1>{0}</h1></center></body></html>"
CODES = {
    400: "INVALID_CLIENT_REQUEST",
    401: "UNAUTHORIZED",
    403: "FORBIDDEN",
    404: "RESOURCE_NOT_FOUND",
    429: "TOO_MANY_REQUESTS",
    503: "MAINTENANCE",
    504: "TIMEOUT",
}
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Budget:
    """The number of requests accepted a minute from one account (or, unsigned, from one address),
    and the number of those for historical data: candles and trades.
    """

    per_minute: int = PER_MINUTE
    historical_per_minute: int = HISTORICAL_PER_MINUTE


class RestFaults:
    """The middleware before the exchange's REST endpoints."""

    def __init__(self, engine: Engine, hub: Hub, director: Director, budget: Budget) -> None:
        self._engine = engine
        self._hub = hub
        self._director = director
        self._budget = budget
        self._times: dict[tuple[str, str], deque[float]] = {}
        self._cached: dict[int, tuple[int, dict[str, Market]]] = {}
        self.statuses: Counter[int] = Counter()

        @web.middleware
        async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
            if not request.path.startswith(EXCHANGE):
                return await handler(request)
            return await self._answer(request, handler)

        self.middleware = middleware

    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        by: list[int] = []
        response: web.StreamResponse | None = None
        if not self._is_within_budget(request):
            response = _error(429)
        else:
            if slow := self._director.on_rest(RestSlow, request.path):
                by.append(slow.number)
                assert isinstance(slow.command, RestSlow)
                await asyncio.sleep(slow.command.delay_s)
            if stale := self._stale(request):
                by.append(stale.number)
                request["cached"] = self._cache(stale)
            response = await self._failing(request, handler, by)
        self._note(request, response.status, by)
        return response

    async def _failing(
        self, request: web.Request, handler: Handler, by: list[int]
    ) -> web.StreamResponse:
        """The reply, altered by active faults."""
        if status := self._director.on_rest(RestStatus, request.path):
            by.append(status.number)
            assert isinstance(status.command, RestStatus)
            return _refused(status.command)
        response = await handler(request)
        if broken := self._director.on_rest(RestBroken, request.path):
            by.append(broken.number)
            return await _broken(request, response, broken)
        if "cached" in request:
            response.headers["X-Cache"] = "Hit from cloudfront"
            response.headers["Age"] = str(self._age_s(by[-1]))
        return response

    # Budget ---------------------------------------------------------------------------------------

    def _is_within_budget(self, request: web.Request) -> bool:
        """Count a request and return whether it is accepted; a refused one counts too."""
        whose = request.headers.get("X-API-Key") or request.remote or ""
        fits = self._count(whose, "all", self._budget.per_minute)
        if request.path in HISTORICAL:
            fits &= self._count(whose, "historical", self._budget.historical_per_minute)
        return fits

    def _count(self, whose: str, kind: str, limit: int) -> bool:
        now_s = time.monotonic()
        times = self._times.setdefault((whose, kind), deque(maxlen=limit + 1))
        while times and times[0] <= now_s - MINUTE_S:
            times.popleft()
        times.append(now_s)
        return len(times) <= limit

    # Staleness ------------------------------------------------------------------------------------

    def _stale(self, request: web.Request) -> Running | None:
        if request.path not in CACHED or not KNOWN_PARAMETERS.issuperset(request.query):
            return None
        return self._director.on_rest(RestStale, request.path)

    def _cache(self, fault: Running) -> dict[str, Market]:
        """The markets at the time the cache was last filled."""
        assert isinstance(fault.command, RestStale)
        filled_us, markets = self._cached.get(fault.number, (0, {}))
        if not markets or self._director.now_us - filled_us > fault.command.age_s * SECOND_US:
            markets = {name: frozen(market) for name, market in self._engine.markets.items()}
            self._cached[fault.number] = (self._director.now_us, markets)
        return markets

    def _age_s(self, number: int) -> int:
        return (self._director.now_us - self._cached[number][0]) // SECOND_US

    def _note(self, request: web.Request, status: int, by: list[int]) -> None:
        self.statuses[status] += 1
        self._hub.note(self._director.now_us, {"rest": request.path_qs, "status": status, "by": by})


def frozen(market: Market) -> Market:
    """A copy of what REST shows of a market."""
    copied = copy.copy(market)
    copied.book = copy.deepcopy(market.book)
    copied.trades = market.trades.copy()
    return copied


def _error(status: int) -> web.Response:
    code = CODES.get(status, "SERVER_ERROR")
    return reply({"code": code, "message": code.replace("_", " ").capitalize()}, status=status)


def _refused(command: RestStatus) -> web.Response:
    """The error reply of a command."""
    status = command.status
    match command.body:
        case "json":
            response = _error(status)
        case "text":
            response = web.Response(status=status, text="upstream request failed")
        case "html":
            text = HTML.format(f"{status} Error")
            response = web.Response(status=status, text=text, content_type="text/html")
        case "empty":
            response = web.Response(status=status)
    if command.retry_after_s is not None:
        response.headers["Retry-After"] = str(command.retry_after_s)
    return response


async def _broken(
    request: web.Request, response: web.StreamResponse, fault: Running
) -> web.StreamResponse:
    """What is sent instead of a good reply."""
    assert isinstance(fault.command, RestBroken)
    body = response.body if isinstance(response, web.Response) else b""
    whole = body if isinstance(body, bytes) else b""
    match fault.command.form:
        case Broken.HTML:
            return web.Response(text=HTML.format("Just a moment"), content_type="text/html")
        case Broken.TRUNCATED:
            text = whole[: len(whole) // 2]
        case Broken.GARBAGE:
            text = b"\xff\xfe{" + whole[::-1]
        case Broken.EMPTY:
            text = b""
        case Broken.DEEP:
            text = b"[" * 100_000 + b"]" * 100_000
        case Broken.HANG | Broken.RESET as form:
            if form is Broken.HANG:
                await until_disconnected(request, lambda: fault.is_called_off)
            abort(request, reset=True)
            return web.Response(status=500)
    return web.Response(body=text, content_type="application/json")
