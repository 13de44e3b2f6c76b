"""`python -m bridge book MARKET --at TIME`: the exact order book at a time."""

from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from bridge.commands.explain import utc
from bridge.commands.options import AsJson, ConfigFile, JournalPath
from bridge.contract.events import Depth
from bridge.contract.identity import EntryId
from bridge.contract.streams import Stream
from bridge.core.records import BodyKind, Frame, RestBody
from bridge.core.translate import Rejected, translate
from bridge.errors import ConfigError, Fatal
from bridge.inspect.archive_stream import ArchiveStream
from bridge.inspect.book_at import (
    BookAt,
    From,
    JournalBook,
    before_gap,
    book_of,
    depth_streams,
)
from bridge.inspect.redis_stream import RedisStream, reading_redis
from bridge.journal.inspection import NO_FRAME, lines_of, segments_between
from bridge.journal.segments import Segment
from bridge.protocol.envelope import Data, parse
from bridge.protocol.rest import BadBody, depth_body
from bridge.runtime.config import Config, load_config
from bridge.runtime.terminal import echo, echo_json, echo_labelled
from bridge.runtime.time_range import HELP, Point, point

_SEQ_MAX = 2**64 - 1
_HOUR_US = 3_600_000_000


def command(
    market: Annotated[
        str, typer.Argument(help="The market, such as SOL_USDC, or its depth stream.")
    ],
    at: Annotated[str, typer.Option("--at", metavar="WHERE", help=f"When: {HELP}.")] = "new",
    levels: Annotated[
        int, typer.Option(min=1, max=100_000, help="How many of each side, from the best on.")
    ] = 10,
    source: Annotated[
        From | None, typer.Option("--from", help="Where from; else the first that knows it.")
    ] = None,
    archive: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The folder of the consumer `archive`.")
    ] = None,
    journal: JournalPath = None,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Show the order book of a market at any time, exact to the change; or now.

    With an entry's ID the book is exact after that entry. Where it cannot be known (a gap, before
    the first snapshot) the reason is printed. Reads only; the bridge may be running.

    Exit status: 0 the book is known; 1 it is not, or Redis is out of reach.

    Examples:

        python -m bridge book SOL_USDC
        python -m bridge book SOL_USDC --at 2026-09-02T16:44:00.250 --levels 5
        python -m bridge book SOL_USDC --at 2h --from archive --archive archive
    """
    loaded = load_config(config)
    moment = point(at, datetime.now(UTC), "--at")
    found: BookAt | None = None
    reasons = []
    for one in [source] if source is not None else _sources(loaded, journal, archive):
        found = _book_from(loaded, one, depth_streams(market), moment, levels, journal, archive)
        if found.is_known:
            break
        reasons.append(found.unknown)
    assert found is not None, "there is always one source"
    if as_json:
        echo_json(asdict(found) | {"known": found.is_known, "tried": reasons})
    elif found.is_known:
        _show(market, found, moment)
    if not found.is_known:
        raise Fatal("\n".join(f"the book cannot be known: {why}" for why in reasons))


def _sources(config: Config, journal: Path | None, archive: Path | None) -> Iterator[From]:
    yield From.REDIS
    if journal is not None or config.journal.dir.is_dir():
        yield From.JOURNAL
    if archive is not None:
        yield From.ARCHIVE


def _book_from(
    config: Config,
    source: From,
    streams: list[Stream],
    moment: Point,
    count: int,
    journal: Path | None,
    archive: Path | None,
) -> BookAt:
    last = moment.first if moment.first.seq else EntryId(moment.first.ms, _SEQ_MAX)
    match source:
        case From.REDIS:
            return _from_redis(config, streams, last, count)
        case From.ARCHIVE:
            if archive is None:
                raise ConfigError("--from archive: give its folder with --archive DIR")
            return _from_archive(archive, streams[0], last, count)
        case From.JOURNAL:
            return _from_journal(config, journal, streams[0], last, count)


def _from_redis(config: Config, streams: list[Stream], last: EntryId, count: int) -> BookAt:
    with reading_redis(config) as client:
        unknown: BookAt | None = None  # of the first stream found: the exact one's reason counts
        for stream in streams:
            kept = RedisStream(client, config.redis.keys, stream.name)
            if kept.about() is None:
                continue
            found = book_of(stream, From.REDIS, kept.backwards(str(last)), count)
            if found.is_known and last.seq == _SEQ_MAX:
                found = before_gap(found, kept.next_after(str(last)))
            if found.is_known:
                return found
            unknown = unknown or found
    return unknown or BookAt(
        streams[0].name, From.REDIS, unknown=f"redis has no stream {streams[0].name}"
    )


def _from_archive(folder: Path, stream: Stream, last: EntryId, count: int) -> BookAt:
    kept = ArchiveStream(folder, stream.name)
    found = book_of(stream, From.ARCHIVE, kept.backwards(last), count)
    if not found.is_known or last.seq != _SEQ_MAX:
        return found
    following = kept.forwards(EntryId(last.ms + 1, 0), EntryId(_SEQ_MAX, _SEQ_MAX))
    return before_gap(found, next(following, None))


def _from_journal(
    config: Config, journal: Path | None, stream: Stream, last: EntryId, count: int
) -> BookAt:
    path = journal or config.journal.dir
    number = None if last.seq == _SEQ_MAX else last.position
    book = JournalBook(stream, last.ms, int(config.publish.hold_s * 1e6), number)
    mark = f'"{stream.name}"'.encode()
    for segment in _since_last_body(path, stream, last.ms * 1000):
        for line in lines_of(segment, mark):
            record = line.record
            if isinstance(record, Frame):
                _change(book, stream, record)
            elif isinstance(record, RestBody) and record.stream == stream.name:
                _body(book, record)
            elif record is not None:
                book.happened(record)
            if book.is_over:
                return book.result(count)
    return book.result(count)


def _change(book: JournalBook, stream: Stream, frame: Frame) -> None:
    data = parse(frame.body)
    if not isinstance(data, Data) or data.stream != stream.name:
        return
    event = translate(stream, data, frame.body, frame.received_us)
    if isinstance(event, Rejected) or not isinstance(event, Depth):
        return
    book.change(event, frame.received_us)


def _body(book: JournalBook, record: RestBody) -> None:
    if record.kind is not BodyKind.MAIN:
        return
    try:
        book.body(depth_body(record.body), record.received_us)
    except BadBody:
        return  # the bridge refused it, too


def _since_last_body(path: Path, stream: Stream, until_us: int) -> list[Segment]:
    """The segments from the one before the last REST reply on, which the book starts from."""
    segments = segments_between(path, 0, until_us + _HOUR_US)
    for at in range(len(segments) - 1, -1, -1):
        for line in lines_of(segments[at], NO_FRAME):
            record = line.record
            is_body = isinstance(record, RestBody) and record.stream == stream.name
            if is_body and line.received_us <= until_us:
                return segments[max(0, at - 1) :]
    return segments


# ---- text ----------------------------------------------------------------------------------------


def _show(market: str, book: BookAt, moment: Point) -> None:
    at_us = book.at_ms * 1000
    before_s = (moment.us - at_us) / 1e6
    rows = [
        (market, ""),
        ("book", f"{utc(at_us)[:-3]} UTC, update {book.update_id}, {book.stream}"),
        ("from", book.source + (f", snapshot {book.snapshot_id}" if book.snapshot_id else "")),
    ]
    if moment.first.seq:
        rows.append(("at", f"after entry {book.at_id or moment.id}"))
    else:
        rows.append(("at", f"{utc(moment.us)[:-3]} UTC, {before_s:,.3f} s after its last change"))
    certain_bids, certain_asks = book.certain
    if certain_bids < len(book.bids) or certain_asks < len(book.asks):
        rows.append(
            (
                "certain",
                f"the best {certain_bids} bids and {certain_asks} asks; beyond them there may be "
                "levels that have not changed since the snapshot",
            )
        )
    echo_labelled(rows)
    echo()
    _print_levels(book)


def _print_levels(book: BookAt) -> None:
    cells = [
        (*reversed(bid), *ask)
        for bid, ask in zip(_filled(book.bids, book), _filled(book.asks, book), strict=True)
    ]
    heads = ("quantity", "bid", "ask", "quantity")
    wide = [max(len(row[at]) for row in (heads, *cells)) for at in range(4)]
    for quantity, bid, ask, ask_quantity in (heads, *cells):
        echo(
            f"{quantity:>{wide[0]}}  {bid:>{wide[1]}}  {ask:>{wide[2]}}  {ask_quantity:>{wide[3]}}"
        )


def _filled(side: tuple[tuple[str, str], ...], book: BookAt) -> list[tuple[str, str]]:
    rows = max(len(book.bids), len(book.asks))
    return [*((str(price), str(quantity)) for price, quantity in side)] + [("", "")] * (
        rows - len(side)
    )
