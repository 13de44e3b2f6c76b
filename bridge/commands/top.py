"""`python -m bridge top`: the live view of a running system, from Redis alone.

Handles options, terminal and signals. `view.viewer` reads and shows.
"""

import asyncio
import signal
import sys
from typing import Annotated

import typer

from bridge.commands.options import ConfigFile
from bridge.errors import Fatal
from bridge.runtime.config import Config, load_config
from bridge.runtime.redis_client import connect, masked_url, resolve_url
from bridge.runtime.redis_trouble import unreadable
from bridge.runtime.stopping import stopping
from bridge.runtime.terminal import echo, new_console
from bridge.view.plain import stream_lines, summary_lines
from bridge.view.reader import UNAVAILABLE
from bridge.view.view_model import ViewModel
from bridge.view.viewer import NOT_YET, View, show_live, show_plain, view_model_of

INTERRUPTED = 130
FOOTER = (" q leaves · ? keys · python -m bridge tap 'trade.*' follows entries",)
LIVE_EVERY_S = 0.5
PLAIN_EVERY_S = 5.0
ONCE_EVERY_S = 1.0


def command(
    config: ConfigFile = None,
    once: Annotated[
        bool, typer.Option("--once", help="Print all streams and consumers once, as lines.")
    ] = False,
    every: Annotated[
        float | None,
        typer.Option(
            min=0.1,
            metavar="S",
            help=f"Seconds between two polls. [default: {LIVE_EVERY_S:g} on a terminal, "
            f"{PLAIN_EVERY_S:g} elsewhere]",
        ),
    ] = None,
    for_seconds: Annotated[
        float | None, typer.Option("--for", min=0, metavar="S", help="Leave after so long.")
    ] = None,
) -> None:
    """Watch streams, rates, last values, consumers and latency, live.

    Works on any running system from Redis alone. Without a terminal it prints plain lines. "p50"
    and "p99" of a consumer: from the bridge's receipt of a message until the consumer was done.

    Arrows, PgUp and PgDn scroll, Enter opens a stream and an entry, `s` sorts, `/` searches, space
    pauses, `?` shows all keys. The line above turns red when Redis does not answer.

    q or Ctrl-C quits. Exit status: 0, 130 after Ctrl-C; 1 when Redis was never reached.

    Examples:

        python -m bridge top
        python -m bridge top --once
        BRIDGE_REDIS__URL=redis://127.0.0.1:6400/0 python -m bridge top --every 1
    """
    loaded = load_config(config)
    url = resolve_url(loaded)
    raise typer.Exit(asyncio.run(_top(loaded, url, every, for_seconds, is_once=once)))


async def _top(
    config: Config, url: str, every_s: float | None, for_s: float | None, *, is_once: bool
) -> int:
    client = connect(
        url,
        name="bridge:viewer",
        decode_responses=True,
        connect_timeout_s=config.redis.connect_timeout_s,
        command_timeout_s=config.redis.command_timeout_s,
    )
    console = new_console()
    live = console.is_terminal and not is_once
    default_s = ONCE_EVERY_S if is_once else LIVE_EVERY_S if live else PLAIN_EVERY_S
    view = View(client, config.redis.keys, masked_url(url), every_s or default_s, FOOTER)
    stop, signals = stopping(for_s)
    async with client:
        if is_once:
            await _once(view, url)
            return 0
        seen: ViewModel | Exception | None
        if live:
            seen = await show_live(view, console, stop)
        else:
            seen = await show_plain(view, _print_line, stop)
    if signals and signals[0] == signal.SIGINT:
        return INTERRUPTED
    if isinstance(seen, Exception):
        raise unreadable(seen, url)
    if seen is None:
        raise Fatal(f"Redis at {view.where}: {NOT_YET}")
    return 0


async def _once(view: View, url: str) -> None:
    try:
        view_model = await view_model_of(view)
    except UNAVAILABLE as error:
        raise unreadable(error, url) from None
    for line in (*summary_lines(view_model), *stream_lines(view_model)):
        _print_line(line)


def _print_line(line: str) -> None:
    echo(line)
    sys.stdout.flush()
