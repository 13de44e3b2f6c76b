"""A command that is sent now and its reply read later, so that Redis works in the meantime.

The client's own calls wait for the reply at once, and convert entries to dicts. Here the reply
waits in the socket, on a connection taken from the client's pool until then, and is not converted.
"""

from typing import Any

from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ResponseError

PAUSE_S = 60.0  # no prefetch for so long after a failure: it may have taken the last connection


class Prefetch:
    """One command in progress at most. Raises what the client's own calls raise."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._connection: AbstractConnection | None = None

    @property
    def is_sent(self) -> bool:
        """Whether a command was sent and its reply not received yet."""
        return self._connection is not None

    async def send(self, command: str, *arguments: str | int) -> None:
        """Send a command; `receive` returns its reply."""
        pool = self._redis.connection_pool
        self._connection = await pool.get_connection()  # type: ignore[no-untyped-call]
        try:
            await self._connection.send_command(command, *arguments)
        except BaseException:
            await self._give_back(is_in_step=False)
            raise

    async def receive(self) -> Any:
        """The reply as Redis sends it: numbers, strings, and lists of them."""
        assert self._connection is not None, "nothing was sent"
        is_in_step = False
        try:
            reply = await self._connection.read_response()
            is_in_step = True
        except ResponseError:
            is_in_step = True  # an error is a complete reply: the socket is empty afterwards
            raise
        finally:
            await self._give_back(is_in_step=is_in_step)
        return reply

    async def abandon(self) -> None:
        """Discard the reply, and close its connection."""
        await self._give_back(is_in_step=False)

    async def _give_back(self, *, is_in_step: bool) -> None:
        connection, self._connection = self._connection, None
        assert connection is not None
        if not is_in_step:
            # The reply may still arrive: the next command would read it as its own.
            await connection.disconnect(nowait=True)
        await self._redis.connection_pool.release(connection)
