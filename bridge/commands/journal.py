"""`python -m bridge journal info|verify|export`: inspects a journal, in use or not."""

import sys
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from bridge.commands.options import ConfigFile
from bridge.journal.inspection import Damage, Summary, exported, summarise, utc
from bridge.runtime.config import load_config
from bridge.runtime.terminal import echo, printable
from bridge.runtime.time_range import HELP, span


class Task(StrEnum):
    """What to do with the journal."""

    INFO = "info"
    VERIFY = "verify"
    EXPORT = "export"


def command(
    task: Annotated[
        Task, typer.Argument(help="info: its content; verify: check it; export: as NDJSON.")
    ],
    path: Annotated[
        Path | None,
        typer.Argument(help="A journal's folder or one of its files; journal.dir by default."),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option("--from", metavar="WHERE", help=f"Export frames from then on: {HELP}."),
    ] = None,
    until: Annotated[
        str | None, typer.Option("--to", metavar="WHERE", help="Export frames until then.")
    ] = None,
    config: ConfigFile = None,
) -> None:
    """Inspect a journal. Nothing is changed; the bridge that writes it may be running.

    The files are plain lines, so `less`, `grep` and `zstd -dc` work as well. Exit status 1: verify
    found damage, or a time when the journal could not be written.

    Examples:

        python -m bridge journal info
        python -m bridge journal verify data/journal
        python -m bridge journal export --from 2026-11-23T04:00:00 > frames.ndjson
    """
    folder = path or load_config(config).journal.dir
    if task is Task.EXPORT:
        _export(folder, *span_us(since, until))
        return
    summary = summarise(folder)
    _print(summary)
    if task is Task.VERIFY:
        for sentence in summary.damage:
            echo("damage: " + sentence, to_stderr=True)
        for sentence in summary.unwritten:
            echo("not written: " + sentence, to_stderr=True)
        if summary.damage or summary.unwritten:
            raise typer.Exit(1)
        echo(
            "whole: every line is a record, no segment is missing in between, and all that was "
            "received could be written"
        )


def _export(folder: Path, from_us: int, to_us: int | None) -> None:
    damage = Damage()
    is_seen = sys.stdout.isatty()  # a program gets the bodies unchanged
    for line in exported(folder, from_us, to_us, damage):
        typer.echo(printable(line.decode()) if is_seen else line)
    if damage.lines:
        echo(f"{damage.lines} damaged lines were left out: verify lists them", to_stderr=True)


def span_us(since: str | None, until: str | None) -> tuple[int, int | None]:
    """`--from` and `--to` as µs. Raises ConfigError."""
    first, last = span(since, until, datetime.now(UTC))
    return 0 if first is None else first.us, None if last is None else last.us


def _print(summary: Summary) -> None:
    span = f"{utc(summary.first_us)} – {utc(summary.last_us)}" if summary.first_us else "empty"
    echo(f"segments  {summary.segments}")
    echo(f"on disk   {summary.disk_bytes:,} bytes for {summary.bytes:,} bytes of lines")
    echo(f"time      {span}")
    if summary.settled is not None:
        echo(f"settled   up to offset {summary.settled:,}")
    for sentence in summary.unwritten:
        echo(f"unwritten {sentence}")
    for title, counts in (("records", summary.records), ("streams", summary.streams)):
        echo()
        echo(title)
        for name, count in sorted(counts.items(), key=lambda each: (-each[1], each[0])):
            echo(f"{count:>12,}  {name}")
