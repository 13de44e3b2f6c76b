"""`python -m consumers status`: lag and workers of groups, as a table or as JSON."""

import sys
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Annotated

import typer
from redis.asyncio import Redis
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from bridge.errors import ConfigError, Fatal
from bridge.runtime.masking import masked_text
from bridge.runtime.tables import Width, table
from bridge.runtime.terminal import echo, echo_json, new_console, printable
from consumers.commands.fetching import ConfigOption, StreamsOption, fetch, no_group
from consumers.kit.lag import GroupLag, StreamLag, group_lags
from consumers.kit.redis.keys import Keys
from consumers.kit.redis.registry import FIRST_SHARD

_NONE_YET = "no groups yet: python -m consumers run tail"
_SIGNS = {"exact": "", "counted": "~", "at_most": "≤"}


def command(
    group: Annotated[str | None, typer.Option(help="This group only.")] = None,
    streams: StreamsOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, for programs.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Repeat until Ctrl-C.")] = False,
    every: Annotated[
        float, typer.Option(min=0.2, max=86_400, help="Seconds between two polls.")
    ] = 1.0,
    config: ConfigOption = None,
) -> None:
    """Show the progress of every group: lag in entries and seconds, pending, dead letters, owners.

    A `~` before a number: from counters; `≤`: an upper bound. `behind` is the age of the oldest
    unread entry, by its ID. Of a Cluster with several shards, those that do not answer are named,
    and the data of the other shards is shown; without shard 0 workers are unknown, and the exit
    status is 1. For an unknown group it is 2. For example:

        python -m consumers status --watch

        python -m consumers status --json | jq '.groups[] | {group, lag, behind_s}'
    """

    unavailable: dict[int, str] = {}

    async def read(redis: Redis, keys: Keys) -> list[GroupLag]:
        unavailable.clear()
        return await group_lags(redis, keys, None, tuple(streams or ("*",)), unavailable)

    console = new_console(None if sys.stdout.isatty() else 160)
    is_unavailable = False
    while True:
        try:
            groups = fetch(config, read)
        except Fatal as error:
            if not watch or isinstance(error, ConfigError):
                raise
            if not is_unavailable:
                echo(f"{error}; trying again", to_stderr=True)
            is_unavailable = True
        else:
            is_unavailable = False
            if watch and console.is_terminal and not as_json:
                console.clear()
            chosen, none = _chosen(group, groups, unavailable, wait=watch)
            show(chosen, unavailable, console, as_json=as_json, none=none)
        if not watch:
            raise typer.Exit(1 if FIRST_SHARD in unavailable else 0)
        time.sleep(every)


def _chosen(
    group: str | None, groups: Sequence[GroupLag], unavailable: Collection[int], *, wait: bool
) -> tuple[Sequence[GroupLag], str]:
    """All groups, or the requested one; and the line to print if there is none. Raises ConfigError
    if only other groups exist, unless it may still appear (`wait`) or be in an unavailable shard.
    """
    chosen = [one for one in groups if group in (None, one.name)]
    if group is None or chosen or unavailable or not groups:
        return chosen, _NONE_YET
    absent = no_group(group, [one.name for one in groups])
    if not wait:
        raise absent
    return chosen, str(absent)


def show(
    groups: Sequence[GroupLag],
    unavailable: Mapping[int, str],
    console: Console,
    *,
    as_json: bool,
    none: str = _NONE_YET,
) -> None:
    """Print the groups. `unavailable`: shard that does not answer → reason. `none`: the line if
    there is no group, and every shard answers.
    """
    reasons = {
        str(shard): masked_text(why).removesuffix(".") for shard, why in sorted(unavailable.items())
    }
    if as_json:
        echo_json({"groups": [one.as_dict() for one in groups], "unavailable_shards": reasons})
        return
    for shard, why in reasons.items():
        lacks = "; nothing is known of workers" if shard == str(FIRST_SHARD) else ""
        line = f"{why}. Its streams are left out{lacks}"
        console.print(Text(printable(line), style="bold red"))
    if groups:
        console.print(_shown(groups, unavailable, console.width))
    else:
        console.print(Text("no groups in the other shards" if unavailable else printable(none)))


def _shown(groups: Sequence[GroupLag], unavailable: Collection[int], room: int) -> RenderableType:
    parts = [part for one in groups for part in (_head(one, unavailable), _table(one, room))]
    return Group(_verdict(groups, unavailable), Text(), *parts)


def _verdict(groups: Sequence[GroupLag], unavailable: Collection[int]) -> Text:
    """A line with the state of all groups: their troubles, lag and delay."""
    plain = [one.as_dict() for one in groups]
    idle = [one.name for one in groups if _is_idle(one, unavailable)]
    shards = f"{len(unavailable)} shard{'' if len(unavailable) == 1 else 's'} unavailable"
    troubles = [
        shards if unavailable else "",
        f"no worker of {', '.join(idle)}" if idle else "",
        *(
            f"{sum(one[name] for one in plain)} {label}"
            for name, label in (("dead", "dead letters"), ("missed", "entries missed"))
            if any(one[name] for one in plain)
        ),
    ]
    behind_s = max(one["behind_s"] for one in plain)
    lag = sum(one["lag"] for one in plain)
    verdict = ", ".join(filter(None, troubles)) or "all well"
    count = "1 group" if len(groups) == 1 else f"{len(groups)} groups"
    rest = f"{count}, lag {lag}, at most {_seconds(behind_s)} behind"
    style = "bold yellow" if any(troubles) else "bold green"
    return Text(printable(f"{verdict}: {rest}"), style=style)


def _is_idle(one: GroupLag, unavailable: Collection[int]) -> bool:
    """Whether a group of the kit has no live worker; False if workers are unknown."""
    is_known = one.mode and FIRST_SHARD not in unavailable
    return bool(is_known) and not any(worker.is_alive for worker in one.workers)


def _head(one: GroupLag, unavailable: Collection[int]) -> Text:
    plain = one.as_dict()
    alive = [worker for worker in one.workers if worker.is_alive]
    rate = sum(worker.rate for worker in alive)
    workers = f"{len(alive)} worker{'' if len(alive) == 1 else 's'}"
    parts = [
        one.mode or "of another program",
        workers if one.mode and FIRST_SHARD not in unavailable else "",
        f"{rate:.0f}/s" if alive else "",
        f"lag {plain['lag']}",
        f"behind {_seconds(plain['behind_s'])}" if plain["lag"] else "",
        f"retried {plain['retried']}" if plain["retried"] else "",
        f"not decoded {plain['undecodable']}" if plain["undecodable"] else "",
        f"dead letters {plain['dead']}" if plain["dead"] else "",
        f"missed {plain['missed']}" if plain["missed"] else "",
    ]
    trouble = _is_idle(one, unavailable) or plain["dead"] or plain["missed"] or plain["undecodable"]
    return Text.assemble(
        (printable(one.name), "bold yellow" if trouble else "bold"),
        "  ",
        "  ".join(printable(part) for part in parts if part),
    )


def _table(one: GroupLag, room: int) -> Table:
    columns = [
        ("stream", Width.NAME), ("lag", Width.NUMBER), ("behind", Width.NUMBER),
        ("pending", Width.NUMBER), ("oldest", Width.NUMBER), ("dead", Width.NUMBER),
        ("missed", Width.NUMBER), ("blocked at", Width.NAME), ("owner", Width.NAME),
        ("position", Width.NAME),
    ]  # fmt: skip
    rows = [
        [
            Text(printable(cell), style="yellow" if stream.blocked_at else "")
            for cell in _row(stream)
        ]
        for stream in one.streams
    ]
    spare = ("position", "oldest", "behind", "owner", "missed", "blocked at")
    return table("", columns, rows, room=room, keep=("lag",), spare=spare)


def _row(stream: StreamLag) -> Sequence[str]:
    return (
        stream.stream,
        _SIGNS[stream.precision] + str(stream.lag),
        _seconds(stream.behind_s) if stream.lag else "",
        str(stream.pending),
        _seconds(stream.oldest_pending_s) if stream.pending else "",
        str(stream.dead),
        str(stream.missed),
        stream.blocked_at,
        stream.owner,
        stream.position,
    )


def _seconds(seconds: float) -> str:
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "m")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.1f} s"
