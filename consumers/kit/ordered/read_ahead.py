"""Reads of streams after a position; for busy streams the next read is sent before the current
batch is handled, so that Redis works in the meantime.

XREAD changes nothing in Redis, so a reply that is not needed is discarded: it is used only if every
position is still the one from which it was read.
"""

import time
from collections.abc import Mapping, Sequence

from redis.asyncio import Redis
from redis.exceptions import RedisError

from consumers.kit.handling.entry import Entry, entries_by_key
from consumers.kit.redis.prefetch import PAUSE_S, Prefetch

Found = Mapping[str, Sequence[Entry]]
"""Key → entries, for keys that have entries."""


async def read_behind(
    redis: Redis, positions: Mapping[str, str], count: int, block_ms: int | None
) -> Found:
    """At most `count` entries per stream after its position (Redis key → ID). Blocks for `block_ms`
    until the first one; None: not at all. Raises what the Redis client raises.
    """
    reading = Prefetch(redis)
    await reading.send(*_command(positions, count, block_ms))
    return entries_by_key(await reading.receive())


class ReadAhead:
    """Sends a read ahead of its use; at most one at a time."""

    def __init__(self, redis: Redis) -> None:
        self._prefetch = Prefetch(redis)
        self._request: tuple[Mapping[str, str], int] = ({}, 0)
        self._paused_until_s = 0.0

    async def send(self, positions: Mapping[str, str], count: int) -> None:
        """Send a read of `count` entries per stream after its position (Redis key → ID). Never
        raises: after a failure, nothing is read ahead for PAUSE_S.
        """
        if time.monotonic() < self._paused_until_s:
            return
        self._request = positions, count
        try:
            await self._prefetch.send(*_command(positions, count, None))
        except RedisError:
            self._paused_until_s = time.monotonic() + PAUSE_S

    async def take(self, positions: Mapping[str, str], count: int) -> Found:
        """The entries that were read; none if the request was another one. Never raises."""
        if not self._prefetch.is_sent:
            return {}
        try:
            reply = await self._prefetch.receive()
        except RedisError:  # an outage may be over by now; if not, the next command fails
            return {}
        return entries_by_key(reply) if self._request == (positions, count) else {}

    async def drop(self, *, for_s: float = 0) -> None:
        """Discard the reply, if a read was sent; then nothing is read ahead for `for_s` seconds."""
        if self._prefetch.is_sent:
            self._paused_until_s = time.monotonic() + for_s
            await self._prefetch.abandon()


def _command(
    positions: Mapping[str, str], count: int, block_ms: int | None
) -> tuple[str, *tuple[str | int, ...]]:
    wait = () if block_ms is None else ("BLOCK", block_ms)
    return ("XREAD", "COUNT", count, *wait, "STREAMS", *positions, *positions.values())
