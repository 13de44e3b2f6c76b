"""A command that Redis works on while this process does something else: asked now, read later.

The client's own calls send a command and wait for its reply in one. Here the reply waits in the
socket, on a connection of the client's pool that nobody else has meanwhile.
"""

from typing import Any

from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ResponseError


class Ahead:
    """At most one command. What it raises is what the client's own calls raise."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._command = ""
        self._connection: AbstractConnection | None = None

    @property
    def is_asked(self) -> bool:
        return self._connection is not None

    async def ask(self, command: str, *arguments: str | int) -> None:
        """Send it."""
        self._command = command
        pool = self._redis.connection_pool
        self._connection = await pool.get_connection()  # type: ignore[no-untyped-call]
        try:
            await self._connection.send_command(command, *arguments)
        except BaseException:
            await self._give_back(is_in_step=False)
            raise

    async def answer(self) -> Any:
        """The reply, as the client gives it."""
        is_in_step = False
        try:
            reply = await self._redis.parse_response(self._connection, self._command)  # type: ignore[arg-type]  # the stub has one kind of connection
            is_in_step = True
        except ResponseError:
            is_in_step = True
            raise
        finally:
            await self._give_back(is_in_step=is_in_step)
        return reply

    async def _give_back(self, *, is_in_step: bool) -> None:
        connection, self._connection = self._connection, None
        assert connection is not None
        if not is_in_step:
            await connection.disconnect(nowait=True)
        await self._redis.connection_pool.release(connection)
