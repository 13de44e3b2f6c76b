"""Run ccxt against the simulator, with only the URLs changed. Prints its results as JSON.

Run by a Python that has ccxt: REST URL, WebSocket URL, public key, secret key.
"""

import asyncio
import json
import sys

import ccxt
import ccxt.pro

SPOT, PERP = "SOL/USDC", "SOL/USDC:USDC"
KEYS = {"apiKey": sys.argv[3], "secret": sys.argv[4], "enableRateLimit": False}


def over_rest() -> dict:
    client = ccxt.backpack(KEYS)
    client.urls["api"] = dict.fromkeys(("public", "private"), sys.argv[1])
    markets = client.load_markets()
    return {
        "markets": {symbol: market["type"] for symbol, market in markets.items()},
        "currencies": sorted(client.currencies),
        "status": client.fetch_status()["status"],
        "ticker": client.fetch_ticker(SPOT)["last"],
        "tickers": sorted(client.fetch_tickers([SPOT, PERP])),
        "book": client.fetch_order_book(SPOT, 5)["bids"],
        "trades": [trade["price"] for trade in client.fetch_trades(SPOT, limit=5)],
        "candles": client.fetch_ohlcv(SPOT, "1s", limit=3),
        "marks": client.fetch_mark_ohlcv(PERP, "1s", limit=3),
        "funding": client.fetch_funding_rate(PERP)["fundingRate"],
        "paid": client.fetch_funding_rate_history(PERP),
        "interest": client.fetch_open_interest(PERP)["openInterestValue"],
        "balance": client.fetch_balance()["USDC"]["total"],
        "positions": [position["symbol"] for position in client.fetch_positions()],
        "open": [order["status"] for order in client.fetch_open_orders()],
        "orders": [order["status"] for order in client.fetch_orders(limit=5)],
        "fills": [trade["fee"]["currency"] for trade in client.fetch_my_trades(limit=5)],
    }


async def over_websocket() -> dict:
    client = ccxt.pro.backpack(KEYS)
    client.urls["api"] |= dict.fromkeys(("public", "private"), sys.argv[1])
    client.urls["api"]["ws"] = dict.fromkeys(("public", "private"), sys.argv[2])
    try:
        return {
            "watched_trade": (await client.watch_trades(SPOT))[-1]["price"],
            "watched_ticker": (await client.watch_ticker(SPOT))["last"],
            "watched_candle": (await client.watch_ohlcv(SPOT, "1m"))[-1],
            "watched_book": (await client.watch_order_book(SPOT))["bids"][0],
            "watched_order": (await client.watch_orders())[-1]["symbol"],
        }
    finally:
        await client.close()


print(json.dumps(over_rest() | asyncio.run(over_websocket())))
