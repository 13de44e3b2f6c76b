"""One fetch from Redis, for the commands that look and then leave."""

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
    """What `read` returns, over a client of its own. Raises Fatal where Redis cannot be read."""
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
    """The error that no group has this name; `there`: those that are there, at least one."""
    more = f" and {len(there) - _MOST_NAMED} more" if len(there) > _MOST_NAMED else ""
    told = f"{', '.join(there[:_MOST_NAMED])}{more}"
    return ConfigError(f"there is no group {name!r}, there are {told}{did_you_mean(name, there)}")


def address(text: str, option: str) -> Address:
    """Where to listen. Raises ConfigError where that is not said."""
    try:
        return Address.parse(text)
    except ValueError as error:
        raise ConfigError(f"{option} {text!r}: {error}") from None


def key_part(text: str, option: str) -> str:
    """The text, if it can be part of a key. Raises ConfigError else."""
    if not text.isprintable() or any(c in " {}/:" for c in text):
        raise ConfigError(f"{option} {text!r}: no spaces, colons, slashes or braces, please")
    return text
