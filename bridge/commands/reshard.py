"""`python -m bridge reshard --from N`: changes the number of shards of a Cluster."""

import asyncio
from typing import Annotated

import typer
from redis.asyncio import Redis

from bridge.commands.options import ConfigFile
from bridge.errors import ConfigError, Fatal
from bridge.redis.resharding import Resharding
from bridge.runtime.config import Config, load_config
from bridge.runtime.keyspace import MAX_SHARDS, KeySpace
from bridge.runtime.redis_client import connect
from bridge.runtime.redis_trouble import unreadable
from bridge.runtime.redis_url import is_cluster, with_tag
from bridge.runtime.terminal import echo
from bridge.view.history import History
from bridge.view.reader import UNAVAILABLE, read_everything
from bridge.view.view_model import State, draw


def command(
    before: Annotated[
        int,
        typer.Option("--from", min=1, max=MAX_SHARDS, metavar="N", help="How many there were."),
    ],
    delete_old: Annotated[
        bool,
        typer.Option("--delete-old", help="Delete the old keys instead, once all is well."),
    ] = False,
    config: ConfigFile = None,
) -> None:
    """Copy every key to its shard under the number of shards in `redis.shards`.

    Stop all bridges and consumers first: nothing is copied while one runs. Streams keep their
    entries and IDs, groups their position and pending entries, consumers their results. The old
    keys remain readable until they are deleted. After an interruption it can be repeated.

    Exit status: 0 done, 1 refused, or Redis does not answer, 2 configuration wrong.

    Examples:

        BRIDGE_REDIS__SHARDS=8 python -m bridge reshard --from 4
        BRIDGE_REDIS__SHARDS=8 python -m bridge reshard --from 4 --delete-old
    """
    loaded = load_config(config)
    if not is_cluster(loaded.redis.url):
        raise ConfigError("redis.url is of no Cluster, and only a Cluster has shards")
    if before == loaded.redis.shards:
        raise ConfigError(f"redis.shards is {before} already: give it the new number first")
    try:
        echo(asyncio.run(_reshard(loaded, before, delete_old=delete_old)))
    except UNAVAILABLE as error:
        raise unreadable(error, loaded.redis.url, "read or written") from None


async def _reshard(config: Config, before: int, *, delete_old: bool) -> str:
    new_space = config.redis.keys
    old_space = KeySpace(new_space.prefix, before)
    async with (
        _client(config, old_space) as old,
        _client(config, new_space) as new,
        _client(config, old_space, decode=True) as old_view,
        _client(config, new_space, decode=True) as new_view,
    ):
        resharding = Resharding(old, old_space, new, new_space)
        moves = await resharding.plan()
        if delete_old:
            return f"{await resharding.delete_old(moves)} old keys deleted"
        await _refuse_running(old_view, old_space)
        await _refuse_running(new_view, new_space)
        count = await resharding.copy(moves)
    return f"{count} keys copied from {before} to {new_space.shards} shards; the old ones are there"


async def _refuse_running(client: Redis, space: KeySpace) -> None:
    history = History()
    history.add(await read_everything(client, space))
    view_model = draw(history)
    running = [each.status.instance for each in view_model.bridges if each.state is State.UP]
    running += [each.name for each in view_model.consumers if each.state is State.UP]
    if running:
        raise Fatal(f"stop these first, they read or write what is to be copied: {running}")


def _client(config: Config, space: KeySpace, *, decode: bool = False) -> Redis:
    return connect(
        with_tag(config.redis.url, space.prefix, space.shards),
        name="bridge:reshard",
        decode_responses=decode,
        connect_timeout_s=config.redis.connect_timeout_s,
        command_timeout_s=None,  # a large stream is slow
    )
