"""Recipe: a slow service that scores each trade, with up to 20 concurrent requests.

    python -m consumers run examples.scorer:Scorer -o url=http://127.0.0.1:8000/score

The service gets `symbol`, `price`, `quantity` as JSON and answers `{"score": …}`. Trades of one
market are scored one after another, those of different markets concurrently, as `key` is left at
its default. So a market's last score is that of its last trade, in ordered mode whatever process is
killed. `lifespan` opens the HTTP client once per worker, and closes it at the end. `filter` skips
backfilled trades before they are decoded.
"""

from collections.abc import AsyncIterator, Mapping

import httpx2

from backpack_bridge import Consumer, Delivery, Results, Trade


class Scorer(Consumer):
    """Sends each trade to a scoring service; keeps the last score of each market."""

    name = "scorer"
    mode = "ordered"
    streams = ("trade.*",)
    concurrency = 20
    rate_limit = 200.0

    resources: httpx2.AsyncClient

    def __init__(self, url: str = "http://127.0.0.1:8000/score", timeout_s: str = "5") -> None:
        self._url = url
        self._timeout_s = float(timeout_s)

    async def lifespan(self) -> AsyncIterator[httpx2.AsyncClient]:
        """Open one client for all markets of this worker."""
        async with httpx2.AsyncClient(timeout=self._timeout_s) as client:
            yield client

    def filter(self, stream: str, fields: Mapping[str, str]) -> bool:
        """Whether the trade is live: backfilled ones (`rest`) are too old for a score."""
        return fields["source"] != "rest"

    async def on_trade(self, delivery: Delivery[Trade], results: Results) -> None:
        """Request the score, and write it to the market's result hash."""
        trade = delivery.event
        request = {"symbol": trade.symbol, "price": trade.price, "quantity": trade.quantity}
        answer = await self.resources.post(self._url, json=request)
        answer.raise_for_status()
        score = str(answer.json()["score"])
        results.hset("", {"trade_id": str(trade.trade_id), "score": score})
        results.hincrby("", "scored", 1)
