"""`python -m bridge status`: one look at Redis, and how the system is.

Reads and prints; what is alive, silent or in trouble is judged in `watch.picture`.
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bridge.errors import Fatal
from bridge.runtime.config import load_config
from bridge.runtime.redis_client import connect, masked_url, resolve_url
from bridge.watch import figures
from bridge.watch.history import History
from bridge.watch.picture import BridgeRow, Picture, State, draw
from bridge.watch.reader import AWAY, look, reason

_COLOURS = {State.UP: "green", State.STOPPED: "yellow", State.SILENT: "bold red"}


def command(
    config: Annotated[
        Path | None, typer.Option(help="Configuration file; config.yaml where it is there.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, for programs.")] = False,
) -> None:
    """Say from Redis alone how bridges, streams and consumers are.

    Exit status: 0 a bridge is up and healthy (connected to the exchange, nothing refused by Redis);
    1 none is, or Redis is out of reach.

    Examples:

        python -m bridge status
        python -m bridge status --json | jq .streams
    """
    loaded = load_config(config)
    url = resolve_url(loaded)
    client = connect(
        url,
        name="bridge:viewer",
        decode_responses=True,
        connect_timeout_s=loaded.redis.connect_timeout_s,
        command_timeout_s=loaded.redis.command_timeout_s,
    )

    async def one_look() -> Picture:
        async with client:
            history = History()
            history.add(await look(client, loaded.redis.key_prefix))
            return draw(history)

    try:
        picture = asyncio.run(one_look())
    except AWAY as error:
        where = masked_url(url)
        raise Fatal(f"Redis at {where} cannot be read: {reason(error)}") from None
    verdict = _verdict(picture)
    if as_json:
        typer.echo(json.dumps(_plain(picture, masked_url(url))))
    else:
        _print(picture, Console(width=None if sys.stdout.isatty() else 160, highlight=False))
    if verdict:
        raise Fatal(verdict)


def _verdict(picture: Picture) -> str:
    """What is wrong with the bridges, in one line; empty where one is healthy."""
    if any(bridge.is_healthy for bridge in picture.bridges):
        return ""
    for bridge in picture.bridges:
        if bridge.state is State.UP:
            return f"bridge {bridge.status.instance} is up, but {bridge.troubles[0]}"
    if not picture.bridges:
        there = sum(stream.entries > 0 for stream in picture.streams)
        if there:
            return (
                f"no bridge publishes here; {there} streams are here, as a replay leaves them: "
                "start a bridge with `python -m bridge run`"
            )
        return "no bridge has been here: start one with `python -m bridge run`"
    told = "; ".join(
        f"{bridge.status.instance} is {_since(bridge, picture)}" for bridge in picture.bridges
    )
    return f"no bridge is up: {told}"


def _since(bridge: BridgeRow, picture: Picture) -> str:
    age = figures.age(picture.now_us - bridge.since_us)
    return f"stopped {age} ago" if bridge.state is State.STOPPED else f"{bridge.state} for {age}"


def _print(picture: Picture, console: Console) -> None:
    for table in (_bridges(picture), _connections(picture), _streams(picture), _consumers(picture)):
        if table.row_count:
            console.print(table)
            console.print()
    words = f", the newest: {picture.quarantine_words}" if picture.quarantined else ""
    console.print(Text(f"Quarantined messages: {figures.count(picture.quarantined)}{words}"))


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, show_edge=False)
    for column in columns:
        heading = column.removeprefix(">")
        table.add_column(heading, justify="right" if column != heading else "left")
    return table


def _bridges(picture: Picture) -> Table:
    table = _table(
        "Bridges", "bridge", "state", "turn", "process", "exchange", ">pending", "trouble"
    )
    for bridge in picture.bridges:
        status = bridge.status
        table.add_row(
            status.instance,
            Text(_since(bridge, picture), style=_COLOURS[bridge.state]),
            bridge.turn,
            f"{status.pid} on {status.host}",
            Text(status.exchange),
            figures.count(status.pending),
            Text("\n".join(bridge.troubles), style="red"),
        )
    return table


def _connections(picture: Picture) -> Table:
    table = _table(
        "Connections", "bridge", "connection", ">wanted", ">heard", "refused or silent", "trouble"
    )
    for bridge in picture.bridges:
        if bridge.state is not State.UP:
            continue
        for connection in bridge.status.connections:
            unheard = {**connection.refused, **connection.silent}
            refused = (f"{name}: {reason}" for name, reason in unheard.items())
            table.add_row(
                bridge.status.instance,
                connection.name,
                str(connection.wanted),
                str(connection.confirmed),
                Text("\n".join(refused), style="red"),
                Text(connection.trouble, style="red"),
            )
    return table


def _streams(picture: Picture) -> Table:
    table = _table(
        "Streams",
        "stream",
        ">entries",
        ">published",
        ">late",
        ">gaps",
        ">mended",
        ">pending",
        ">age",
        "look at",
    )
    for stream in picture.streams:
        counted = stream.counted
        table.add_row(
            stream.name,
            figures.count(stream.entries),
            figures.count(counted.published),
            figures.count(counted.late),
            Text(str(counted.gaps), style="yellow" if counted.gaps else ""),
            figures.count(counted.repaired),
            figures.count(counted.pending),
            figures.age(stream.age_us),
            Text(", ".join(stream.marks), style="red" if stream.failed else "yellow"),
        )
    return table


def _consumers(picture: Picture) -> Table:
    table = _table(
        "Consumers", "consumer", "state", ">handled", ">per s", ">p50", ">p99", "has made"
    )
    for consumer in picture.consumers:
        status = consumer.status
        age = figures.age(consumer.age_us)
        table.add_row(
            consumer.name,
            Text(
                "up" if consumer.state is State.UP else f"silent for {age}",
                style=_COLOURS[consumer.state],
            ),
            figures.count(status.handled),
            figures.rate(status.rate),
            figures.milliseconds(status.latency_ms.p50),
            figures.milliseconds(status.latency_ms.p99),
            Text(status.made),
        )
    return table


def _plain(picture: Picture, redis: str) -> dict[str, Any]:
    return {
        "healthy": not _verdict(picture),
        "verdict": _verdict(picture),
        "redis": redis,
        "now_us": picture.now_us,
        "quarantined": picture.quarantined,
        "gaps": picture.gaps,
        "repaired": picture.repaired,
        "pending": picture.pending,
        "bridges": [
            bridge.status.model_dump(exclude={"streams"})
            | {"state": bridge.state.value, "since_us": bridge.since_us}
            | {"troubles": list(bridge.troubles)}
            for bridge in picture.bridges
        ],
        "streams": {
            stream.name: stream.counted.model_dump()
            | {"entries": stream.entries, "age_us": stream.age_us, "marks": list(stream.marks)}
            for stream in picture.streams
        },
        "consumers": [
            consumer.status.model_dump() | {"state": consumer.state.value}
            for consumer in picture.consumers
        ],
    }
