"""Connections to Redis, with the settings that this project needs.

The client's own retries are off: redis-py 8 repeats whole pipelines after a lost reply, up to ten
times, without an error, and entries sent twice are stored twice. The caller decides about retries,
since it knows what was sent. Every wait has a timeout set by the caller. Cancelled tasks end.
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qs

import hiredis
import redis
from redis.asyncio import Redis
from redis.asyncio.connection import SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError
from redis.retry import Retry as BlockingRetry

from bridge.errors import ConfigError
from bridge.runtime.bounded_file import read_bounded
from bridge.runtime.config import Config
from bridge.runtime.embedded import find_embedded
from bridge.runtime.masking import hide, masked_url, passwords_in
from bridge.runtime.primary import PrimaryFinder
from bridge.runtime.redis_shards import ShardedBlockingRedis, ShardedRedis
from bridge.runtime.redis_url import (
    OUR_OPTIONS,
    Node,
    RedisUrl,
    Topology,
    parse_redis_url,
    shard_urls,
    with_tag,
)
from bridge.runtime.refusals import is_elsewhere, refusal_text, spelt
from bridge.runtime.urls import split_url

__all__ = [
    "connect",
    "connect_blocking",
    "finder_of",
    "masked_url",
    "parsed_url",
    "resolve_url",
    "unusable",
    "urls_of_shards",
]

Client = TypeVar("Client", Redis, redis.Redis)

# Any program may write bytes that are not UTF-8. They are read as `\\xff`, which no contract knows:
# a decoding error would fail the whole reply, and each later reply with those bytes.
_NOT_UTF8 = "backslashreplace"
_MOST_CERTIFICATES = 10_000_000  # bytes of a file of certificates
# The client's options that can be given as text and that this project does not set itself.
_IN_URLS = OUR_OPTIONS | {
    "client_name", "db", "health_check_interval", "lib_name", "lib_version",
    "password", "retry_on_timeout", "socket_connect_timeout", "socket_keepalive",
    "socket_read_size", "socket_timeout", "timeout", "username",
}  # fmt: skip


class ServedElsewhere(RedisConnectionError):
    """Another server must be used, now or at all; the connection is closed."""


def resolve_url(config: Config) -> str:
    """The URL to connect to; for `embedded`, that of the running server. A Cluster's URL gets the
    slots of its keys in `hash_tag=` and `shards=`. Raises ConfigError.
    """
    if config.redis.is_embedded:
        return find_embedded(config.embedded.data_dir)
    return with_tag(config.redis.url, config.redis.key_prefix, config.redis.shards)


def parsed_url(url: str) -> RedisUrl:
    """The parsed URL; its passwords are masked from now on. Raises ConfigError."""
    hide(passwords_in(url))
    try:
        parsed = parse_redis_url(url)
    except ValueError as error:
        raise ConfigError(f"redis.url {masked_url(url)} {error}") from None
    options = parse_qs(split_url(url).query, keep_blank_values=True)
    if any(name not in _IN_URLS and not name.startswith("ssl_") for name in options):
        raise unusable(url)
    return parsed


def unusable(url: str) -> ConfigError:
    """The error for a URL that the Redis client does not accept."""
    return ConfigError(f"redis.url {masked_url(url)} cannot be used: check the options after the ?")


def finder_of(
    url: RedisUrl, options: Mapping[str, Any], connect_timeout_s: float
) -> PrimaryFinder | None:
    """The finder of the primary; None where the URL is its address. Raises ConfigError for a
    certificate file that cannot be read. `options`: the client's, for a connection.
    """
    finder = None
    if url.topology is Topology.CLUSTER and not url.tag:
        raise ConfigError(
            "redis.url is of a Cluster: redis.key_prefix must select one of its nodes"
        )
    if url.topology is not Topology.SERVER:
        finder = PrimaryFinder(url, connect_timeout_s)
        options = {**finder.options, **options}
    for option in ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile"):
        try:
            if options.get(option):
                read_bounded(Path(options[option]), _MOST_CERTIFICATES)
        except OSError as error:
            raise ConfigError(
                f"redis.url: {option} {options[option]} cannot be read: {error.strerror}"
            ) from None
    return finder


def connect(
    url: str,
    *,
    name: str,
    decode_responses: bool = False,
    connect_timeout_s: float = 3,
    command_timeout_s: float | None = 10,
    max_connections: int = 8,
) -> Redis:
    """A client that has not connected yet; close it with `aclose()`. For a URL of several shards,
    one client of each, behind one (`redis_shards`).

    `name` is what CLIENT LIST shows, without spaces. `command_timeout_s` ends every command, a
    blocking read included: block for at least two seconds less, or give None.
    """
    options = {
        "decode_responses": decode_responses,
        "encoding_errors": _NOT_UTF8,
        "retry": Retry(NoBackoff(), 0),
        "socket_connect_timeout": connect_timeout_s,
        "socket_timeout": command_timeout_s,
        "max_connections": max_connections,
    }
    clients = [_connect(one, name, options) for one in urls_of_shards(url)]
    return clients[0] if len(clients) == 1 else ShardedRedis(clients, _tags(url))


def urls_of_shards(url: str) -> list[str]:
    """One URL for each shard, or the URL itself. Raises ConfigError."""
    parsed_url(url)
    return shard_urls(url)


def _tags(url: str) -> list[str]:
    return [parse_redis_url(one).tag for one in shard_urls(url)]


def _connect(url: str, name: str, options: Mapping[str, Any]) -> Redis:
    client, finder = _made(_Client.from_url, url, **options)
    pool = client.connection_pool
    plain = pool.connection_class
    pool.connection_class = type(
        plain.__name__,
        (_FollowsPrimary, _HeedsCancellation, _Named, _PacksInC, plain),
        {"finder": finder, "pool": pool, "connection_name": name},
    )
    return client


class _Client(Redis):
    """Adds command and key to a WRONGTYPE error, as redis-py itself does only in pipelines."""

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        try:
            return await super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
        except ResponseError as error:
            raise _naming_key(error, args) from None


class _BlockingClient(redis.Redis):
    """`_Client` without an event loop."""

    def execute_command(self, *args: Any, **options: Any) -> Any:
        try:
            return super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
        except ResponseError as error:
            raise _naming_key(error, args) from None


def _naming_key(error: ResponseError, command: Sequence[Any]) -> ResponseError:
    """The same error; a WRONGTYPE error gets the command and its key."""
    if str(error).startswith("WRONGTYPE") and len(command) > 1:
        error.args = (f"{error} ({command[0]} {command[1]})",)
    return error


class _FollowsPrimary:
    """A connection to the current primary.

    On an error that refers to another server (this one is a replica now, or the slot has moved) it
    is closed, with all of its pool: the next connect finds the new primary, or resolves the host
    name again.
    """

    finder: PrimaryFinder | None
    pool: Any

    async def connect_check_health(self, *arguments: Any, **options: Any) -> None:
        connection: Any = super()
        if self.is_connected:  # type: ignore[attr-defined]
            return
        if isinstance(self, SSLConnection):
            self.ssl_context.context = None  # certificate files may have been replaced
        if self.finder is None:
            await connection.connect_check_health(*arguments, **options)
            return
        node = await self.finder.find()
        self.host, self.port = node
        await connection.connect_check_health(*arguments, **options)
        try:
            await self._refuse_other_roles(self.finder, node)
            if self.finder.needs_readonly:
                await self.send_command("READONLY", check_health=False)  # type: ignore[attr-defined]
                await connection.read_response()
        except (RedisError, OSError):
            await connection.disconnect(nowait=True)
            raise

    async def _refuse_other_roles(self, finder: PrimaryFinder, node: Node) -> None:
        connection: Any = super()
        reply: Any = None
        await self.send_command("ROLE", check_health=False)  # type: ignore[attr-defined]
        with contextlib.suppress(ResponseError):  # ROLE refused or unknown: a write will show it
            reply = await connection.read_response(disable_decoding=True)
        finder.check_role(node, reply)

    async def read_response(self, *arguments: Any, **options: Any) -> Any:
        connection: Any = super()
        try:
            return await connection.read_response(*arguments, **options)
        except ResponseError as error:
            if not is_elsewhere(error):
                raise
            await connection.disconnect(nowait=True)
            await self.pool.disconnect(inuse_connections=False)
            await self.pool.update_active_connections_for_reconnect()
            raise _served_elsewhere(error, self.finder) from error


class _FollowsPrimaryBlocking:
    """`_FollowsPrimary` without an event loop."""

    finder: PrimaryFinder | None
    pool: Any

    def connect_check_health(self, *arguments: Any, **options: Any) -> None:
        connection: Any = super()
        if self.finder is None or self._sock:  # type: ignore[attr-defined]
            connection.connect_check_health(*arguments, **options)
            return
        node = self.finder.find_blocking()
        self.host, self.port = node
        connection.connect_check_health(*arguments, **options)
        try:
            reply: Any = None
            self.send_command("ROLE", check_health=False)  # type: ignore[attr-defined]
            with contextlib.suppress(ResponseError):
                reply = connection.read_response(disable_decoding=True)
            self.finder.check_role(node, reply)
            if self.finder.needs_readonly:
                self.send_command("READONLY", check_health=False)  # type: ignore[attr-defined]
                connection.read_response()
        except (RedisError, OSError):
            connection.disconnect()
            raise

    def read_response(self, *arguments: Any, **options: Any) -> Any:
        connection: Any = super()
        try:
            return connection.read_response(*arguments, **options)
        except ResponseError as error:
            if not is_elsewhere(error):
                raise
            connection.disconnect()
            self.pool.disconnect(inuse_connections=False)
            raise _served_elsewhere(error, self.finder) from error


def _served_elsewhere(error: ResponseError, finder: PrimaryFinder | None) -> ServedElsewhere:
    text = spelt(error)
    if finder is None and text.startswith(("MOVED", "ASK")):
        return ServedElsewhere(f"{text} (a node of a Cluster: the URL is redis+cluster://…)")
    return ServedElsewhere(refusal_text(text))


class _Named:
    """A connection that sets its client name, and works without where the user may not set one."""

    connection_name: str
    client_name: str | None

    async def on_connect_check_health(self, check_health: bool = True) -> None:  # noqa: FBT001, FBT002 - the client's own signature
        connection: Any = super()
        self.client_name = None  # the client's own handshake fails where SETNAME is refused
        await connection.on_connect_check_health(check_health)
        await connection.send_command("CLIENT", "SETNAME", self.connection_name, check_health=False)
        with contextlib.suppress(ResponseError):
            await connection.read_response()


class _NamedBlocking:
    """`_Named` without an event loop."""

    connection_name: str
    client_name: str | None

    def on_connect_check_health(self, check_health: bool = True) -> None:  # noqa: FBT001, FBT002 - the client's own signature
        connection: Any = super()
        self.client_name = None
        connection.on_connect_check_health(check_health)
        connection.send_command("CLIENT", "SETNAME", self.connection_name, check_health=False)
        with contextlib.suppress(ResponseError):
            connection.read_response()


class _PacksInC:
    """A connection that packs its commands with hiredis, as the blocking client does by default:
    packing in Python makes acknowledging five hundred entries ten times as slow.
    """

    def pack_command(self, *args: Any) -> list[bytes]:
        name, *arguments = args
        if isinstance(name, str):
            # "XINFO STREAM" is two arguments to Redis; redis-py packs what hiredis cannot.
            with contextlib.suppress(TypeError):
                return [hiredis.pack_command((*name.split(), *arguments))]
        connection: Any = super()
        packed: list[bytes] = connection.pack_command(*args)
        return packed


class _HeedsCancellation:
    """A connection that does not swallow a cancellation while sending.

    The client sends within `asyncio.wait_for`, which on Python 3.11 loses the cancellation where
    the send completes in the same iteration of the loop. A cancelled task would then run for ever,
    and its canceller would wait for ever.
    """

    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:  # noqa: FBT001, FBT002 - the client's own signature
        task = asyncio.current_task()
        before = task.cancelling() if task else 0
        connection: Any = super()
        await connection.send_packed_command(command, check_health)
        if task and task.cancelling() > before:
            await connection.disconnect(nowait=True)  # its reply would be read as the next one's
            raise asyncio.CancelledError


def connect_blocking(url: str, *, name: str, command_timeout_s: float = 10) -> redis.Redis:
    """`connect` for code without an event loop, responses decoded; close it with `close()`."""
    clients = [_connect_blocking(one, name, command_timeout_s) for one in urls_of_shards(url)]
    return clients[0] if len(clients) == 1 else ShardedBlockingRedis(clients, _tags(url))


def _connect_blocking(url: str, name: str, command_timeout_s: float) -> redis.Redis:
    client, finder = _made(
        _BlockingClient.from_url,
        url,
        decode_responses=True,
        encoding_errors=_NOT_UTF8,
        retry=BlockingRetry(NoBackoff(), 0),
        socket_connect_timeout=3,
        socket_timeout=command_timeout_s,
    )
    pool = client.connection_pool
    plain = pool.connection_class
    pool.connection_class = type(
        plain.__name__,
        (_FollowsPrimaryBlocking, _NamedBlocking, plain),
        {"finder": finder, "pool": pool, "connection_name": name},
    )
    return client


def _made(
    make: Callable[..., Client], url: str, **options: Any
) -> tuple[Client, PrimaryFinder | None]:
    parsed = parsed_url(url)
    try:
        client = make(
            parsed.plain,
            protocol=2,  # the same reply shapes from every server, and no push messages
            health_check_interval=0,
            **options,
            **({"socket_keepalive": True} if parsed.nodes else {}),
        )
        # An invalid option raises here, before any use.
        client.connection_pool.make_connection()  # type: ignore[no-untyped-call]
        kwargs = client.connection_pool.connection_kwargs
        return client, finder_of(parsed, kwargs, options["socket_connect_timeout"])
    except (ValueError, TypeError, RedisError) as error:
        raise unusable(url) from error
