"""ccxt pro's `watch_trades`, and an XADD for each trade: the loop of its manual."""

import asyncio
import sys

import ccxt.pro
from redis.asyncio import Redis
from redis.exceptions import RedisError


async def main(ws_url: str, rest_url: str, redis_url: str, *markets: str) -> None:
    """Watch trades for ever; an error is printed, and the loop continues."""
    exchange = ccxt.pro.backpack({"enableRateLimit": False, "newUpdates": True})
    exchange.urls["api"] |= dict.fromkeys(("public", "private"), rest_url)
    exchange.urls["api"]["ws"] = dict.fromkeys(("public", "private"), ws_url)
    await exchange.load_markets()
    symbols = [exchange.markets_by_id[market][0]["symbol"] for market in markets]
    async with Redis.from_url(redis_url) as redis:
        while True:
            try:
                for trade in await exchange.watch_trades_for_symbols(symbols):
                    await redis.xadd(
                        "ccxt:trade." + trade["info"]["s"],
                        {
                            "id": trade["id"],
                            "symbol": trade["symbol"],
                            "side": trade["side"] or "",
                            "price": trade["price"],
                            "amount": trade["amount"],
                            "timestamp": trade["timestamp"],
                        },
                    )
            except (ccxt.NetworkError, RedisError) as error:
                print(repr(error), flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
