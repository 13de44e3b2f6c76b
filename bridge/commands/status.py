"""`python -m bridge status`: polls Redis once and prints the system's state.

Reads and prints; `view.view_model` judges what is up, silent or in trouble.
"""

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bridge.commands.options import AsJson, ConfigFile
from bridge.core.counters import StreamCounters
from bridge.errors import Fatal
from bridge.runtime.config import load_config
from bridge.runtime.redis_client import connect, masked_url, resolve_url
from bridge.runtime.redis_trouble import unreadable
from bridge.runtime.tables import Cell, Width, table
from bridge.runtime.terminal import echo_json, new_console
from bridge.view import figures
from bridge.view.document import status_document
from bridge.view.history import History
from bridge.view.reader import UNAVAILABLE, read_sample
from bridge.view.verdict import Level, Verdict, judge, since
from bridge.view.view_model import State, ViewModel, draw

_COLOURS = {State.UP: "green", State.STOPPED: "yellow", State.SILENT: "bold red"}


def command(
    config: ConfigFile = None,
    as_json: AsJson = False,
    instance: Annotated[
        str | None, typer.Option(help="Judge this bridge alone (else the configuration's, if set).")
    ] = None,
    own: Annotated[
        bool,
        typer.Option(
            "--own", help="Judge the bridge of this configuration alone, also by its host's name."
        ),
    ] = False,
) -> None:
    """Show the state of bridges, streams and consumers, from Redis alone.

    Exit status: 0 a bridge is up and healthy (connected to the exchange, nothing refused by Redis);
    1 none is, or Redis is unreachable. Where `instance` is set, only that bridge counts.

    Examples:

        python -m bridge status
        python -m bridge status --instance a
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

    async def poll_once() -> ViewModel:
        async with client:
            history = History()
            history.add(await read_sample(client, loaded.redis.keys))
            return draw(history)

    try:
        view_model = asyncio.run(poll_once())
    except UNAVAILABLE as error:
        raise unreadable(error, url) from None
    if instance is None and (own or "instance" in loaded.model_fields_set):
        instance = loaded.instance
    verdict = judge(view_model, instance)
    if as_json:
        echo_json(status_document(view_model, masked_url(url), verdict))
    else:
        show(view_model, verdict, new_console(None if sys.stdout.isatty() else 160))
    if verdict.level is Level.BAD:
        raise Fatal(verdict.text)


def show(view_model: ViewModel, verdict: Verdict, console: Console) -> None:
    """Print the state. A bad verdict is not included: it becomes the command's error message."""
    if verdict.level is not Level.BAD:
        console.print(Text(_well(view_model), style="bold green"))
        for why in verdict.reasons:
            console.print(Text(f"  ! {why}", style="yellow"))
        console.print()
    for made in (_bridges, _connections, _streams, _consumers):
        part = made(view_model, console.width)
        if part.row_count:
            console.print(part)
            console.print()
    text = f", the newest: {view_model.newest_quarantined}" if view_model.quarantined else ""
    if 0 not in view_model.unavailable:
        console.print(Text(f"Quarantined messages: {figures.count(view_model.quarantined)}{text}"))
    if view_model.unreadable:
        console.print(Text(f"Skipped: {view_model.unreadable} unreadable statuses or stream names"))


def _well(view_model: ViewModel) -> str:
    """The line for a healthy system, with its numbers."""
    up = sum(bridge.state is State.UP for bridge in view_model.bridges)
    parts = [
        f"healthy: {_several(up, 'bridge')} up",
        _several(len(view_model.streams), "stream"),
        _several(view_model.gaps, "gap"),
    ]
    silent = sum(consumer.state is not State.UP for consumer in view_model.consumers)
    if silent:
        parts.append(f"{_several(silent, 'consumer')} silent")
    if view_model.pending:
        parts.append(f"{figures.count(view_model.pending)} waiting for Redis")
    return ", ".join(parts)


def _several(number: int, noun: str) -> str:
    return f"{figures.count(number)} {noun}" + ("" if number == 1 else "s")


def _bridges(view_model: ViewModel, room: int) -> Table:
    columns = [
        ("bridge", Width.NAME), ("state", Width.NAME), ("turn", Width.TEXT),
        ("process", Width.TEXT), ("exchange", Width.TEXT), ("pending", Width.NUMBER),
        ("trouble", Width.TEXT),
    ]  # fmt: skip
    rows = [
        (
            bridge.status.instance,
            Text(since(bridge, view_model.now_us), style=_COLOURS[bridge.state]),
            bridge.turn,
            f"{bridge.status.pid} on {bridge.status.host}",
            Text(bridge.status.exchange),
            figures.count(bridge.status.pending),
            Text("\n".join(bridge.troubles), style="red"),
        )
        for bridge in view_model.bridges
    ]
    return table("Bridges", columns, rows, room=room, spare=("process", "exchange"))


def _connections(view_model: ViewModel, room: int) -> Table:
    columns = [
        ("bridge", Width.NAME), ("connection", Width.NAME), ("wanted", Width.NUMBER),
        ("received", Width.NUMBER), ("refused or stale", Width.TEXT), ("trouble", Width.TEXT),
    ]  # fmt: skip
    rows = []
    for bridge in view_model.bridges:
        if bridge.state is not State.UP:
            continue
        for connection in bridge.status.connections:
            not_received = {**connection.refused, **connection.stale}
            refused = (f"{name}: {reason}" for name, reason in not_received.items())
            rows.append(
                (
                    bridge.status.instance,
                    connection.name,
                    str(connection.wanted),
                    str(connection.confirmed),
                    Text("\n".join(refused), style="red"),
                    Text(connection.trouble, style="red"),
                )
            )
    return table("Connections", columns, rows, room=room, keep=("wanted", "received"))


def _streams(view_model: ViewModel, room: int) -> Table:
    shown = [each.name for each in fields(StreamCounters) if each.metadata.get("is_shown")]
    columns = [
        ("stream", Width.NAME), ("entries", Width.NUMBER),
        *((name, Width.NUMBER) for name in shown),
        ("pending", Width.NUMBER), ("age", Width.NUMBER), ("marks", Width.TEXT),
    ]  # fmt: skip
    rows: list[Sequence[Cell]] = []
    for stream in view_model.streams:
        numbers = asdict(stream.status.counters)
        rows.append(
            (
                stream.name,
                stream.entries_text,
                *(_counted(name, numbers[name]) for name in shown),
                figures.count(stream.status.pending),
                stream.age_text,
                Text(", ".join(stream.marks), style="red" if stream.is_failing else "yellow"),
            )
        )
    spare = ("published", "late", "recovered", "age")
    return table("Streams", columns, rows, room=room, keep=("entries",), spare=spare)


def _counted(name: str, number: int) -> Text:
    return Text(figures.count(number), style="yellow" if name == "gaps" and number else "")


def _consumers(view_model: ViewModel, room: int) -> Table:
    columns = [
        ("consumer", Width.NAME), ("state", Width.NAME), ("handled", Width.NUMBER),
        ("failed", Width.NUMBER), ("per s", Width.NUMBER), ("p50", Width.NUMBER),
        ("p99", Width.NUMBER), ("has made", Width.TEXT),
    ]  # fmt: skip
    rows = []
    for consumer in view_model.consumers:
        status = consumer.status
        age = figures.age(consumer.age_us)
        state = "up" if consumer.state is State.UP else f"silent for {age}"
        rows.append(
            (
                consumer.name,
                Text(state, style=_COLOURS[consumer.state]),
                figures.count(status.handled),
                figures.count(status.failed + status.undecodable),
                figures.rate(status.rate),
                figures.milliseconds(status.latency_ms.p50),
                figures.milliseconds(status.latency_ms.p99),
                Text(status.made),
            )
        )
    spare = ("p50", "p99", "per s", "has made")
    return table("Consumers", columns, rows, room=room, keep=("handled",), spare=spare)
