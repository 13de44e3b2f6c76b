"""`python -m bridge journal info|verify|export`: look into a journal, running or not."""

from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from bridge.errors import ConfigError
from bridge.journal.reading import Damage, Summary, export_line, records, summarise, utc
from bridge.runtime.config import load_config

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_US_BY_DIGITS = {10: 1_000_000, 13: 1_000, 16: 1}  # of seconds, ms, µs: any time after 2001


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
    found damage, or a hole: a time when the journal could not be written.

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
            typer.echo("damage: " + sentence, err=True)
        for sentence in summary.holes:
            typer.echo("hole: not written, " + sentence, err=True)
        if summary.damage or summary.holes:
            raise typer.Exit(1)
        typer.echo(
            "whole: every line is a record, no segment is missing in between, and all that was "
            "heard could be written"
        )


def _export(folder: Path, from_us: int, to_us: int | None) -> None:
    damage = Damage()
    for record in records(folder, from_us, to_us, damage):
        typer.echo(export_line(record))
    if damage.lines:
        typer.echo(f"{damage.lines} damaged lines were left out: verify tells which", err=True)


def span_us(since: str | None, until: str | None) -> tuple[int, int | None]:
    """`--from` and `--to` as µs. Raises ConfigError."""
    from_us, to_us = moment_us(since) or 0, moment_us(until)
    if to_us is not None and to_us <= from_us:
        raise ConfigError(f"--to {until} is not after --from {since or utc(0)}")
    return from_us, to_us


def moment_us(text: str | None) -> int | None:
    """An ISO time (UTC where it names no zone), or seconds, ms or µs since 1970, as µs. Raises
    ConfigError.
    """
    if text is None:
        return None
    if text.isascii() and text.isdecimal() and len(text) in _US_BY_DIGITS:
        return int(text) * _US_BY_DIGITS[len(text)]
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(
            f"{text!r} is not a time: write 2026-11-23T04:00:00 (UTC), or seconds, ms or µs since "
            "1970 (10, 13 or 16 digits)"
        ) from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - _EPOCH) // timedelta(microseconds=1)


def _print(summary: Summary) -> None:
    span = f"{utc(summary.first_us)} – {utc(summary.last_us)}" if summary.first_us else "empty"
    typer.echo(f"segments  {summary.segments}")
    typer.echo(f"on disk   {summary.disk_bytes:,} bytes for {summary.bytes:,} bytes of lines")
    typer.echo(f"time      {span}")
    if summary.settled is not None:
        typer.echo(f"settled   up to offset {summary.settled:,}")
    for hole in summary.holes:
        typer.echo(f"a hole    {hole}")
    for title, counts in (("records", summary.records), ("streams", summary.streams)):
        typer.echo(f"\n{title}")
        for name, count in sorted(counts.items(), key=lambda each: (-each[1], each[0])):
            typer.echo(f"{count:>12,}  {name}")
