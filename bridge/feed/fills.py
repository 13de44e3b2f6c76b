"""The account's fills that were missed while nobody listened, from its history.

They are asked for from a little before the account was heard last until a little after it was heard
again, the oldest first. What is in the stream already is told there, by trade id.
"""

import asyncio
from collections.abc import Callable
from typing import Protocol

import structlog

from bridge.contract.streams import Stream
from bridge.feed.refusals import Refusals
from bridge.feed.rest import Rest, RestError, RestRefused
from bridge.pipeline.book import Join
from bridge.pipeline.missing import END, FILLS
from bridge.pipeline.trade_holes import Reach
from bridge.protocol.rest import BadBody, row_count
from bridge.runtime.backoff import Backoff

log = structlog.get_logger(__name__)

PATH, INSTRUCTION = "/wapi/v1/history/fills", "fillHistoryQueryAll"
PAGE = 1_000
DEEPEST = 10_000  # offset + limit may not be more
MOST_REFUSALS = 5  # where the account stands waits for them
# The exchange's clocks differ from each other; and from ours, as long as its own is not known: then
# by as much as a signature may be off.
MARGIN_US = 5_000_000


class TakesFills(Protocol):
    """Whoever pages of fills go to."""

    def rest_body(self, name: str, text: bytes, what: str = "") -> Join | Reach | None: ...

    def missing_fills(self, name: str) -> tuple[int, int] | None: ...


class Fills:
    """Fetches what an order stream may have missed."""

    def __init__(
        self,
        hearing: TakesFills,
        rest: Rest,
        *,
        new_backoff: Callable[[], Backoff],
        new_late_backoff: Callable[[], Backoff],
    ) -> None:
        self._hearing = hearing
        self._rest = rest
        self._new_backoff = new_backoff
        self._new_late_backoff = new_late_backoff

    async def fetch(self, stream: Stream) -> None:
        """Ask until all is had; where it stays refused the stream goes on without."""
        backoff = self._new_backoff()
        refusals = Refusals("fills_refused", stream.name, self._new_late_backoff())
        while (deaf := self._hearing.missing_fills(stream.name)) is not None:
            try:
                await self._walk(stream, *deaf)
            except RestRefused as refused:
                if not refused.is_final and refusals.count < MOST_REFUSALS:
                    await asyncio.sleep(refusals.take(refused))
                    continue
                refusals.give_up(refused)
            except (RestError, BadBody) as error:
                log.warning("fills_failed", stream=stream.name, reason=str(error))
                await asyncio.sleep(backoff.next_s())
                continue
            if self._hearing.rest_body(stream.name, b"[]", END) is None:
                return  # it is in the journal, and heard when its turn comes

    async def _walk(self, stream: Stream, from_us: int, to_us: int) -> None:
        """What is later was heard, and tells more than history does."""
        first_ms, last_ms = max(0, from_us - MARGIN_US) // 1000, (to_us + MARGIN_US) // 1000
        params = {"from": str(first_ms), "to": str(last_ms), "sortDirection": "Asc"}
        if stream.symbol:
            params["symbol"] = stream.symbol
        for offset in range(0, DEEPEST, PAGE):
            page = params | {"limit": str(PAGE), "offset": str(offset)}
            body = await self._rest.get_signed(PATH, INSTRUCTION, page)
            rows = row_count(body)  # before it is taken in: the journal keeps it unread
            self._hearing.rest_body(stream.name, body, FILLS)
            if rows < PAGE:
                return
        log.error("fills_too_many", stream=stream.name, fetched=DEEPEST)
