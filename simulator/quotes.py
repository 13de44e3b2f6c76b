"""Stock quotes as a provider sends them: `stockPrice` and `stockIndicativeQuote`.

Pure. These are not markets of the exchange: no book, no trades, long key names, times in
milliseconds.
"""

from __future__ import annotations

import random

from simulator.decimals import padded, trimmed
from simulator.events import StockIndicativeQuote, StockPrice
from simulator.listing import STOCKS
from simulator.tape import Tape

PLACES = 2
SESSION = "Regular"
SOURCE_DELAY_MS = 40


class Stocks:
    """The quoted stocks and their current prices."""

    def __init__(self, draw: random.Random) -> None:
        self._draw = draw
        self._middle = dict(STOCKS)

    def emit(self, tape: Tape) -> None:
        """Emit each stock's quote and indicative quote; called once a second."""
        source_ms = tape.engine_us // 1000 - SOURCE_DELAY_MS
        for ticker in self._middle:
            self._middle[ticker] += self._draw.randrange(-6, 7)
            middle = self._middle[ticker]
            bid, ask = middle - 1, middle + self._draw.randrange(1, 4)
            tape.write(
                StockPrice(
                    (f"stockPrice.{ticker}",),
                    tape.stamp(),
                    ticker,
                    padded(bid, PLACES),
                    padded(ask, PLACES),
                    trimmed((bid + ask) * 5, PLACES + 1),
                    source_ms,
                    SESSION,
                )
            )
            tape.write(
                StockIndicativeQuote(
                    (f"stockIndicativeQuote.{ticker}",),
                    tape.stamp(),
                    ticker,
                    padded(bid, PLACES),
                    padded(ask, PLACES),
                    padded(bid - 3, PLACES),
                    padded(ask + 3, PLACES),
                    source_ms,
                    SESSION,
                )
            )
