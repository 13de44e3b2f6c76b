"""Where things stand, over REST: depth snapshots, and the account's orders, positions, balances.

Asked for at each (re)subscription and whenever a book turns out to be void. One stream is asked for
once at a time; the body goes to whoever takes it in, which places it exactly or says to ask again.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import structlog

from bridge.contract.streams import Stream, StreamType
from bridge.feed.budget import Urgency
from bridge.feed.rest import Rest, RestError, RestRefused
from bridge.pipeline.book import Join
from bridge.protocol.rest import BadBody
from bridge.runtime.backoff import Backoff

log = structlog.get_logger(__name__)

WORKERS = 4  # requests under way at once; the pace is the REST client's
CONCURRENT_TRIES = 5  # account bodies refetched while updates come in between
ACCOUNT: Mapping[StreamType, tuple[str, str]] = {  # path and instruction of what stands where
    StreamType.ORDER_UPDATE: ("/api/v1/orders", "orderQueryAll"),
    StreamType.POSITION_UPDATE: ("/api/v1/position", "positionQuery"),
    StreamType.BALANCE_UPDATE: ("/api/v1/capital", "balanceQuery"),
}


class TakesBodies(Protocol):
    """Whoever REST bodies go to."""

    def rest_body(self, name: str, text: bytes) -> Join: ...

    def heard(self, name: str) -> int: ...


class Snapshots:
    """Fetches what is wanted. `want` may be called from anywhere on the loop."""

    def __init__(
        self,
        hearing: TakesBodies,
        rest: Rest,
        *,
        depth_levels: int,
        new_backoff: Callable[[], Backoff],
    ) -> None:
        self._hearing = hearing
        self._rest = rest
        self._depth_levels = depth_levels
        self._new_backoff = new_backoff
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
            if stream.type in ACCOUNT:
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
                body = await (
                    self._account(stream) if stream.type in ACCOUNT else self._depth(stream)
                )
                if self._hearing.rest_body(stream.name, body) is not Join.TOO_OLD:
                    return
            except RestRefused as refused:
                log.warning("snapshot_refused", stream=stream.name, reason=str(refused))
                return
            except (RestError, BadBody) as error:
                log.warning("snapshot_failed", stream=stream.name, reason=str(error))
            await asyncio.sleep(backoff.next_s())

    async def _depth(self, stream: Stream) -> bytes:
        params = {"symbol": stream.symbol, "limit": str(self._depth_levels)}
        return await self._rest.get("/api/v1/depth", params, urgency=Urgency.DEPTH)

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
