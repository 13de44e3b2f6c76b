"""Where things stand, over REST: depth snapshots, and the account's orders, positions, balances.

The body goes to whoever takes it in, which places it exactly or says to ask again.
"""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Protocol

import structlog

from bridge.contract.streams import Stream, StreamType
from bridge.feed.budget import Urgency
from bridge.feed.refusals import Refusals
from bridge.feed.rest import Rest, RestError, RestRefused
from bridge.pipeline.book import QUIET_US, Join
from bridge.pipeline.trade_holes import Reach
from bridge.protocol.rest import BadBody
from bridge.runtime.backoff import Backoff

log = structlog.get_logger(__name__)

QUIET_S = QUIET_US / 1e6 + 0.1
CONCURRENT_TRIES = 5  # account bodies refetched while updates come in between
ACCOUNT: Mapping[StreamType, tuple[str, str]] = {  # path and instruction of what stands where
    StreamType.ORDER_UPDATE: ("/api/v1/orders", "orderQueryAll"),
    StreamType.POSITION_UPDATE: ("/api/v1/position", "positionQuery"),
    StreamType.BALANCE_UPDATE: ("/api/v1/capital", "balanceQuery"),
}


class TakesBodies(Protocol):
    """Whoever REST bodies go to."""

    def rest_body(self, name: str, text: bytes, what: str = "") -> Join | Reach | None: ...

    def misses_book(self, name: str) -> bool: ...

    def is_wanted(self, name: str) -> bool: ...

    def heard(self, name: str) -> int: ...


class Snapshots:
    """Fetches where streams stand."""

    def __init__(
        self,
        hearing: TakesBodies,
        rest: Rest,
        *,
        depth_levels: int,
        new_backoff: Callable[[], Backoff],
        new_late_backoff: Callable[[], Backoff],
    ) -> None:
        self._hearing = hearing
        self._rest = rest
        self._depth_levels = depth_levels
        self._new_backoff = new_backoff
        self._new_late_backoff = new_late_backoff

    async def fetch_book(self, stream: Stream, again: asyncio.Event) -> None:
        """Ask until the book is known, or no connection is to hear it: the next one has it asked
        for anew. Where it is ahead of what was heard, that may come yet; where nothing moves, a
        second reply that says the same settles it, so neither may be that of a cache. `again`: it
        is wanted anew.
        """
        backoff = self._new_backoff()
        refusals = Refusals("snapshot_refused", stream.name, self._new_late_backoff())
        while self._hearing.misses_book(stream.name):
            try:
                params = {"symbol": stream.symbol, "limit": str(self._depth_levels)}
                body = await self._rest.get(
                    "/api/v1/depth", params, urgency=Urgency.DEPTH, fresh=True
                )
                joined = self._hearing.rest_body(stream.name, body)
            except RestRefused as refused:
                if refusals.is_hopeless(refused):
                    refusals.give_up(refused)
                    return
                await _either(again, refusals.take(refused))
                again.clear()
                continue
            except (RestError, BadBody) as error:
                log.warning("snapshot_failed", stream=stream.name, reason=str(error))
                joined = Join.TOO_OLD
            if joined is None:
                return  # it is in the journal, and heard when its turn comes
            if joined is Join.AHEAD:
                await _either(again, QUIET_S)
                again.clear()
            elif joined is Join.TOO_OLD:
                await asyncio.sleep(backoff.next_s())

    async def fetch_account(self, stream: Stream, again: asyncio.Event) -> bool:
        """Ask until it is had, or refused for good: the stream then goes on without; or until no
        connection is to hear it: the next one has it asked for anew. False: it was refused, and
        something is wanted anew meanwhile.
        """
        backoff = self._new_backoff()
        refusals = Refusals("snapshot_refused", stream.name, self._new_late_backoff())
        while self._hearing.is_wanted(stream.name):
            try:
                self._hearing.rest_body(stream.name, await self._account(stream))
                return True
            except RestRefused as refused:
                if refusals.is_hopeless(refused):
                    refusals.give_up(refused)
                    return True
                await _either(again, refusals.take(refused))
                if again.is_set():
                    return False
                continue
            except (RestError, BadBody) as error:
                log.warning("snapshot_failed", stream=stream.name, reason=str(error))
            await asyncio.sleep(backoff.next_s())
        return True

    async def _account(self, stream: Stream) -> bytes:
        """A body read while an update came in may be older than it: read again then."""
        path, instruction = ACCOUNT[stream.type]
        scoped = stream.symbol and stream.type is not StreamType.BALANCE_UPDATE
        scope = {"symbol": stream.symbol} if scoped else {}
        body = b""
        for _ in range(CONCURRENT_TRIES):
            before = self._hearing.heard(stream.name)
            body = await self._rest.get_signed(path, instruction, scope)
            if self._hearing.heard(stream.name) == before:
                break
        return body


async def _either(event: asyncio.Event, limit_s: float) -> None:
    """Until it happens, or for so long."""
    with suppress(TimeoutError):
        async with asyncio.timeout(limit_s):
            await event.wait()
