"""Connections to Redis, made the one right way for this project.

The client's own retries are off: redis-py 8 repeats whole pipelines after a lost reply, up to ten
times, without an error, and what was sent twice is there twice. Who needs a retry decides it,
knowing what was sent. Every wait has an end that the caller names. A task that is cancelled ends.
"""

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import urlsplit

import redis
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.retry import Retry as BlockingRetry

from bridge.errors import ConfigError
from bridge.runtime.config import Config
from bridge.runtime.embedded import find_embedded
from bridge.runtime.masking import masked_url

__all__ = ["connect", "connect_blocking", "masked_url", "resolve_url"]

Client = TypeVar("Client", Redis, redis.Redis)


def resolve_url(config: Config) -> str:
    """The URL to connect to; for `embedded`, that of the running server, or ConfigError."""
    return find_embedded(config.embedded.data_dir) if config.redis.is_embedded else config.redis.url


def connect(
    url: str,
    *,
    name: str,
    decode_responses: bool = False,
    connect_timeout_s: float = 3,
    command_timeout_s: float | None = 10,
    max_connections: int = 8,
) -> Redis:
    """A client that has not connected yet; close it with `aclose()`.

    `name` is what CLIENT LIST shows, without spaces. `command_timeout_s` ends every command, a
    blocking read included: block for at least two seconds less, or give None.
    """
    client = _made(
        Redis.from_url,
        url,
        decode_responses=decode_responses,
        retry=Retry(NoBackoff(), 0),
        socket_connect_timeout=connect_timeout_s,
        socket_timeout=command_timeout_s,
        max_connections=max_connections,
        client_name=name,
    )
    pool = client.connection_pool
    plain = pool.connection_class
    pool.connection_class = type(plain.__name__, (_HeedsCancellation, plain), {})
    return client


class _HeedsCancellation:
    """A connection that does not swallow a cancellation while sending.

    The client sends within `asyncio.wait_for`, which on Python 3.11 returns, and forgets that the
    task was cancelled, where the sending ends in the same turn of the loop. A task that lives in
    the client would then go on for ever, and whoever waits for its end with it.
    """

    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:  # noqa: FBT001, FBT002 - the client's own signature
        task = asyncio.current_task()
        before = task.cancelling() if task else 0
        connection: Any = super()
        await connection.send_packed_command(command, check_health)
        if task and task.cancelling() > before:
            await connection.disconnect(nowait=True)  # its reply would come out of step
            raise asyncio.CancelledError


def connect_blocking(url: str, *, name: str) -> redis.Redis:
    """The same for code without a loop, texts decoded; close it with `close()`."""
    return _made(
        redis.Redis.from_url,
        url,
        decode_responses=True,
        retry=BlockingRetry(NoBackoff(), 0),
        socket_connect_timeout=3,
        socket_timeout=10,
        client_name=name,
    )


def _made(make: Callable[..., Client], url: str, **options: Any) -> Client:
    try:
        client = make(
            url,
            protocol=2,  # the same reply shapes from every server, and no push messages
            health_check_interval=0,
            **options,
            **({} if urlsplit(url).scheme == "unix" else {"socket_keepalive": True}),
        )
        # a wrong option shows here, before any use
        client.connection_pool.make_connection()  # type: ignore[no-untyped-call]
    except (ValueError, TypeError) as error:
        raise ConfigError(
            f"redis.url {masked_url(url)} cannot be used: look at what stands after the ?"
        ) from error
    return client
