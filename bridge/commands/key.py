"""`python -m bridge key STREAM`: the Redis key of a stream."""

from typing import Annotated

import typer

from bridge.commands.options import ConfigFile
from bridge.errors import ConfigError
from bridge.runtime.config import load_config
from bridge.runtime.terminal import echo
from bridge.view.choose import is_pattern, mistake


def command(
    streams: Annotated[
        list[str], typer.Argument(metavar="STREAM…", help="Names, such as trade.SOL_USDC.")
    ],
    config: ConfigFile = None,
) -> None:
    """Print each stream's key in Redis, a line each: its name after `redis.key_prefix`; in a
    Cluster with several shards, after the prefix of its shard.

    Contacts no server: the key is the same whether or not the stream exists. The bridge's own
    streams, such as bridge:gaps, are accepted, too.

    Exit status: 0 done, 2 an argument cannot be a stream.

    Examples:

        python -m bridge key trade.SOL_USDC
        redis-cli XREVRANGE "$(python -m bridge key trade.SOL_USDC)" + - COUNT 1
    """
    keys = load_config(config).redis.keys
    mistakes = [
        f"{name!r} is a pattern: a key is one stream's" if is_pattern(name) else mistake(name, ())
        for name in streams
    ]
    if any(mistakes):
        raise ConfigError("\n".join(filter(None, mistakes)))
    for name in streams:
        echo(keys.key(name))
