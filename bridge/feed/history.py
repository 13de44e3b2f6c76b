"""Trades that were missed, from the exchange's history.

History cannot be asked by id or time, only by how far back from the newest: so page by page until
it reaches what is missing. Trades go on meanwhile and push the pages back, hence pages overlap. A
CDN may show an older history than what was heard: then it is asked again.
"""

import asyncio
from collections.abc import Callable
from typing import Protocol

import structlog

from bridge.contract.streams import Stream
from bridge.feed.budget import Urgency
from bridge.feed.refusals import Refusals
from bridge.feed.rest import Rest, RestError, RestRefused
from bridge.pipeline.book import Join
from bridge.pipeline.missing import END
from bridge.pipeline.trade_holes import Reach
from bridge.protocol.rest import BadBody
from bridge.runtime.backoff import Backoff

log = structlog.get_logger(__name__)

PATH = "/api/v1/trades/history"
DEEPEST = 10_000  # offset + limit may not be more
PAGE, SMALL_PAGE = 1_000, 100
OVERLAP = 20  # rows that two neighbouring pages share, and what may be traded while one is asked


class TakesTrades(Protocol):
    """Whoever pages of history go to."""

    def rest_body(self, name: str, text: bytes, what: str = "") -> Join | Reach | None: ...

    def missing_trades(self, name: str) -> int | None: ...


class History:
    """Fetches what trade streams miss, for as long as they wait for it."""

    def __init__(
        self, hearing: TakesTrades, rest: Rest, *, new_backoff: Callable[[], Backoff]
    ) -> None:
        self._hearing = hearing
        self._rest = rest
        self._new_backoff = new_backoff

    async def fetch(self, stream: Stream) -> None:
        """Ask until nothing is missing, or what is missing is waited for no longer."""
        backoff = self._new_backoff()
        refusals = Refusals("history_refused", stream.name, backoff)
        while self._hearing.missing_trades(stream.name) is not None:
            try:
                reach = await self._walk_back(stream)
            except RestRefused as refused:
                if refused.is_final:
                    refusals.give_up(refused)
                    self._hearing.rest_body(stream.name, b"[]", END)
                    return
                await asyncio.sleep(refusals.take(refused))
                continue
            except (RestError, BadBody) as error:
                log.warning("history_failed", stream=stream.name, reason=str(error))
                reach = Reach.STALE
            if reach is None:
                return  # it is in the journal, and heard when its turn comes
            if reach is Reach.STALE:
                await asyncio.sleep(backoff.next_s())

    async def _walk_back(self, stream: Stream) -> Reach | Join | None:
        """Page by page, from the newest trade back to what is missing."""
        offset = 0
        while (back := self._hearing.missing_trades(stream.name)) is not None:
            limit = SMALL_PAGE if offset + SMALL_PAGE - OVERLAP > back else PAGE
            limit = min(limit, DEEPEST - offset)
            if limit <= OVERLAP:
                return self._hearing.rest_body(stream.name, b"[]", END)
            params = {"symbol": stream.symbol, "limit": str(limit), "offset": str(offset)}
            body = await self._rest.get(PATH, params, urgency=Urgency.TRADES, fresh=True)
            reach = self._hearing.rest_body(stream.name, body)
            if reach is not Reach.DEEPER:
                return reach
            offset += limit - OVERLAP
        return Reach.DONE
