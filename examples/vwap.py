"""Recipe: the volume-weighted average price of each minute, by a timer.

    python -m consumers run examples.vwap:Vwap
    redis-cli XREVRANGE 'consumers:{trade.SOL_USDC}:vwap:minutes' + - COUNT 3

A timer writes a minute when it is over, even if no trade follows, after all trades received by
then. A late trade still counts in its own minute: that is written again, with a `revision` one
higher.
"""

from decimal import Context, Decimal
from typing import Any

from backpack_bridge import Consumer, Delivery, EntryId, Results, Tick, Trade, every

_EXACT = Context(prec=400)  # the default context would round sums beyond 28 digits
_MINUTE_MS = 60_000
_KEPT = 10  # last minutes, which a late trade can still change

Minute = dict[str, Any]  # turnover, volume, trades, revision, is_written


class Vwap(Consumer):
    """Turnover divided by volume for each minute of the exchange's time."""

    name = "vwap"
    mode = "ordered"
    streams = ("trade.*",)

    def on_trade(self, delivery: Delivery[Trade]) -> None:
        """Add the trade to its minute."""
        trade = delivery.event
        at_ms = EntryId.parse(delivery.entry_id).ms
        minute = str(at_ms // _MINUTE_MS * _MINUTE_MS)
        before: Minute = self.state.get(minute, {"turnover": "0", "volume": "0", "trades": 0})
        price, quantity = Decimal(trade.price), Decimal(trade.quantity)
        turnover = _EXACT.fma(price, quantity, Decimal(before["turnover"]))
        volume = _EXACT.add(Decimal(before["volume"]), quantity)
        self.state[minute] = {
            "turnover": f"{turnover:f}",
            "volume": f"{volume:f}",
            "trades": before["trades"] + 1,
            "revision": before.get("revision", -1) + before.get("is_written", True),
            "is_written": False,
        }

    @every("1m")
    def write_minutes(self, tick: Tick, results: Results) -> None:
        """Write all minutes that are over and have changed since they were last written."""
        for minute, held in sorted(self.state.items()):
            ends_us = (int(minute) + _MINUTE_MS) * 1000
            if ends_us <= tick.at_us and not held["is_written"]:
                results.xadd("minutes", "*", _row(minute, held), keep_entries=10_000)
                self.state[minute] = held | {"is_written": True}
        for minute in sorted(self.state)[:-_KEPT]:
            if self.state[minute]["is_written"]:
                del self.state[minute]


def _row(minute: str, held: Minute) -> dict[str, str]:
    volume = Decimal(held["volume"])
    vwap = Decimal(held["turnover"]) / volume if volume else Decimal(0)
    return {
        "start_ms": minute,
        "vwap": f"{vwap:f}",
        "volume": held["volume"],
        "trades": str(held["trades"]),
        "revision": str(held["revision"]),
    }
