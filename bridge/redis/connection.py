"""A connection to Redis for the hot path: sends packed commands, receives replies in order.

The redis client's asyncio pipeline costs ten times this much per command; everything else (status,
checks, consumers) uses that client. There are no retries here: a connection in an unknown state is
closed, and the append script recognises what was already applied.
"""

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeGuard, cast

import hiredis
from redis.asyncio.connection import ConnectionPool, SSLConnection, UnixDomainSocketConnection
from redis.exceptions import RedisError

from bridge.errors import Transient
from bridge.redis.append import Reply, pack
from bridge.runtime.masking import masked_text
from bridge.runtime.primary import ACTIVE_ACTIVE, ACTIVE_REPLICA, PrimaryFinder, role_in
from bridge.runtime.redis_client import finder_of, parsed_url, unusable
from bridge.runtime.redis_url import Node


class ConnectionLost(Transient):
    """The connection is lost or in an unknown state; unanswered requests may have been applied."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where to connect, and as which user; parsed from a Redis URL by the redis client."""

    node: Node  # with a single server
    path: str
    db: int
    username: str
    password: str
    tls: ConnectionPool | None  # makes a TLS context at each connect, from the present files
    finder: PrimaryFinder | None  # finds the primary by Sentinels or a Cluster
    name: str  # of a set of servers, independent of the present primary

    @classmethod
    def from_url(cls, url: str, connect_timeout_s: float = 3) -> "Target":
        """The target of a URL. Raises ConfigError for a URL that cannot be used."""
        parsed = parsed_url(url)
        try:
            pool = ConnectionPool.from_url(parsed.plain)
            connection = pool.make_connection()  # type: ignore[no-untyped-call]
            finder = finder_of(parsed, pool.connection_kwargs, connect_timeout_s)
        except (ValueError, TypeError, RedisError) as error:
            raise unusable(url) from error
        unix = isinstance(connection, UnixDomainSocketConnection)
        return cls(
            node=parsed.nodes[0] if parsed.nodes else Node("", 0),
            path=connection.path if unix else "",
            db=int(connection.db or 0),
            username=connection.username or "",
            password=connection.password or "",
            tls=pool if isinstance(connection, SSLConnection) else None,
            finder=finder,
            name=parsed.name,
        )

    @property
    def address(self) -> str:
        """The address without credentials; of a set its name, not the present primary."""
        return self.name or f"{self.path or self.node}/{self.db}"

    def __repr__(self) -> str:  # never the password
        return f"Target({self.address})"


class Receiver(Protocol):
    """Takes the replies of a connection."""

    def replied(self, replies: Sequence[Reply]) -> None:
        """Take all replies of the request."""
        ...

    def lost(self, reason: str) -> None:
        """The connection is lost; there will be no more replies."""
        ...


class RedisConnection(asyncio.Protocol):
    """Sends packed commands and passes their replies to its receiver. One request at a time.

    Replies are passed on within the transport's own callback, without a task, a future or another
    turn of the event loop.
    """

    def __init__(self, address: str) -> None:
        self.address = address  # of the connected server
        self._receiver: Receiver | None = None
        self._reader = hiredis.Reader()
        self._transport: asyncio.Transport | None = None
        self._replies: list[Reply] = []
        self._expected = 0
        self._lost = ""
        self._waiter: asyncio.Future[None] | None = None  # of `call`, before there is a receiver

    def attach(self, receiver: Receiver) -> None:
        """Pass replies to this receiver from now on."""
        self._receiver = receiver
        if self._lost:
            receiver.lost(self._lost)

    def send(self, packed: bytes, replies: int) -> None:
        """Send a request that has so many replies."""
        self._expected = replies
        if self._transport is not None and not self._lost:
            self._transport.write(packed)

    async def call(self, packed: bytes, replies: int) -> Sequence[Reply]:
        """Send a request and wait for its replies, before `attach`. Raises ConnectionLost."""
        self._waiter = asyncio.get_running_loop().create_future()
        self.send(packed, replies)
        if self._lost:
            raise ConnectionLost(self._lost)
        await self._waiter
        self._waiter = None
        if self._lost:
            raise ConnectionLost(self._lost)
        answer, self._replies = self._replies, []
        return answer

    def close(self) -> None:
        """Close at once; unanswered requests may have been applied."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not False:
                self._replies.append(reply)
        except hiredis.ProtocolError as error:
            self._end(f"connection to Redis lost: {error}")
            self.close()
            return
        if self._replies and len(self._replies) >= self._expected:
            self._hand_over()

    def connection_lost(self, exc: Exception | None) -> None:
        # A server with too many clients sends an error without a request, and closes.
        refusal = next((one for one in self._replies if isinstance(one, hiredis.ReplyError)), "")
        self._end(f"connection to Redis lost: {refusal or exc or 'closed by the server'}")

    def _hand_over(self) -> None:
        if self._receiver is not None:
            replies, self._replies = self._replies, []
            self._receiver.replied(replies)
        elif self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _end(self, reason: str) -> None:
        if self._lost:
            return
        self._lost = reason
        if self._receiver is not None:
            self._receiver.lost(reason)
        elif self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


async def connect(target: Target, timeout_s: float) -> RedisConnection:
    """Connect to the primary, authenticate, select the database. Raises ConnectionLost, with the
    error of Redis.
    """
    if target.finder is None:
        return await _connect(target, target.node, timeout_s)
    try:
        node = await target.finder.find()
    except RedisError as error:
        raise ConnectionLost(masked_text(str(error), [target.password])) from None
    return await _connect(target, node, timeout_s)


async def _connect(target: Target, node: Node, timeout_s: float) -> RedisConnection:
    connection: RedisConnection | None = None
    try:
        async with asyncio.timeout(timeout_s):
            connection = await _open(target, node)
            await _greet(connection, target, node)
    except TimeoutError:
        raise ConnectionLost(f"no connection to Redis within {timeout_s:g} s") from None
    except OSError as error:
        raise ConnectionLost(f"cannot connect to Redis: {error}") from None
    except UnicodeError:  # an invalid host name from a Sentinel or a Cluster
        raise ConnectionLost(f"cannot connect to Redis: {node.host!r} is no host's name") from None
    else:
        ready, connection = connection, None
        return ready
    finally:
        if connection is not None:
            connection.close()


async def _open(target: Target, node: Node) -> RedisConnection:
    loop = asyncio.get_running_loop()
    if target.path:
        _, connection = await loop.create_unix_connection(
            lambda: RedisConnection(target.address), target.path
        )
        return connection
    tls = None
    if target.tls is not None:
        tls = target.tls.make_connection().ssl_context.get()  # type: ignore[no-untyped-call]
    _, connection = await loop.create_connection(
        lambda: RedisConnection(f"{node}/{target.db}"), *node, ssl=tls
    )
    return connection


async def _greet(connection: RedisConnection, target: Target, node: Node) -> None:
    commands = [pack("PING")]
    if target.password:
        user = (target.username,) if target.username else ()
        commands.insert(0, pack("AUTH", *user, target.password))
    if target.db:
        commands.append(pack("SELECT", target.db))
    commands += (pack("INFO", "server"), pack("ROLE"))
    *replies, info, role = await connection.call(b"".join(commands), len(commands))
    _refuse_wrong_kind(target, node, info, role)
    for reply in replies:
        if isinstance(reply, hiredis.ReplyError):
            # the error of a server without AUTH contains the arguments
            text = masked_text(str(reply), [target.password])
            raise ConnectionLost(f"Redis refused: {text}")


def _refuse_wrong_kind(target: Target, node: Node, info: Reply, role: Reply) -> None:
    """Raise ConnectionLost for a server that accepts no writes, or not ours. If it refuses INFO or
    ROLE, its reply to a write will show it.
    """
    mode = (
        b"".join(re.findall(rb"(?:redis|server)_mode:(\w+)", info)[:1]) if _is_text(info) else b""
    )
    if mode == b"sentinel":
        raise ConnectionLost(
            f"{node} is a Sentinel: the URL is redis+sentinel://{node}/<name of the set>/0"
        )
    if mode == b"cluster" and target.finder is None:
        raise ConnectionLost(f"{node} is a node of a Cluster: the URL is redis+cluster://{node}")
    if target.finder is not None:
        try:
            target.finder.check_role(node, role)
        except RedisError as error:
            raise ConnectionLost(str(error)) from None
    elif role_in(role) == ACTIVE_REPLICA:
        raise ConnectionLost(f"{target.address}: {ACTIVE_ACTIVE}: write to one that is not")
    elif role_in(role) == "slave":
        assert isinstance(role, list)
        primary = f"{role[1].decode(errors='replace')}:{role[2]}"
        raise ConnectionLost(
            f"{target.address} is a replica, which takes no writes: its primary is {primary}"
        )


def _is_text(reply: Reply) -> TypeGuard[bytes]:
    return isinstance(reply, bytes)
