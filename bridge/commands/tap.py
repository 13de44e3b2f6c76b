"""`python -m bridge tap STREAM…`: follows streams, one line for each entry.

Handles options, the format of a line, and the end. `view.follow` reads.
"""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from redis.asyncio import Redis
from rich.text import Text

from bridge.commands.options import ConfigFile
from bridge.contract import keys
from bridge.contract.identity import EntryId
from bridge.errors import ConfigError
from bridge.runtime.config import Config, load_config
from bridge.runtime.keyspace import KeySpace
from bridge.runtime.redis_client import connect, resolve_url
from bridge.runtime.terminal import echo, new_console, printable
from bridge.runtime.time_range import HELP, point
from bridge.view.choose import is_text, mistake
from bridge.view.describe import clock, describe_entry, plain_fields
from bridge.view.facts import Followed
from bridge.view.follow import Follower
from bridge.view.reader import UNAVAILABLE

INTERRUPTED = 130
Line = Callable[[Followed], str]


def command(
    streams: Annotated[
        list[str],
        typer.Argument(metavar="STREAM…", help="Names, or patterns such as 'trade.*' (in quotes)."),
    ],
    begin: Annotated[
        str,
        typer.Option("--from", metavar="WHERE", help=f"From there on: {HELP}."),
    ] = "new",
    count: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Leave after so many entries.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object a line: stream, id, fields.")
    ] = False,
    fields: Annotated[
        bool, typer.Option("--fields", help="Every field as stored, instead of a description.")
    ] = False,
    config: ConfigFile = None,
) -> None:
    """Follow streams in readable form: time (UTC), stream, and what happened.

    Reads without a consumer group, so it disturbs no other reader. It waits for streams that do not
    exist yet, and follows new matches of a pattern. Anything but entries goes to stderr.

    Ctrl-C exits with status 130; after `--count`, or when a pipe's reader closes, it is 0.

    Examples:

        python -m bridge tap trade.SOL_USDC
        python -m bridge tap 'trade.*' 'account.*' --from beginning --count 20
        python -m bridge tap 'depth.*' --json | jq .fields.last_update_id
        python -m bridge tap bridge:quarantine --from beginning
    """
    loaded = load_config(config)
    start = point(begin, datetime.now(UTC), "--from").after
    line = _as_json if as_json else _as_fields if fields else _described
    # Exit at once: nothing is held, and all output is flushed. Cancelling a read of the Redis
    # client is sometimes lost.
    signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))
    try:
        asyncio.run(_follow(loaded, streams, start, _printer(line, plain=as_json), count))
    except* BrokenPipeError:
        # The pipe's reader has closed it: no message, and nothing to flush at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


async def _follow(
    config: Config,
    streams: list[str],
    start: str,
    show: Callable[[list[Followed]], None],
    count: int | None,
) -> None:
    client = connect(
        resolve_url(config),
        name="bridge:tap",
        decode_responses=True,
        connect_timeout_s=config.redis.connect_timeout_s,
        command_timeout_s=max(5.0, config.redis.command_timeout_s),
    )
    left = sys.maxsize if count is None else count
    async with client:
        await _refuse_impossible(client, config.redis.keys, streams)
        async with asyncio.TaskGroup() as tasks:
            follower = Follower(client, config.redis.keys, streams, start, _report, tasks)
            async for batch in follower.entries():
                show(batch[:left])
                left -= len(batch)
                if left <= 0:
                    break
            follower.stop()


async def _refuse_impossible(client: Redis, space: KeySpace, streams: list[str]) -> None:
    """Raises ConfigError for a name that cannot be a stream, unless such a key exists."""
    registry: Any = ()
    present: set[str] = set()
    with contextlib.suppress(*UNAVAILABLE):  # the follower reports it, and waits
        registry = await client.hkeys(space.key(keys.STREAMS))
        for name in streams:
            if is_text(name) and await client.type(space.key(name)) == "stream":
                present.add(name)
    mistakes = [mistake(name, registry) for name in streams if name not in present]
    if any(mistakes):
        raise ConfigError("\n".join(filter(None, mistakes)))


def _printer(line: Line, *, plain: bool) -> Callable[[list[Followed]], None]:
    console = new_console()
    coloured = console.is_terminal and not plain

    def show(batch: list[Followed]) -> None:
        for entry in batch:
            if coloured:
                console.print(_coloured(entry, printable(line(entry))), soft_wrap=True)
            else:
                sys.stdout.write(printable(line(entry)) + "\n")
        sys.stdout.flush()

    return show


def _described(entry: Followed) -> str:
    return f"{_time(entry)} {entry.stream}  {describe_entry(entry.fields)}"


def _as_fields(entry: Followed) -> str:
    return f"{_time(entry)} {entry.stream}  {entry.entry_id} {plain_fields(entry.fields)}"


def _as_json(entry: Followed) -> str:
    whole = {"stream": entry.stream, "id": entry.entry_id, "fields": entry.fields}
    return json.dumps(whole, ensure_ascii=False)


def _coloured(entry: Followed, line: str) -> Text:
    text = Text(line)
    time_ends = line.index(" ")
    name_ends = time_ends + 1 + len(printable(entry.stream))
    text.stylize("dim", 0, time_ends)
    text.stylize("cyan", time_ends, name_ends)
    if entry.fields.get("type") in ("gap", "quarantined"):
        text.stylize("bold yellow", name_ends)
    return text


def _time(entry: Followed) -> str:
    """The exchange's time of the event; else its receive time; else the ID's time."""
    for name in ("engine_us", "event_us", "received_us"):
        text = entry.fields.get(name, "")
        if text.isdecimal() and len(text) <= 16:  # more digits are no time
            return clock(int(text))
    return clock(EntryId.parse(entry.entry_id).ms * 1000)


def _report(line: str) -> None:
    echo(f"tap: {line}", to_stderr=True)
