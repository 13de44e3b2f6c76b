"""Reads from a replica, as long as it is fresh; else from the primary.

Fresh is a replica that follows its primary and has all that the primary had at the look before, a
second ago: its offset in the writes of the set says so (`ROLE`). One that is behind, frozen or gone
is passed by, and looked at again later. Nothing is ever written through it.
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

COMMAND_TIMEOUT_S = 2.0  # of connections to a replica: after that the primary is asked
CHECK_EVERY_S = 1.0
REST_S, LONGEST_REST_S = 5.0, 60.0  # for one that is of no use; longer and longer
_LOST = (RedisConnectionError, RedisTimeoutError, OSError, TimeoutError)


def is_fresh(reply: object, offset: int | None) -> bool:
    """Does a replica that answers this to ROLE follow its primary, and has it what that had written
    at this offset (None: not known)?
    """
    return offset is not None and follows(reply) and offset_in(reply) >= offset


class _Pair:
    """One shard's primary and replica."""

    def __init__(self, primary: Redis, replica: Redis) -> None:
        self.is_fresh = False
        self._primary = primary
        self._replica = replica
        self._check_at_s = 0.0
        self._offset: int | None = None  # of the primary, at the last look
        self._rest_s = REST_S

    @property
    def client(self) -> Redis:
        return self._replica if self.is_fresh else self._primary

    async def check(self) -> None:
        """Is the replica fresh? Not before a second look."""
        now_s = time.monotonic()
        if now_s < self._check_at_s:
            return
        known, self._offset = self._offset, None
        self._check_at_s = now_s + CHECK_EVERY_S
        try:
            theirs = await self._replica.execute_command("ROLE")  # type: ignore[no-untyped-call]
            self.is_fresh = is_fresh(theirs, known)
            if not follows(theirs) or (known is not None and not self.is_fresh):
                await self._leave_it()
            ours = await self._primary.execute_command("ROLE")  # type: ignore[no-untyped-call]
            self._offset = offset_in(ours)
            self._rest_s = REST_S
        except (RedisError, *_LOST):
            self.rest()

    async def _leave_it(self) -> None:
        """It is a primary now, or behind: the next connection may be to another one."""
        pool = self._replica.connection_pool
        await pool.disconnect(inuse_connections=False)
        await pool.update_active_connections_for_reconnect()  # type: ignore[no-untyped-call]

    def rest(self) -> None:
        """It is of no use now."""
        self.is_fresh, self._offset = False, None
        self._check_at_s = time.monotonic() + self._rest_s
        self._rest_s = min(2 * self._rest_s, LONGEST_REST_S)


class FreshReads:
    """Which client to read with: of a replica, or of the primary where that is not fresh, or where
    there is none. Of several shards, for each of them.
    """

    def __init__(self, primary: Redis, replica: Redis | None = None) -> None:
        self._primary = primary
        self._pairs: Sequence[_Pair] = (
            []
            if replica is None
            else [_Pair(*both) for both in zip(shards_of(primary), shards_of(replica), strict=True)]
        )

    async def client(self) -> Redis:
        """The one to read with now. Looks at a replica once a second, and no oftener."""
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

    async def read(self, ask: Callable[[Redis], Awaitable[T]]) -> T:
        """What is asked; once more of the primary, where a replica does not answer."""
        client = await self.client()
        if client is self._primary:
            return await ask(client)
        try:
            return await ask(client)
        except _LOST:
            self.rest()
            return await ask(self._primary)

    async def read_in_part(
        self, ask: Callable[[Redis, dict[int, str]], Awaitable[T]]
    ) -> tuple[T, dict[int, str]]:
        """The same where one shard that does not answer is told of and holds up no other: which
        these are, and why. A replica that does not answer is no shard that is away.
        """
        client = await self.client()
        if client is not self._primary:
            away: dict[int, str] = {}
            with contextlib.suppress(*_LOST):
                told = await ask(client, away)
                if not away:
                    return told, away
            self.rest()
        away = {}
        return await ask(self._primary, away), away

    def rest(self) -> None:
        """What was asked was not answered: the primary is asked for a while."""
        for pair in self._pairs:
            pair.rest()
