"""`python -m consumers replay`: a time range to a handler, once more."""

import os
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from redis.asyncio import Redis

from bridge.contract.identity import EntryId
from bridge.errors import ConfigError
from bridge.runtime.config import load_config
from bridge.runtime.logs import setup_logs
from consumers.commands.asking import ConfigOption, StreamsOption, ask, word
from consumers.commands.stopping import stop_on_signals
from consumers.consumer import build
from consumers.keys import Keys
from consumers.link import Stop
from consumers.loading import load, options
from consumers.meter import Meter
from consumers.policy import ago
from consumers.registry import choose, group_names, stream_names
from consumers.replay import Replay
from consumers.span import bound_id


def command(
    consumer: Annotated[
        str,
        typer.Argument(help="A sample's name (see `list`), or my_package.my_module:MyConsumer."),
    ],
    start: Annotated[
        str, typer.Option("--from", help="A time (UTC), an entry ID, or how long ago: 2h.")
    ],
    end: Annotated[
        str | None, typer.Option("--to", help="The same; left out. Else: what is there now.")
    ] = None,
    group: Annotated[
        str | None, typer.Option(help="The name its results lie under (else <name>-replay).")
    ] = None,
    streams: StreamsOption = None,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", "-o", help="name=value for the consumer; may be repeated."),
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Hand what lies between two times to a consumer again; its live group notices nothing.

    Results go under another group's name, where those of an earlier replay are deleted first;
    whatever else the handler does, it does again. For example:

        python -m consumers replay candles --from 2026-09-02T16:00 --to 2026-09-02T18:00
    """
    kind = load(consumer)
    given = options(option or ())
    build(kind, given)
    name = word(group or f"{kind.name}-replay", "--group")
    now = datetime.now(UTC)
    first = bound_id(ago(start) or start, now)
    last = "+" if end is None else "(" + bound_id(ago(end) or end, now)
    if end is not None and EntryId.parse(last[1:]) <= EntryId.parse(first):
        raise ConfigError(f"--from {start} is not before --to {end}")
    _setup_logs(config)
    stop = Stop()

    async def question(redis: Redis, keys: Keys) -> tuple[int, int]:
        stop_on_signals(stop)
        if name in {kind.name, *await group_names(redis, keys)}:
            raise ConfigError(f"--group {name}: that is a live group's name; give another")
        chosen = choose(await stream_names(redis, keys), tuple(streams or kind.streams))
        meter = Meter(lambda: int(datetime.now(UTC).timestamp() * 1_000_000))
        worker = f"replay-{os.getpid()}/{secrets.token_hex(4)}"
        replay = Replay(lambda: build(kind, given), redis, keys, name, worker, meter)
        return await replay.run(chosen, first, last, stop), len(chosen)

    handed, count = ask(config, question)
    typer.echo(f"{handed} entries of {count} streams, as {name}", err=True)


def _setup_logs(config: Path | None) -> None:
    loaded = load_config(config)
    setup_logs(loaded.log.level, loaded.log.format)
