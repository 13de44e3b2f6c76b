"""`python -m consumers replay`: deliver a time range to a consumer again."""

import os
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from redis.asyncio import Redis

from bridge.errors import ConfigError
from bridge.runtime.collector import settle_collector
from bridge.runtime.config import load_config
from bridge.runtime.keys import secret_texts
from bridge.runtime.logs import setup_logs
from bridge.runtime.terminal import echo
from bridge.runtime.time_range import HELP, span
from consumers.commands.fetching import ConfigOption, StreamsOption, fetch, key_part
from consumers.commands.signals import stop_on_signals
from consumers.kit.api.consumer import ConsumerSpec
from consumers.kit.api.routes import check_streams
from consumers.kit.handling.resources import with_resources
from consumers.kit.redis.keys import Keys
from consumers.kit.redis.registry import choose, group_names, stream_names
from consumers.kit.replay import Replay
from consumers.kit.stats import Stats
from consumers.kit.stop import Stop
from consumers.kit.worker.loading import load, options


def command(
    consumer: Annotated[
        str,
        typer.Argument(help="A sample's name (see `list`), or my_package.my_module:MyConsumer."),
    ],
    start: Annotated[str, typer.Option("--from", help=f"Begin of the range: {HELP}.")],
    end: Annotated[
        str | None, typer.Option("--to", help="End of the range, excluded (else the last entry).")
    ] = None,
    group: Annotated[
        str | None, typer.Option(help="The group name for its results (else <name>-replay).")
    ] = None,
    streams: StreamsOption = None,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", "-o", help="name=value for the consumer; may be repeated."),
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Deliver the entries between two times to a consumer again; its live group is not affected.

    Results are written under another group name, after those of an earlier replay are deleted; all
    other effects of the handler happen again. For example:

        python -m consumers replay candles --from 2026-09-02T16:00 --to 2026-09-02T18:00
    """
    kind = load(consumer)
    if kind.mode == "joined":
        raise ConfigError(f"{kind.name} joins streams, and replay reads one after the other")
    patterns = tuple(streams or kind.streams)
    check_streams(kind, patterns)
    spec = ConsumerSpec(kind, options(option or ()))
    spec.build()  # wrong options are an error before anything is deleted
    name = key_part(group or f"{kind.name}-replay", "--group")
    begin, until = span(start, end, datetime.now(UTC))
    first = "-" if begin is None else begin.id
    last = "+" if until is None else f"({until.id}"
    _setup_logs(config)
    stop = Stop()

    async def run(redis: Redis, keys: Keys) -> tuple[int, int]:
        stop_on_signals(stop)
        if name in {kind.name, *await group_names(redis, keys)}:
            raise ConfigError(f"--group {name}: that is a live group's name; give another")
        chosen = choose(await stream_names(redis, keys), patterns)
        stats = Stats(lambda: int(datetime.now(UTC).timestamp() * 1_000_000))
        worker = f"replay-{os.getpid()}/{secrets.token_hex(4)}"
        async with with_resources(spec) as ready_spec:
            replay = Replay(ready_spec, redis, keys, name, worker, stats)
            return await replay.run(chosen, first, last, stop), len(chosen)

    settle_collector()
    handed, count = fetch(config, run)
    echo(f"{handed} entries of {count} streams, as {name}", to_stderr=True)


def _setup_logs(config: Path | None) -> None:
    loaded = load_config(config)
    setup_logs(loaded.log.level, loaded.log.format, secret_texts(loaded.redis.url))
