"""Where things stand, over REST: depth snapshots, and the account's orders, positions, balances.

Asked for at each (re)subscription and whenever a book turns out to be void. One stream is asked for
once at a time; the body goes to the intake, which places it exactly or says to ask again.
"""

import asyncio
from collections.abc import Callable, Sequence

import structlog

from bridge.contract.events import BalancesSnapshot, Event, OrdersSnapshot, PositionsSnapshot
from bridge.contract.streams import Stream, StreamType
from bridge.feed.rest import Rest, RestError, RestRefused
from bridge.pipeline.book import Join
from bridge.pipeline.intake import Intake
from bridge.protocol.rest import (
    BadBody,
    balances_rows,
    depth_body,
    orders_rows,
    positions_rows,
)
from bridge.runtime.backoff import Backoff

log = structlog.get_logger(__name__)

WORKERS = 4  # requests under way at once; the pace is the REST client's
CONCURRENT_TRIES = 5  # account bodies refetched while updates come in between
ACCOUNT_TYPES = (StreamType.ORDER_UPDATE, StreamType.POSITION_UPDATE, StreamType.BALANCE_UPDATE)


class Snapshots:
    """Fetches what is wanted. `want` may be called from anywhere on the loop."""

    def __init__(
        self,
        intake: Intake,
        rest: Rest,
        *,
        depth_levels: int,
        clock_us: Callable[[], int],
        new_backoff: Callable[[], Backoff],
        on_items: Callable[[], None],
    ) -> None:
        self._intake = intake
        self._rest = rest
        self._depth_levels = depth_levels
        self._clock_us = clock_us
        self._new_backoff = new_backoff
        self._on_items = on_items
        self._queue: asyncio.Queue[Stream] = asyncio.Queue()  # bounded by the number of streams
        self._wanted: set[str] = set()

    def want(self, stream: Stream) -> None:
        """Fetch where this stream stands, soon."""
        if stream.name not in self._wanted:
            self._wanted.add(stream.name)
            self._queue.put_nowait(stream)

    def want_account(self, streams: Sequence[Stream]) -> None:
        """A private connection (re)subscribed: fetch where its streams stand."""
        for stream in streams:
            if stream.type in ACCOUNT_TYPES:
                self.want(stream)

    async def run(self) -> None:
        """Fetch until cancelled."""
        async with asyncio.TaskGroup() as workers:
            for number in range(WORKERS):
                workers.create_task(self._work(), name=f"snapshots-{number}")

    async def _work(self) -> None:
        while True:
            stream = await self._queue.get()
            self._wanted.discard(stream.name)
            await self._fetch(stream)

    async def _fetch(self, stream: Stream) -> None:
        """Ask until it is placed; a refusal is reported, the stream then goes on without."""
        backoff = self._new_backoff()
        while True:
            try:
                if stream.type is StreamType.DEPTH:
                    done = await self._depth(stream)
                else:
                    done = await self._account(stream)
            except RestRefused as refused:
                log.warning("snapshot_refused", stream=stream.name, reason=str(refused))
                return
            except (RestError, BadBody) as error:
                log.warning("snapshot_failed", stream=stream.name, reason=str(error))
                done = False
            if done:
                self._on_items()
                return
            await asyncio.sleep(backoff.next_s())

    async def _depth(self, stream: Stream) -> bool:
        params = {"symbol": stream.symbol, "limit": str(self._depth_levels)}
        body = depth_body(await self._rest.get("/api/v1/depth", params))
        now_us = self._clock_us()
        joined = self._intake.depth_body(
            stream.name, body.last_update_id, body.bids, body.asks, now_us
        )
        return joined is not Join.TOO_OLD

    async def _account(self, stream: Stream) -> bool:
        """A body read while an update came in may be older than it: read again then."""
        line = self._intake.lines[stream.name]
        for _ in range(CONCURRENT_TRIES):
            before = line.heard
            event = await self._account_event(stream)
            if line.heard == before:
                break
        self._intake.put_own(stream.name, event, self._clock_us())
        return True

    async def _account_event(self, stream: Stream) -> Event:
        scope = {"symbol": stream.symbol} if stream.symbol else {}
        get = self._rest.get_signed
        common = {"symbol": stream.symbol or None, "received_us": self._clock_us()}
        match stream.type:
            case StreamType.ORDER_UPDATE:
                rows = orders_rows(await get("/api/v1/orders", "orderQueryAll", scope))
                return OrdersSnapshot.model_validate({"orders": rows, **common})
            case StreamType.POSITION_UPDATE:
                rows = positions_rows(await get("/api/v1/position", "positionQuery", scope))
                return PositionsSnapshot.model_validate({"positions": rows, **common})
            case _:
                rows = balances_rows(await get("/api/v1/capital", "balanceQuery"))
                return BalancesSnapshot.model_validate({"balances": rows, **common})
