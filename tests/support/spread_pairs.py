"""Prices of pairs of markets in Redis, and the correct spreads in order of time."""

from decimal import Decimal
from random import Random

from tests.support.consumer_entries import START_US, Fields
from tests.support.consumer_worker import Bench

ASSETS = ("SOL", "BTC", "ETH")
STEP_US = 7_000


def ticker(symbol: str, number: int, bid: Decimal, engine_us: int) -> Fields:
    fields = dict.fromkeys(("bid_quantity", "ask_quantity"), "1")
    return fields | {
        "type": "bookTicker",
        "symbol": symbol,
        "bid_price": str(bid),
        "ask_price": str(bid + Decimal("0.1")),
        "update_id": str(number),
        "event_us": str(engine_us),
        "engine_us": str(engine_us),
        "received_us": str(engine_us),
        "extra": "",
    }


class Pairs:
    """Random prices of the two markets of each asset, and the correct spreads."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._chance = Random(7)
        self._at_us = START_US
        self.truth: dict[str, list[str]] = {asset: [] for asset in ASSETS}
        self._held: dict[str, Decimal] = {}
        for asset in ASSETS:
            bench.register(*(f"bookTicker.{asset}_USDC{leg}" for leg in ("", "_PERP")))

    def add(self, entries: int) -> None:
        """Add the next prices, each to the stream of its market, and the spread of each to
        `truth`.
        """
        rows: dict[str, dict[str, Fields]] = {}
        for _ in range(entries):
            self._at_us += STEP_US
            asset = self._chance.choice(ASSETS)
            symbol = f"{asset}_USDC{self._chance.choice(('', '_PERP'))}"
            bid = Decimal(self._chance.randrange(9000, 11000)) / 100
            fields = ticker(symbol, self._at_us, bid, self._at_us)
            entry_id = f"{self._at_us // 1000}-0"
            rows.setdefault(f"bookTicker.{symbol}", {})[entry_id] = fields
            self._held[symbol] = bid
            legs = [self._held.get(f"{asset}_USDC{leg}") for leg in ("_PERP", "")]
            if legs[0] is not None and legs[1] is not None:
                self.truth[asset].append(f"{legs[0] - legs[1]:.2f}")
        for stream, some in rows.items():
            self._bench.add(stream, some)

    def values(self, asset: str) -> list[str]:
        key = f"consumers:{{joined.{asset}}}:spread:values"
        return [f"{Decimal(row['spread']):.2f}" for _, row in self._bench.redis.xrange(key)]  # type: ignore[union-attr]
