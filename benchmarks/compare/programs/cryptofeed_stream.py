"""cryptofeed with its backend `TradeStream`, as in its demos. It has no Backpack, so this adds the
feed: the subscription, and a `Trade` for each message.
"""

import asyncio
import sys
from decimal import Decimal
from typing import Any, ClassVar
from urllib.parse import urlsplit

from cryptofeed import FeedHandler
from cryptofeed.backends.redis import TradeStream
from cryptofeed.connection import AsyncConnection, RestEndpoint, Routes, WebsocketEndpoint
from cryptofeed.defines import BUY, SELL, TRADES
from cryptofeed.feed import Feed
from cryptofeed.symbols import Symbols
from cryptofeed.types import Trade
from yapic import json


class Backpack(Feed):
    """A feed of trades only."""

    id = "BACKPACK"
    rest_endpoints: ClassVar = [RestEndpoint("", routes=Routes(""))]
    websocket_channels: ClassVar = {TRADES: "trade"}

    async def _ws_authentication(
        self, address: str, options: dict[str, Any]
    ) -> tuple[str, dict[str, Any]]:
        """Use ws://: cryptofeed requires wss://, and the exchange of this run has no TLS."""
        return address.replace("wss://", "ws://"), options

    async def subscribe(self, connection: AsyncConnection) -> None:
        params = [f"trade.{each}" for each in connection.subscription["trade"]]
        await connection.write(json.dumps({"method": "SUBSCRIBE", "params": params}))

    async def message_handler(self, text: str, _connection: Any, timestamp: float) -> None:
        data = json.loads(text, parse_float=Decimal)["data"]
        trade = Trade(
            self.id,
            self.exchange_symbol_to_std_symbol(data["s"]),
            SELL if data["m"] else BUY,
            Decimal(data["q"]),
            Decimal(data["p"]),
            data["T"] / 1e6,
            id=str(data["t"]),
            raw=data,
        )
        await self.callback(TRADES, trade, timestamp)


def main(ws_url: str, _rest_url: str, redis_url: str, *markets: str) -> None:
    Backpack.websocket_endpoints = [
        WebsocketEndpoint(ws_url.replace("ws://", "wss://"), authentication=True)
    ]
    names = {market.replace("_", "-"): market for market in markets}
    Symbols.set("BACKPACK", names, {"instrument_type": dict.fromkeys(names, "spot")})
    redis = urlsplit(redis_url)
    stream = TradeStream(host=redis.hostname, port=redis.port)
    handler = FeedHandler()
    # `run` needs a current loop, and uvloop does not create one any more.
    asyncio.set_event_loop(asyncio.new_event_loop())
    handler.add_feed(Backpack(symbols=list(names), channels=[TRADES], callbacks={TRADES: stream}))
    handler.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
