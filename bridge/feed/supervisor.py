"""Keeps the connections alive: spreads streams over them, reconnects, remembers what was missed."""

import asyncio
from collections.abc import Callable, Mapping, Sequence

import structlog

from bridge.contract.streams import Identity, Stream
from bridge.feed.connection import Connection, FeedLost
from bridge.pipeline.intake import Intake
from bridge.runtime.backoff import Backoff

log = structlog.get_logger(__name__)

GOOD_FRAMES = 10  # a connection that brought so many frames was a good one
NOT_RUNNING = "bridge was not running"
UNSURE_US = 1_000_000  # frames still under way when a connection broke


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
    """Runs one connection for ever and marks what it could not hear."""

    def __init__(
        self,
        connection: Connection,
        intake: Intake,
        backoff: Backoff,
        clock_us: Callable[[], int],
    ) -> None:
        self.connection = connection
        self._intake = intake
        self._backoff = backoff
        self._clock_us = clock_us
        # stream → up to when everything is known to have been heard; unnumbered streams only,
        # numbers tell of the others
        self._deaf_since_us: dict[str, int] = {}
        self._cause = ""
        self._first_heard_us = 0

    def resume(self, heard_us: Mapping[str, int]) -> None:
        """An earlier bridge has heard each stream up to here (µs): mark what lies between."""
        for stream in self.connection.streams:
            from_us = heard_us.get(stream.name)
            if from_us is None or stream.identity is Identity.NUMBERED:
                continue
            if self._first_heard_us:
                self._intake.deaf(
                    stream.name, from_us=from_us, to_us=self._first_heard_us, cause=NOT_RUNNING
                )
            else:
                self._cause = NOT_RUNNING
                self._deaf_since_us[stream.name] = from_us

    async def run(self) -> None:
        """Connect, hear, reconnect; until cancelled."""
        while True:
            try:
                await self.connection.run_once()
            except FeedLost as lost:
                await self._after(lost)

    def mark_deafness(self) -> None:
        """The connection hears again: mark from when to now nobody listened."""
        now_us = self._clock_us()
        self._first_heard_us = self._first_heard_us or now_us
        for name, from_us in self._deaf_since_us.items():
            self._intake.deaf(name, from_us=from_us, to_us=now_us, cause=self._cause)
        self._deaf_since_us = {}

    async def _after(self, lost: FeedLost) -> None:
        connection = self.connection
        state = connection.state
        if state.frames >= GOOD_FRAMES:
            self._backoff.reset()
        state.frames = 0
        self._intake.lost((stream.name for stream in connection.streams), "connection lost")
        self._remember_deafness()
        delay_s = self._backoff.next_s()
        state.trouble = str(lost)
        log.warning(
            "feed_lost", connection=state.name, reason=str(lost), reconnect_s=round(delay_s, 2)
        )
        await asyncio.sleep(delay_s)

    def _remember_deafness(self) -> None:
        newest_us = self.connection.ear.newest_us
        if not newest_us:
            return  # nothing heard on that connection: deaf since before it
        self._cause = "connection lost"
        for stream in self.connection.streams:
            if stream.identity is not Identity.NUMBERED:
                self._deaf_since_us.setdefault(stream.name, newest_us - UNSURE_US)
