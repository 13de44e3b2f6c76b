"""What busy streams have behind a batch is asked for before that batch is handled, so that Redis
works meanwhile.

To read changes nothing in Redis. What was asked for is of use only where each position is, by the
time it is wanted, the one from which it was asked for; else it is thrown away.
"""

from collections.abc import Mapping
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from consumers.kit.redis.prefetch import Prefetch


class ReadAhead:
    """At most one read at a time."""

    def __init__(self, redis: Redis) -> None:
        self._prefetch = Prefetch(redis)
        self._asked: tuple[Mapping[str, str], int] = ({}, 0)

    async def ask(self, positions: Mapping[str, str], count: int) -> None:
        """Ask for `count` entries of each stream behind its position; keys of Redis. Raises what
        the Redis client raises.
        """
        self._asked = positions, count
        await self._prefetch.send(
            "XREAD", "COUNT", count, "STREAMS", *positions, *positions.values()
        )

    async def take(self, positions: Mapping[str, str], count: int) -> Any:
        """The reply, as of `xread`; None where there is none, nothing was found, or something else
        asked for. Never raises.
        """
        if not self._prefetch.is_sent:
            return None
        try:
            reply = await self._prefetch.receive()
        except RedisError:  # an outage may be over by now; if not, the next command meets it
            return None
        return reply or None if self._asked == (positions, count) else None

    async def drop(self) -> None:
        """Do not wait for a reply any more."""
        if self._prefetch.is_sent:
            await self._prefetch.abandon()
