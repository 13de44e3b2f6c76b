"""`python -m consumers exporter`: metrics of groups from Redis, for Prometheus."""

import asyncio
from contextlib import AsyncExitStack
from typing import Annotated

import typer
from redis.asyncio import Redis

from bridge.errors import ConfigError
from bridge.metrics import exposition
from bridge.metrics.pages import serve
from bridge.runtime.address import Address
from bridge.runtime.config import Config, load_config
from bridge.runtime.keys import secret_texts
from bridge.runtime.logs import setup_logs
from bridge.runtime.redis_client import connect, resolve_url
from bridge.runtime.redis_url import replica_url
from bridge.runtime.replica import COMMAND_TIMEOUT_S
from consumers.commands.fetching import ConfigOption, address
from consumers.commands.signals import stop_on_signals
from consumers.exporter.pages import ExporterPages
from consumers.kit.redis.keys import Keys
from consumers.kit.stop import Stop

DEFAULT = "127.0.0.1:9465"
LONGEST_S = 4.0  # limit of a command; Prometheus waits for 10 s, and one of several shards may hang


def command(
    listen: Annotated[str, typer.Option(help="host:port to serve the pages at.")] = DEFAULT,
    per_stream: Annotated[
        bool, typer.Option("--per-stream", help="Also the lag of each group in each stream.")
    ] = False,
    config: ConfigOption = None,
) -> None:
    """Serve /metrics of all groups, workers and bridges until Ctrl-C, from Redis alone.

    One process is enough for all workers, wherever they run. For example:

        python -m consumers exporter

        python -m consumers exporter --listen 0.0.0.0:9465 --per-stream
    """
    loaded = load_config(config)
    if not exposition.is_installed():
        raise ConfigError(exposition.MISSING.partition(";")[0])
    setup_logs(loaded.log.level, loaded.log.format, secret_texts(loaded.redis.url))
    asyncio.run(_run(loaded, address(listen, "--listen"), per_stream=per_stream))


async def _run(config: Config, where: Address, *, per_stream: bool) -> None:
    stop = Stop()
    stop_on_signals(stop)
    url = resolve_url(config)
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as tasks:
        client = await stack.enter_async_context(
            _client(config, url, min(config.redis.command_timeout_s, LONGEST_S))
        )
        replica = None
        if config.redis.read_from == "replica":
            replica = await stack.enter_async_context(
                _client(config, replica_url(url), COMMAND_TIMEOUT_S)
            )
        pages = ExporterPages(
            client, Keys(config.redis.keys), per_stream=per_stream, replica=replica
        )
        serving = tasks.create_task(serve(where, pages))
        await stop.awaited()
        serving.cancel()


def _client(config: Config, url: str, limit_s: float) -> Redis:
    return connect(
        url,
        name="consumers:exporter",
        decode_responses=True,
        connect_timeout_s=config.redis.connect_timeout_s,
        command_timeout_s=limit_s,
    )
