"""What is asked over REST, and for which streams it is under way: one asking for each at a time.

Asked for: at each (re)subscription and after a hole where a book stands, trades that are missing,
and where the account stands. What comes goes to whoever takes it in, which says whether it will do.
"""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

from bridge.contract.streams import Stream, StreamType
from bridge.feed.fills import Fills
from bridge.feed.history import History
from bridge.feed.rest import Rest
from bridge.feed.snapshots import ACCOUNT, Snapshots
from bridge.pipeline.book import Join
from bridge.pipeline.trade_holes import Reach
from bridge.runtime.backoff import Backoff
from bridge.runtime.tending import tended


class TakesBodies(Protocol):
    """Whoever REST bodies go to."""

    def rest_body(self, name: str, text: bytes, what: str = "") -> Join | Reach | None: ...

    def missing_trades(self, name: str) -> int | None: ...

    def missing_fills(self, name: str) -> tuple[int, int] | None: ...

    def misses_book(self, name: str) -> bool: ...

    def is_wanted(self, name: str) -> bool: ...

    def heard(self, name: str) -> int: ...


class Asking:
    """Asks for what is wanted. `want` may be called from anywhere on the loop."""

    def __init__(
        self,
        hearing: TakesBodies,
        rest: Rest,
        *,
        depth_levels: int,
        new_backoff: Callable[[], Backoff],
        new_late_backoff: Callable[[], Backoff],
    ) -> None:
        """`new_late_backoff`: for what was refused."""
        self._snapshots = Snapshots(
            hearing,
            rest,
            depth_levels=depth_levels,
            new_backoff=new_backoff,
            new_late_backoff=new_late_backoff,
        )
        self._new_backoff = new_backoff
        self._history = History(hearing, rest, new_backoff=new_backoff)
        self._queue: asyncio.Queue[Stream] = asyncio.Queue()  # bounded by the number of streams
        self._fills = Fills(
            hearing, rest, new_backoff=new_backoff, new_late_backoff=new_late_backoff
        )
        self._standing: set[str] = set()  # private streams: where they stand is wanted
        self._again: dict[str, asyncio.Event] = {}  # of those under way: wanted once more

    def want(self, stream: Stream) -> None:
        """Something of this stream is missing: ask for it soon."""
        if stream.name in self._again:
            self._again[stream.name].set()
        else:
            self._again[stream.name] = asyncio.Event()
            self._queue.put_nowait(stream)

    def want_account(self, streams: Sequence[Stream]) -> None:
        """A private connection (re)subscribed: ask where its streams stand."""
        for stream in streams:
            if stream.type in ACCOUNT:
                self._standing.add(stream.name)
                self.want(stream)

    async def run(self) -> None:
        """Ask until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                stream = await self._queue.get()
                name = f"asking-{stream.name}"
                work = partial(self._serve, stream)
                tasks.create_task(tended(name, work, self._new_backoff()), name=name)

    async def _serve(self, stream: Stream) -> None:
        again = self._again[stream.name]
        again.set()
        while again.is_set():
            again.clear()
            if stream.type is StreamType.TRADE:
                await self._history.fetch(stream)
            elif stream.type is StreamType.DEPTH:
                await self._snapshots.fetch_book(stream, again)
            else:
                await self._account(stream, again)
        del self._again[stream.name]

    async def _account(self, stream: Stream, again: asyncio.Event) -> None:
        """What was missed first, then where it stands."""
        if stream.type is StreamType.ORDER_UPDATE:
            await self._fills.fetch(stream)
        if stream.name in self._standing:
            self._standing.discard(stream.name)
            is_had = False
            try:
                is_had = await self._snapshots.fetch_account(stream, again)
            finally:
                if not is_had:
                    self._standing.add(stream.name)  # it is wanted still
