"""Follows the exchange's list of markets.

A market is removed only when it is missing twice in succession: a list may be incomplete, and to
unsubscribe from a stream makes an outage.
"""

import asyncio

import structlog

from bridge.feed.rest import Rest, RestError
from bridge.runtime.backoff import Backoff
from bridge.runtime.markets import PATH, Market, Markets, read_markets

log = structlog.get_logger(__name__)

MISSING_TWICE = 2


class Instruments:
    """`markets` is empty until the list is read; `trouble`: why the last request failed; `changed`
    is set when the markets have changed.
    """

    def __init__(self, every_s: float, backoff: Backoff) -> None:
        self.markets: Markets = {}
        self.trouble = ""
        self.changed = asyncio.Event()
        self._every_s = every_s
        self._backoff = backoff
        self._missing: dict[str, int] = {}

    async def run(self, rest: Rest) -> None:
        """Read the list repeatedly, until cancelled."""
        while True:
            pause_s = await self._read(rest)
            await asyncio.sleep(pause_s)

    async def _read(self, rest: Rest) -> float:
        """Read the list. Returns the pause before the next request, in seconds."""
        try:
            listed = read_markets(await rest.get(PATH, fresh=True))
        except (RestError, ValueError) as error:
            if not self.trouble:
                log.warning("markets_unreadable", reason=str(error))
            self.trouble = str(error)
            return min(self._backoff.next_s(), self._every_s)
        self.trouble = ""
        self._backoff.reset()
        self.take(listed)
        return self._every_s

    def take(self, listed: Markets) -> None:
        """Take a list."""
        kept: dict[str, Market] = dict(listed)
        for symbol, market in self.markets.items():
            if symbol in listed:
                self._missing.pop(symbol, None)
                continue
            self._missing[symbol] = self._missing.get(symbol, 0) + 1
            if self._missing[symbol] < MISSING_TWICE:
                kept[symbol] = market
            else:
                del self._missing[symbol]
        if kept != self.markets:
            self.markets = kept
            self.changed.set()
