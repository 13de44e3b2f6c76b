"""Reads from a replica while it is fresh; else from the primary.

A replica is fresh if it follows its primary and has all that the primary had at the check before, a
second ago, by the replication offsets of `ROLE`. One that lags, hangs or has failed is not used,
and checked again later. Nothing is ever written through a replica.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from bridge.runtime.primary import follows, offset_in
from bridge.runtime.redis_shards import ShardedRedis, shards_of

T = TypeVar("T")

COMMAND_TIMEOUT_S = 2.0  # of connections to a replica: after that the primary is read
CHECK_EVERY_S = 1.0
REST_S, LONGEST_REST_S = 5.0, 60.0  # pause before an unusable replica is checked; doubles
_LOST = (RedisConnectionError, RedisTimeoutError, OSError, TimeoutError)


def is_fresh(reply: object, offset: int | None) -> bool:
    """Whether this reply to ROLE is of a replica that follows its primary and has reached the
    primary's `offset` (None: not known).
    """
    return offset is not None and follows(reply) and offset_in(reply) >= offset


class _Pair:
    """One shard's primary and replica."""

    def __init__(self, primary: Redis, replica: Redis) -> None:
        self.is_fresh = False
        self._primary = primary
        self._replica = replica
        self._check_at_s = 0.0
        self._offset: int | None = None  # the primary's, at the last check
        self._rest_s = REST_S

    @property
    def client(self) -> Redis:
        return self._replica if self.is_fresh else self._primary

    async def check(self) -> None:
        """Update `is_fresh`; two checks are needed, since the first only records the offset."""
        now_s = time.monotonic()
        if now_s < self._check_at_s:
            return
        known, self._offset = self._offset, None
        self._check_at_s = now_s + CHECK_EVERY_S
        try:
            replica_role = await self._replica.execute_command("ROLE")  # type: ignore[no-untyped-call]
            self.is_fresh = is_fresh(replica_role, known)
            if not follows(replica_role) or (known is not None and not self.is_fresh):
                await self._drop_connections()
            primary_role = await self._primary.execute_command("ROLE")  # type: ignore[no-untyped-call]
            self._offset = offset_in(primary_role)
            self._rest_s = REST_S
        except (RedisError, *_LOST):
            self.rest()

    async def _drop_connections(self) -> None:
        """Close the connections: the server lags or is a primary now; reconnect to any replica."""
        pool = self._replica.connection_pool
        await pool.disconnect(inuse_connections=False)
        await pool.update_active_connections_for_reconnect()  # type: ignore[no-untyped-call]

    def rest(self) -> None:
        """Stop using the replica for a while."""
        self.is_fresh, self._offset = False, None
        self._check_at_s = time.monotonic() + self._rest_s
        self._rest_s = min(2 * self._rest_s, LONGEST_REST_S)


class FreshReads:
    """Chooses the client for reads: the replica's, or the primary's where the replica is not fresh
    or there is none. With several shards, for each of them.
    """

    def __init__(self, primary: Redis, replica: Redis | None = None) -> None:
        self._primary = primary
        self._pairs: Sequence[_Pair] = (
            []
            if replica is None
            else [_Pair(*both) for both in zip(shards_of(primary), shards_of(replica), strict=True)]
        )

    async def client(self) -> Redis:
        """The client to read with now. Checks a replica once a second at most."""
        if not self._pairs:
            return self._primary
        async with asyncio.TaskGroup() as tasks:
            for pair in self._pairs:
                tasks.create_task(pair.check())
        if not any(pair.is_fresh for pair in self._pairs):
            return self._primary
        if isinstance(self._primary, ShardedRedis):
            return self._primary.with_shards([pair.client for pair in self._pairs])
        return self._pairs[0].client

    async def read(self, query: Callable[[Redis], Awaitable[T]]) -> T:
        """The result of `query`; repeated on the primary, where a replica does not answer."""
        client = await self.client()
        if client is self._primary:
            return await query(client)
        try:
            return await query(client)
        except _LOST:
            self.rest()
            return await query(self._primary)

    async def read_in_part(
        self, query: Callable[[Redis, dict[int, str]], Awaitable[T]]
    ) -> tuple[T, dict[int, str]]:
        """As `read`, but a shard that does not answer stops no other: the second value maps its
        number to the reason. A failed replica alone does not make its shard unavailable.
        """
        client = await self.client()
        if client is not self._primary:
            unavailable: dict[int, str] = {}
            with contextlib.suppress(*_LOST):
                result = await query(client, unavailable)
                if not unavailable:
                    return result, unavailable
            self.rest()
        unavailable = {}
        return await query(self._primary, unavailable), unavailable

    def rest(self) -> None:
        """A read from replicas failed: use the primaries for a while."""
        for pair in self._pairs:
            pair.rest()
