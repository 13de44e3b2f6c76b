"""`python -m bridge audit STREAM`: certifies a stream's entries wherever they are kept."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from bridge.commands.explain import stream_of
from bridge.commands.options import AsJson, ConfigFile, JournalPath
from bridge.contract.identity import EntryId
from bridge.errors import ConfigError
from bridge.inspect.audit import Audit
from bridge.inspect.certificate import Certificate, lines
from bridge.inspect.redis_stream import reading_redis
from bridge.runtime.collector import settle_collector
from bridge.runtime.config import Config, load_config
from bridge.runtime.redis_client import masked_url, resolve_url
from bridge.runtime.terminal import echo_json, echo_labelled
from bridge.runtime.time_range import HELP, span


def command(
    stream: Annotated[str, typer.Argument(help="The stream's name, such as trade.SOL_USDC.")],
    since: Annotated[
        str | None, typer.Option("--from", metavar="WHERE", help=f"From there on: {HELP}.")
    ] = None,
    until: Annotated[
        str | None, typer.Option("--to", metavar="WHERE", help="Until there; else until now.")
    ] = None,
    archive: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Also the Parquet files of the consumer `archive`."),
    ] = None,
    journal: JournalPath = None,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Certify a stream: its entries, the range of dense numbers, a whole book, each gap.

    Compares Redis with what the journal has received and, with --archive, with the archive, entry
    by entry. Reads only; the bridge may be running.

    Exit status: 0 nothing is missing outside of its gaps; 1 something is, or two sources differ.

    Examples:

        python -m bridge audit trade.SOL_USDC
        python -m bridge audit depth.SOL_USDC --from 2h --archive archive
        python -m bridge audit account.orderUpdate --json
    """
    loaded = load_config(config)
    first, last = span(since, until, datetime.now(UTC))
    audit_ends = None if last is None else last.first
    certificate = _audited(
        loaded, stream, EntryId(0, 0) if first is None else first.first, audit_ends,
        journal, archive,
    )  # fmt: skip
    if as_json:
        echo_json(certificate.plain())
    else:
        echo_labelled([(stream, ""), *lines(certificate)])
    if certificate.problems:
        raise typer.Exit(1)


def _audited(
    config: Config,
    name: str,
    first: EntryId,
    until: EntryId | None,
    journal: Path | None,
    archive: Path | None,
) -> Certificate:
    stream = stream_of(name)
    settle_collector()
    with reading_redis(config) as client:
        audit = Audit(client, config.redis.keys, stream, first, until)
        audit.redis_and_archive(masked_url(resolve_url(config)), archive)
    folder = journal or config.journal.dir
    if journal is not None or folder.is_dir():
        try:
            audit.journal(folder)
        except ConfigError as error:
            if journal is not None:
                raise
            audit.certificate.notes.append(f"the journal was not read: {error}")
    else:
        audit.certificate.notes.append(f"no journal was read: there is none in {folder}")
    return audit.certificate
