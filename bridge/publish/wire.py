"""One connection to Redis for the hot path: packed commands out, replies in order back.

The redis client's asyncio pipeline costs ten times this much per command; everything that is not
hot (status, checks, consumers) uses that client. There are no retries here: a connection in doubt
is closed, and the append script settles what was applied.
"""

import asyncio
import ssl
from collections.abc import Sequence
from dataclasses import dataclass

import hiredis
from redis.asyncio.connection import (
    Connection,
    ConnectionPool,
    SSLConnection,
    UnixDomainSocketConnection,
)

from bridge.errors import Transient
from bridge.runtime.masking import masked_text

Reply = object  # bytes, int, list, None or hiredis.ReplyError


class WireLost(Transient):
    """The connection is gone or in doubt; nothing is known of what was not answered."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where and as whom to connect, read from a Redis URL by the redis client's own parser."""

    host: str
    port: int
    path: str
    db: int
    username: str
    password: str
    tls: ssl.SSLContext | None

    @classmethod
    def from_url(cls, url: str) -> "Target":
        connection = ConnectionPool.from_url(url).make_connection()  # type: ignore[no-untyped-call]
        tls = connection.ssl_context.get() if isinstance(connection, SSLConnection) else None
        unix = isinstance(connection, UnixDomainSocketConnection)
        return cls(
            host=connection.host if isinstance(connection, Connection) else "",
            port=int(connection.port) if isinstance(connection, Connection) else 0,
            path=connection.path if unix else "",
            db=int(connection.db or 0),
            username=connection.username or "",
            password=connection.password or "",
            tls=tls,
        )

    @property
    def address(self) -> str:
        """Where it is, without who connects."""
        return f"{self.path or f'{self.host}:{self.port}'}/{self.db}"

    def __repr__(self) -> str:  # never the password
        return f"Target({self.address})"


def pack(*arguments: bytes | str | int) -> bytes:
    """One command in the Redis protocol."""
    parts = [b"*%d\r\n" % len(arguments)]
    for argument in arguments:
        data = argument if isinstance(argument, bytes) else str(argument).encode()
        parts.append(b"$%d\r\n%b\r\n" % (len(data), data))
    return b"".join(parts)


class Wire(asyncio.Protocol):
    """Sends packed commands, hands back as many replies. One `call` at a time."""

    def __init__(self) -> None:
        self._reader = hiredis.Reader()
        self._transport: asyncio.Transport | None = None
        self._replies: list[Reply] = []
        self._wanted = 0
        self._waiter: asyncio.Future[None] | None = None
        self._lost: Exception | None = None

    async def call(self, packed: bytes, replies: int, timeout_s: float) -> Sequence[Reply]:
        """Send, and wait for `replies` replies; error replies are returned as values.

        Raises WireLost when the connection breaks or the time is over; it is then closed.
        """
        if self._lost is not None or self._transport is None:
            raise WireLost(f"connection to Redis lost: {self._lost}")
        self._wanted = replies
        self._waiter = asyncio.get_running_loop().create_future()
        self._transport.write(packed)
        try:
            async with asyncio.timeout(timeout_s):
                await self._waiter
        except TimeoutError:
            self.close()
            raise WireLost(f"Redis did not answer within {timeout_s:g} s") from None
        except asyncio.CancelledError:
            self.close()  # replies would come out of step
            raise
        finally:
            self._waiter = None
        answer, self._replies = self._replies, []
        return answer

    def close(self) -> None:
        """Close at once; what was not answered is unknown."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not False:
                self._replies.append(reply)
        except hiredis.ProtocolError as error:
            self._give_up(error)
            self.close()
            return
        if len(self._replies) >= self._wanted and self._waiter and not self._waiter.done():
            self._waiter.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._give_up(exc or ConnectionResetError("closed by the server"))

    def _give_up(self, error: Exception) -> None:
        self._lost = error
        if self._waiter and not self._waiter.done():
            self._waiter.set_exception(WireLost(f"connection to Redis lost: {error}"))


async def open_wire(target: Target, timeout_s: float) -> Wire:
    """Connect, authenticate, choose the database. Raises WireLost, which says what Redis said."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(timeout_s):
            if target.path:
                _, wire = await loop.create_unix_connection(Wire, target.path)
            else:
                _, wire = await loop.create_connection(
                    Wire, target.host, target.port, ssl=target.tls
                )
    except TimeoutError:
        raise WireLost(f"no connection to Redis within {timeout_s:g} s") from None
    except OSError as error:
        raise WireLost(f"cannot connect to Redis: {error}") from None
    except UnicodeError:  # the name cannot even be asked for
        raise WireLost(f"cannot connect to Redis: {target.host!r} is no host's name") from None
    try:
        await _greet(wire, target, timeout_s)
    except BaseException:
        wire.close()
        raise
    return wire


async def _greet(wire: Wire, target: Target, timeout_s: float) -> None:
    commands = [pack("PING")]
    if target.password:
        user = (target.username,) if target.username else ()
        commands.insert(0, pack("AUTH", *user, target.password))
    if target.db:
        commands.append(pack("SELECT", target.db))
    for reply in await wire.call(b"".join(commands), len(commands), timeout_s):
        if isinstance(reply, hiredis.ReplyError):
            # a server without AUTH repeats its arguments
            raise WireLost(f"Redis refused: {masked_text(str(reply), [target.password])}")
