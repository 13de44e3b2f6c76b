"""A command that Redis works on while this process does something else: sent now, read later.

The client's own calls send a command, wait for its reply in one, and make dicts of its entries.
Here the reply waits in the socket, on a connection that is taken from the client's pool for as
long, and is left as Redis sends it.
"""

from typing import Any

from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ResponseError

PAUSE_S = 60.0  # without it, after a failure meanwhile: it may be what takes the last connection


class Prefetch:
    """At most one command at a time. Raises what the client's own calls raise."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._connection: AbstractConnection | None = None

    @property
    def is_sent(self) -> bool:
        """Whether there is a reply to be received."""
        return self._connection is not None

    async def send(self, command: str, *arguments: str | int) -> None:
        """Send a command; its reply is for `receive`."""
        pool = self._redis.connection_pool
        self._connection = await pool.get_connection()  # type: ignore[no-untyped-call]
        try:
            await self._connection.send_command(command, *arguments)
        except BaseException:
            await self._give_back(is_in_step=False)
            raise

    async def receive(self) -> Any:
        """The reply, as Redis sends it: numbers, texts, and lists of them."""
        assert self._connection is not None, "nothing was sent"
        is_in_step = False
        try:
            reply = await self._connection.read_response()
            is_in_step = True
        except ResponseError:
            is_in_step = True  # an error is a whole reply: nothing of it is left in the socket
            raise
        finally:
            await self._give_back(is_in_step=is_in_step)
        return reply

    async def abandon(self) -> None:
        """The reply is not wanted any more, nor is its connection."""
        await self._give_back(is_in_step=False)

    async def _give_back(self, *, is_in_step: bool) -> None:
        connection, self._connection = self._connection, None
        assert connection is not None
        if not is_in_step:
            # The reply may still come: the next command would take it for its own.
            await connection.disconnect(nowait=True)
        await self._redis.connection_pool.release(connection)
