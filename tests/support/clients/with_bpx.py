"""Run bpx-py against the simulator, with only the URL changed. Prints its results as JSON.

Run by a Python that has it: REST URL, WebSocket URL, public key, secret key.
"""

import json
import sys
import time

from bpx.account import Account
from bpx.public import Public

Public.BASE_URL = Account.BPX_API_URL = sys.argv[1] + "/"
public, account = Public(), Account(sys.argv[3], sys.argv[4])
SYMBOL, PERP = "SOL_USDC", "SOL_USDC_PERP"

print(
    json.dumps(
        {
            "assets": public.get_assets(),
            "markets": public.get_markets(),
            "ticker": public.get_ticker(SYMBOL),
            "depth": public.get_depth(SYMBOL),
            "klines": public.get_klines(SYMBOL, "1m", int(time.time()) - 600),
            "funding": public.get_funding_interval_rates(PERP),
            "account": account.get_account(),
            "balances": account.get_balances(),
            "collateral": account.get_collateral(),
            "orders": account.get_open_orders(),
            "positions": account.get_open_positions(),
            "fills": account.get_fill_history(limit=5),
            "history": account.get_order_history(limit=5),
        }
    )
)
