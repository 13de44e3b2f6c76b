"""What streams have behind a position; of busy ones it is asked for before the batch before it is
handled, so that Redis works meanwhile.

To read changes nothing in Redis. What was asked for is of use only where each position is, by the
time it is wanted, the one from which it was asked for; else it is thrown away.
"""

import time
from collections.abc import Mapping, Sequence

from redis.asyncio import Redis
from redis.exceptions import RedisError

from consumers.kit.handling.entry import Entry, entries_by_key
from consumers.kit.redis.prefetch import PAUSE_S, Prefetch

Found = Mapping[str, Sequence[Entry]]
"""Entries by key, of keys that have some."""


async def read_behind(
    redis: Redis, positions: Mapping[str, str], count: int, block_ms: int | None
) -> Found:
    """At most `count` entries of each stream behind its position; keys of Redis. Waits so long for
    the first; None: not at all. Raises what the Redis client raises.
    """
    reading = Prefetch(redis)
    await reading.send(*_command(positions, count, block_ms))
    return entries_by_key(await reading.receive())


class ReadAhead:
    """At most one read at a time."""

    def __init__(self, redis: Redis) -> None:
        self._prefetch = Prefetch(redis)
        self._asked: tuple[Mapping[str, str], int] = ({}, 0)
        self._paused_until_s = 0.0

    async def ask(self, positions: Mapping[str, str], count: int) -> None:
        """Ask for `count` entries of each stream behind its position; keys of Redis. Never raises:
        without a connection for it, nothing is read ahead for a while.
        """
        if time.monotonic() < self._paused_until_s:
            return
        self._asked = positions, count
        try:
            await self._prefetch.send(*_command(positions, count, None))
        except RedisError:
            self._paused_until_s = time.monotonic() + PAUSE_S

    async def take(self, positions: Mapping[str, str], count: int) -> Found:
        """What was found; nothing where something else was asked for. Never raises."""
        if not self._prefetch.is_sent:
            return {}
        try:
            reply = await self._prefetch.receive()
        except RedisError:  # an outage may be over by now; if not, the next command meets it
            return {}
        return entries_by_key(reply) if self._asked == (positions, count) else {}

    async def drop(self, *, for_s: float = 0) -> None:
        """Do not wait for a reply any more. Where there was one to come, nothing is read ahead for
        so long.
        """
        if self._prefetch.is_sent:
            self._paused_until_s = time.monotonic() + for_s
            await self._prefetch.abandon()


def _command(
    positions: Mapping[str, str], count: int, block_ms: int | None
) -> tuple[str, *tuple[str | int, ...]]:
    wait = () if block_ms is None else ("BLOCK", block_ms)
    return ("XREAD", "COUNT", count, *wait, "STREAMS", *positions, *positions.values())
