"""A single fetch from Redis, for commands that show data and end."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from redis.asyncio import Redis
from redis.exceptions import RedisError

from bridge.errors import ConfigError
from bridge.runtime.address import Address
from bridge.runtime.config import load_config
from bridge.runtime.nearest import did_you_mean
from bridge.runtime.redis_client import connect, resolve_url
from bridge.runtime.redis_trouble import unreadable
from consumers.kit.redis.keys import Keys

T = TypeVar("T")
_MOST_NAMED = 20  # groups

ConfigOption = Annotated[
    Path | None, typer.Option(help="The configuration; only redis and embedded are used.")
]
StreamsOption = Annotated[
    list[str] | None,
    typer.Option(help="Only these streams, such as 'trade.SOL*'; may be repeated."),
]


def fetch(config: Path | None, read: Callable[[Redis, Keys], Awaitable[T]]) -> T:
    """Run `read` with a new client, and return its result. Raises Fatal if Redis cannot be read."""
    loaded = load_config(config)
    url = resolve_url(loaded)
    client = connect(
        url,
        name="consumers:viewer",
        decode_responses=True,
        connect_timeout_s=loaded.redis.connect_timeout_s,
        command_timeout_s=loaded.redis.command_timeout_s,
    )

    async def once() -> T:
        async with client:
            return await read(client, Keys(loaded.redis.keys))

    try:
        return asyncio.run(once())
    except (RedisError, OSError) as error:
        raise unreadable(error, url) from None


def no_group(name: str, there: Sequence[str]) -> ConfigError:
    """The error for an unknown group; `there`: the existing groups, at least one."""
    more = f" and {len(there) - _MOST_NAMED} more" if len(there) > _MOST_NAMED else ""
    names = f"{', '.join(there[:_MOST_NAMED])}{more}"
    return ConfigError(f"there is no group {name!r}, there are {names}{did_you_mean(name, there)}")


def address(text: str, option: str) -> Address:
    """The address to listen at. Raises ConfigError for an invalid one."""
    try:
        return Address.parse(text)
    except ValueError as error:
        raise ConfigError(f"{option} {text!r}: {error}") from None


def key_part(text: str, option: str) -> str:
    """The text. Raises ConfigError if it cannot be part of a Redis key."""
    if not text.isprintable() or any(c in " {}/:" for c in text):
        raise ConfigError(f"{option} {text!r}: write no spaces, colons, slashes or braces")
    return text
