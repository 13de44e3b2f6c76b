"""Recipe: a slow service asked about each large trade, with 20 calls at once.

    python -m consumers run examples.scorer:Scorer -o url=http://127.0.0.1:8000/score

The service gets `symbol`, `price`, `quantity` as JSON and answers `{"score": …}`. Trades of one
market are asked about one after another, those of different markets at once: `key`. So its last
score is that of its last trade, in ordered mode whatever is killed. The client with its connections
is opened once for each worker, and closed when it ends: `lifespan`. Trades that were fetched later
are left out before they are decoded: `filter`.
"""

from collections.abc import AsyncIterator, Mapping

import httpx2

from backpack_bridge import Consumer, Delivery, Results, Trade


class Scorer(Consumer):
    """Asks a service to score each trade; keeps the last score of each market."""

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
        """One client for all markets of this worker."""
        async with httpx2.AsyncClient(timeout=self._timeout_s) as client:
            yield client

    def filter(self, stream: str, fields: Mapping[str, str]) -> bool:
        """Trades as they happen: what the bridge fetched later is too late for a score."""
        return fields["source"] != "rest"

    async def on_trade(self, delivery: Delivery[Trade], results: Results) -> None:
        """Ask, and keep the answer beside the market's stream."""
        trade = delivery.event
        asked = {"symbol": trade.symbol, "price": trade.price, "quantity": trade.quantity}
        answer = await self.resources.post(self._url, json=asked)
        answer.raise_for_status()
        score = str(answer.json()["score"])
        results.hset("", {"trade_id": str(trade.trade_id), "score": score})
        results.hincrby("", "scored", 1)
