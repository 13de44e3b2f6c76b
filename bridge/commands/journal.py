"""`python -m bridge journal info|verify|export`: look into a journal, running or not."""

from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from bridge.errors import ConfigError
from bridge.journal.reading import Summary, export_line, records, summarise, utc
from bridge.runtime.config import load_config


class Task(StrEnum):
    """What to do with the journal."""

    INFO = "info"
    VERIFY = "verify"
    EXPORT = "export"


def command(
    task: Annotated[
        Task, typer.Argument(help="info: what it holds; verify: is it whole; export: as NDJSON.")
    ],
    path: Annotated[
        Path | None,
        typer.Argument(help="A journal's folder or one of its files; journal.dir by default."),
    ] = None,
    since: Annotated[
        str | None, typer.Option("--from", metavar="TIME", help="Export frames from then on (UTC).")
    ] = None,
    until: Annotated[
        str | None, typer.Option("--to", metavar="TIME", help="Export until then (UTC).")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="Configuration file; config.yaml where it is there.")
    ] = None,
) -> None:
    """Look into a journal. Nothing is changed; the bridge that writes it may be running.

    The files are plain lines, so `less`, `grep` and `zstd -dc` do as well. Exit code 1: verify
    found damage.

    Examples:

        python -m bridge journal info
        python -m bridge journal verify data/journal
        python -m bridge journal export --from 2026-11-23T04:00:00 > frames.ndjson
    """
    folder = path or load_config(config).journal.dir
    if task is Task.EXPORT:
        for record in records(folder, moment_us(since) or 0, moment_us(until)):
            typer.echo(export_line(record))
        return
    summary = summarise(folder)
    _print(summary)
    if task is Task.VERIFY:
        for sentence in summary.damage:
            typer.echo("damage: " + sentence, err=True)
        if summary.damage:
            raise typer.Exit(1)
        typer.echo("whole: every line is a record, and no segment is missing in between")


def moment_us(text: str | None) -> int | None:
    """An ISO time (UTC where it names no zone) or µs since 1970, as µs. Raises ConfigError."""
    if text is None:
        return None
    if text.isdigit():
        return int(text)
    try:
        moment = datetime.fromisoformat(text if _has_zone(text) else text + "+00:00")
    except ValueError:
        raise ConfigError(
            f"{text!r} is not a time: write 2026-11-23T04:00:00 (UTC), or microseconds since 1970"
        ) from None
    return int(moment.timestamp() * 1e6)


def _has_zone(text: str) -> bool:
    return text.endswith("Z") or "+" in text or text.count("-") > 2


def _print(summary: Summary) -> None:
    span = f"{utc(summary.first_us)} – {utc(summary.last_us)}" if summary.first_us else "empty"
    typer.echo(f"segments  {summary.segments}")
    typer.echo(f"on disk   {summary.disk_bytes:,} bytes for {summary.bytes:,} bytes of lines")
    typer.echo(f"time      {span}")
    if summary.settled is not None:
        typer.echo(f"settled   up to offset {summary.settled:,}")
    for title, counts in (("records", summary.records), ("streams", summary.streams)):
        typer.echo(f"\n{title}")
        for name, count in sorted(counts.items(), key=lambda each: (-each[1], each[0])):
            typer.echo(f"{count:>12,}  {name}")
