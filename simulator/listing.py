"""The markets and their fixed properties: tick, step, first numbers, opening price.

Knows nothing of books or time. Any symbol of the exchange's form can be listed: well-known ones
have realistic properties, the rest get plausible ones derived from their name.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from enum import StrEnum


class MarketType(StrEnum):
    SPOT = "SPOT"
    PERP = "PERP"
    PREDICTION = "PREDICTION"


# How the margin of a position grows with its size.
IMF_FUNCTION = {"base": "0.02", "factor": "0.0001275", "type": "sqrt"}
MMF_FUNCTION = {"base": "0.0125", "factor": "0.0000765", "type": "sqrt"}


@dataclass(frozen=True, slots=True)
class Listing:
    """The fixed properties of one market. Prices are in ticks, quantities in steps."""

    symbol: str
    base: str
    quote: str
    market_type: MarketType
    price_places: int
    quantity_places: int
    opening_price: int
    typical_quantity: int
    first_update_id: int
    first_trade_id: int
    rwa_type: str | None = None

    @property
    def has_mark_price(self) -> bool:
        return self.market_type is not MarketType.SPOT

    @property
    def highest_price(self) -> int:
        """The highest price of an order: below one on prediction markets, unlimited elsewhere."""
        if self.market_type is MarketType.PREDICTION:
            return int(10**self.price_places) - 1
        return self.opening_price * 100

    @property
    def gap(self) -> int:
        """The usual distance between two levels of the book, in ticks."""
        return max(1, self.opening_price // 20_000)


DEFAULT_SYMBOLS = (
    "SOL_USDC",
    "BTC_USDC",
    "ETH_USDC",
    "USDT_USDC",
    "SOL_USDC_PERP",
    "BTC_USDC_PERP",
    "kSHIB_USDC_PERP",
    "AAPL.US_USDC_PERP",
    "FDVEXTD1B_USDC_PREDICTION",
)
# The stocks quoted by stockPrice and stockIndicativeQuote, with their opening prices in cents.
STOCKS = {"NVDA": 18_790, "BRK.B": 49_125}
FORM = re.compile(r"([A-Za-z0-9.]+)_([A-Z0-9]+?)(?:_(PERP|PREDICTION))?")

# symbol: price places, quantity places, opening price, typical quantity, first update id, first
# trade id
_KNOWN = {
    "SOL_USDC": (2, 2, 9_897, 8_000, 4_330_360_994, 381_731_418),
    "BTC_USDC": (1, 5, 866_500, 40_000, 2_442_329_320, 128_400_311),
    "ETH_USDC": (2, 4, 368_052, 25_000, 1_345_937_435, 94_120_705),
    "USDT_USDC": (4, 0, 9_998, 4_000, 310_448_120, 7_401_226),
    "SOL_USDC_PERP": (2, 2, 9_893, 12_000, 5_118_204_511, 402_118_930),
    "BTC_USDC_PERP": (1, 5, 866_559, 90_000, 6_730_019_257, 99_419_869),
    "kSHIB_USDC_PERP": (6, 0, 12_345, 350_000, 1_204_889_013, 21_007_554),
    "AAPL.US_USDC_PERP": (2, 2, 34_043, 1_500, 6_789_928, 118_204),
    "FDVEXTD1B_USDC_PREDICTION": (3, 2, 412, 25_000, 88_190, 3_117),
}


def type_of(symbol: str) -> str:
    """The market type of a symbol; requests for quotes have symbols of their own."""
    suffix = symbol.rpartition("_")[2]
    return suffix if suffix in ("PERP", "PREDICTION", "RFQ") else "SPOT"


def listing(symbol: str) -> Listing:
    """The listing of a symbol. Raises ValueError for an invalid symbol."""
    found = FORM.fullmatch(symbol)
    if found is None:
        raise ValueError(f"{symbol!r} is not a market symbol (like SOL_USDC or SOL_USDC_PERP)")
    base, quote, suffix = found.groups()
    market_type = MarketType(suffix or "SPOT")
    facts = _KNOWN.get(symbol) or _derived(symbol, market_type)
    rwa_type = "STOCK" if base.endswith(".US") else None
    return Listing(symbol, base, quote, market_type, *facts, rwa_type=rwa_type)


def _derived(symbol: str, market_type: MarketType) -> tuple[int, int, int, int, int, int]:
    """Plausible properties of an unknown market: always the same for the same name."""
    number = zlib.crc32(symbol.encode())
    first_update_id = 10_000_000 + number % 3_000_000_000
    first_trade_id = 10_000 + number % 90_000_000
    if market_type is MarketType.PREDICTION:
        return 3, 2, 100 + number % 800, 25_000, first_update_id, first_trade_id
    return 3, 1, 1_000 + number % 90_000, 3_000, first_update_id, first_trade_id
