"""Keeps the connections alive: spreads streams over them, connects again and again."""

import asyncio
from collections.abc import Sequence

import structlog

from bridge.contract.streams import Stream
from bridge.feed.connection import Connection, FeedLost
from bridge.runtime.backoff import Backoff

log = structlog.get_logger(__name__)

GOOD_FRAMES = 10  # a connection that brought so many frames was a good one


def spread(streams: Sequence[Stream], connections: int) -> list[list[Stream]]:
    """Public streams over so many connections, evenly; private ones on a connection of their own.

    The streams of one market stay together: they tick together.
    """
    public = [stream for stream in streams if not stream.is_private]
    markets = sorted({stream.symbol for stream in public})
    turn = {symbol: number % connections for number, symbol in enumerate(markets)}
    groups: list[list[Stream]] = [[] for _ in range(connections)]
    for stream in public:
        groups[turn[stream.symbol]].append(stream)
    groups.append([stream for stream in streams if stream.is_private])
    return [group for group in groups if group]


class Supervisor:
    """Runs one connection for ever."""

    def __init__(self, connection: Connection, backoff: Backoff) -> None:
        self.connection = connection
        self._backoff = backoff

    async def run(self) -> None:
        """Connect, hear, reconnect; until cancelled."""
        while True:
            try:
                await self.connection.run_once()
            except FeedLost as lost:
                await self._after(lost)

    async def _after(self, lost: FeedLost) -> None:
        state = self.connection.state
        if state.frames >= GOOD_FRAMES:
            self._backoff.reset()
        state.frames = 0
        delay_s = self._backoff.next_s()
        state.trouble = str(lost)
        log.warning(
            "feed_lost", connection=state.name, reason=str(lost), reconnect_s=round(delay_s, 2)
        )
        await asyncio.sleep(delay_s)
