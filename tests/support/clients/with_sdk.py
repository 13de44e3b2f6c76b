"""Run backpack-exchange-sdk against the simulator, with only the URLs changed. Prints JSON.

Run by a Python that has it: REST URL, WebSocket URL, public key, secret key.
"""

import json
import sys
import time

from backpack_exchange_sdk import AuthenticationClient, PublicClient

public = PublicClient(base_url=sys.argv[1] + "/")
account = AuthenticationClient(sys.argv[3], sys.argv[4], base_url=sys.argv[1] + "/")
SYMBOL, PERP = "SOL_USDC", "SOL_USDC_PERP"

print(
    json.dumps(
        {
            "assets": public.get_assets(),
            "markets": public.get_markets(),
            "depth": public.get_depth(SYMBOL),
            "klines": public.get_klines(SYMBOL, "1m", int(time.time()) - 600, priceType="Mark"),
            "mark_price": public.get_mark_price(PERP),
            "funding": public.get_funding_interval_rates(PERP),
            "account": account.get_account(),
            "collateral": account.get_collateral(),
            "orders": account.get_open_orders(marketType="SPOT"),
            "fills": account.get_fill_history(fillType="User", limit=5),
            "liquidated": account.get_fill_history(fillType="Liquidation"),
            "history": account.get_order_history(marketType="SPOT", limit=5),
        }
    )
)
