"""`python -m consumers status`: how groups stand, as a table or as JSON."""

import json
import sys
import time
from collections.abc import Sequence
from typing import Annotated

import typer
from redis.asyncio import Redis
from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from bridge.errors import ConfigError, Fatal
from bridge.runtime.masking import masked_text
from consumers.commands.asking import ConfigOption, StreamsOption, ask
from consumers.keys import Keys
from consumers.standing import GroupStanding, Place, standings

_SURE = {"exact": "", "counted": "~", "at_most": "≤"}


def command(
    group: Annotated[str | None, typer.Option(help="This group only.")] = None,
    streams: StreamsOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, for programs.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Again and again, until Ctrl-C.")] = False,
    every: Annotated[float, typer.Option(min=0.2, help="Seconds between two looks.")] = 1.0,
    config: ConfigOption = None,
) -> None:
    """Say how far every group is: lag in entries and seconds, pending, dead letters, owners.

    A `~` before a number: from counters; `≤`: at most that. `behind` is the age of the oldest entry
    not read, by its ID. For example:

        python -m consumers status --watch

        python -m consumers status --json | jq '.groups[] | {group, lag, behind_s}'
    """

    async def question(redis: Redis, keys: Keys) -> list[GroupStanding]:
        return await standings(redis, keys, group, tuple(streams or ("*",)))

    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
    is_away = False
    while True:
        try:
            found = ask(config, question)
        except Fatal as error:
            if not watch or isinstance(error, ConfigError):
                raise
            if not is_away:
                typer.echo(masked_text(f"{error}; looking again"), err=True)
            is_away = True
        else:
            is_away = False
            if watch and console.is_terminal and not as_json:
                console.clear()
            _show(found, console, as_json=as_json)
        if not watch:
            return
        time.sleep(every)


def _show(found: Sequence[GroupStanding], console: Console, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"groups": [one.plain() for one in found]}))
    else:
        console.print(_shown(found))


def _shown(found: Sequence[GroupStanding]) -> RenderableType:
    if not found:
        return Text("no groups yet: python -m consumers run tail")
    return Group(*(part for one in found for part in (_head(one), _table(one))))


def _head(one: GroupStanding) -> Text:
    plain = one.plain()
    alive = [worker for worker in one.workers if worker.is_alive]
    rate = sum(worker.rate for worker in alive)
    words = [
        one.mode or "of another program",
        f"{len(alive)} workers" if one.mode else "",
        f"{rate:.0f}/s" if alive else "",
        f"lag {plain['lag']}",
        f"behind {_seconds(plain['behind_s'])}" if plain["lag"] else "",
        f"retried {plain['retried']}" if plain["retried"] else "",
        f"dead letters {plain['dead']}" if plain["dead"] else "",
        f"missed {plain['missed']}" if plain["missed"] else "",
    ]
    trouble = (one.mode and not alive) or plain["dead"] or plain["missed"]
    return Text.assemble(
        (one.name, "bold yellow" if trouble else "bold"), "  ", "  ".join(w for w in words if w)
    )


def _table(one: GroupStanding) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("stream", no_wrap=True)
    table.add_column("owner")
    table.add_column("position", no_wrap=True)
    for name in ("lag", "behind", "pending", "oldest", "dead", "missed"):
        table.add_column(name, justify="right")
    for place in one.places:
        table.add_row(*_row(place), style="yellow" if place.blocked_at else None)
    return table


def _row(place: Place) -> Sequence[str]:
    return (
        place.stream,
        place.owner,
        place.position + (" blocked" if place.blocked_at else ""),
        _SURE[place.sure] + str(place.lag),
        _seconds(place.behind_s) if place.lag else "",
        str(place.pending or ""),
        _seconds(place.oldest_pending_s) if place.pending else "",
        str(place.dead or ""),
        str(place.missed or ""),
    )


def _seconds(seconds: float) -> str:
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "m")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.1f} s"
