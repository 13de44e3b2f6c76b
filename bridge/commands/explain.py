"""`python -m bridge explain STREAM ID`: the life of one entry, as text or as JSON.

Formats the output; `inspect.life` collects the facts.
"""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Annotated, Any

import typer

from bridge.commands.options import AsJson, ConfigFile, JournalPath
from bridge.contract.moments import moment
from bridge.contract.streams import BadStreamName, Stream, parse_stream
from bridge.errors import ConfigError
from bridge.inspect.groups import GroupLife, Progress
from bridge.inspect.journal_stream import Place
from bridge.inspect.life import Life, add_journal, add_unknown, in_redis, parse_query
from bridge.inspect.redis_stream import reading_redis
from bridge.inspect.stored import Stored
from bridge.runtime.config import load_config
from bridge.runtime.terminal import echo_json, echo_labelled
from bridge.view.describe import describe_entry


def command(
    stream: Annotated[str, typer.Argument(help="The stream's name, such as trade.SOL_USDC.")],
    entry: Annotated[
        str,
        typer.Argument(
            metavar="ID", help="The entry's ID; of trades and depth also the exchange's number."
        ),
    ],
    journal: JournalPath = None,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Explain one entry: the frame as received, its place, gaps, and the work of each group.

    Reads Redis and the journal, and changes neither; the bridge may be running. Also lists what is
    recorded nowhere.

    Exit status: 0 it is in the stream, or a gap covers it; 1 nothing is known of it.

    Examples:

        python -m bridge explain trade.SOL_USDC 1788368290062-3817314090
        python -m bridge explain trade.SOL_USDC 381731409
        python -m bridge explain account.orderUpdate 1788368290063-153000 --json
    """
    loaded = load_config(config)
    query = parse_query(stream_of(stream), entry)
    with reading_redis(loaded) as client:
        life = in_redis(client, loaded.redis.keys, query)
    folder = journal or loaded.journal.dir
    if journal is not None or folder.is_dir():
        try:
            add_journal(life, query, folder)
        except ConfigError as error:
            if journal is not None:
                raise
            life.unknown.append(f"what the journal has: {error}")
    add_unknown(life, query)
    if as_json:
        echo_json(_plain(life))
    else:
        echo_labelled(_lines(life))
    if life.entry is None and life.gap is None and not life.gap_records and not life.copies:
        raise typer.Exit(1)


def stream_of(name: str) -> Stream:
    """Parse a stream's name. Raises ConfigError."""
    try:
        return parse_stream(name)
    except BadStreamName as error:
        raise ConfigError(str(error)) from None


def utc(us: int | None) -> str:
    """A time for people, to the microsecond; one out of range as its number of µs."""
    if us is None:
        return "not known"
    found = moment(us)
    return f"{us} µs" if found is None else found.strftime("%Y-%m-%d %H:%M:%S.%f")


# ---- text ----------------------------------------------------------------------------------------


def _lines(life: Life) -> Iterator[tuple[str, str]]:
    number = f"  number {life.number}" if life.number is not None else ""
    yield f"{life.stream}{'  ' + life.entry_id if life.entry_id else ''}{number}", ""
    yield from _labelled("in Redis", _place(life))
    if life.entry is not None:
        yield from _labelled("times", _times(life.entry))
    yield from _labelled("gap", _gap(life))
    yield from _labelled("journal", _journal(life))
    for group in life.groups:
        yield from _labelled("group", _group(group))
    if life.entry is not None and not life.groups:
        yield "groups", "none reads this stream"
    yield from _labelled("not known", iter(life.unknown))


def _labelled(label: str, lines: Iterator[str]) -> Iterator[tuple[str, str]]:
    for line in lines:
        yield label, line
        label = ""


def _place(life: Life) -> Iterator[str]:
    if life.entry is not None:
        yield f"{life.entry.type}: {describe_entry(life.entry.fields)}"
    yield life.where
    if life.before is not None:
        yield f"before it  {life.before.id}  {describe_entry(life.before.fields)}"
    if life.after is not None:
        yield f"behind it  {life.after.id}  {describe_entry(life.after.fields)}"


def _times(entry: Stored) -> Iterator[str]:
    engine, sent, received = map(entry.number, ("engine_us", "event_us", "received_us"))
    if engine is not None:
        yield f"{utc(engine)}  happened, in the exchange's engine"
    if sent is not None:
        yield f"{utc(sent)}  sent by the exchange{_later(engine, sent)}"
    if received is not None:
        yield f"{utc(received)}  received by the bridge{_later(sent or engine, received)}"


def _later(before: int | None, after: int) -> str:
    return "" if before is None else f", {(after - before) / 1000:+,.3f} ms"


def _gap(life: Life) -> Iterator[str]:
    if life.gap is not None:
        yield f"{life.gap.id}  {describe_entry(life.gap.fields)}"
    for record in life.gap_records:
        yield f"gap log {record.id}  {describe_entry(record.fields)}"
    for one in life.happenings:
        connection = f"connection {one.connection} " if one.connection else ""
        yield f"{utc(one.received_us)}  {connection}{one.text}"


def _journal(life: Life) -> Iterator[str]:
    if life.journal:
        yield life.journal
    if len(life.copies) > 1:
        yield f"it was received {len(life.copies)} times: one is used, the rest are duplicates"
    for copy in life.copies:
        made = ", which the entry was made of" if copy.is_stored else ""
        if life.entry is not None and not life.entry.is_message:
            made = ", the message at its position"
        yield f"{utc(copy.place.received_us)}  {_origin(copy.place)}{made}"
        yield f"  {_at(copy.place)}"
        yield f"  {copy.body}"
    if life.rest_book is not None:
        yield f"{utc(life.rest_book.received_us)}  the REST reply that the snapshot was made of"
        yield f"  {_at(life.rest_book)}"
    for refused in life.refused:
        yield f"refused near that time: {refused.fault}"
        yield f"  {_at(refused.place)}"
    if life.is_settled is not None:
        state = "Redis has it" if life.is_settled else "it is not settled yet"
        yield f"by the journal's checkpoint {state}"


def _origin(place: Place) -> str:
    if not place.connection:
        return "fetched over REST, from the exchange's history"
    name = f" {place.connection_name}" if place.connection_name else ""
    return f"received over connection {place.connection}{name}"


def _at(place: Place) -> str:
    return f"{place.segment} at {place.offset:,} (offset {place.position:,} of the journal)"


def _group(group: GroupLife) -> Iterator[str]:
    yield f"{group.group} ({group.mode or 'of another program'}): {_progress(group)}"
    if group.letter is not None:
        letter = group.letter
        yield f"  dead letter {letter.letter_id} by {letter.worker}, {letter.attempts} attempts"
        yield f"  {letter.error}" + (f" ({letter.at})" if letter.at else "")
    for result in group.results:
        yield f"  {result}"


def _progress(group: GroupLife) -> str:
    match group.progress:
        case Progress.PENDING if group.deliveries == 0:
            return f"given back by {group.worker}, not begun; pending"
        case Progress.PENDING:
            idle = f"{(group.idle_ms or 0) / 1000:,.1f} s ago"
            return f"delivered to {group.worker} {group.deliveries} times, last {idle}; pending"
        case Progress.IN_HAND:
            return f"{group.worker or 'its owner'} tries it, {group.deliveries} times until now"
        case Progress.AHEAD:
            return f"not delivered yet, the group is at {group.position}"
        case Progress.SETTLED:
            owner = f", stream owned by {group.worker}" if group.worker else ""
            return f"settled: the group is at {group.position}, and nothing is pending{owner}"
        case _:
            return str(group.progress)


# ---- JSON ----------------------------------------------------------------------------------------


def _plain(life: Life) -> dict[str, Any]:
    return {
        "stream": life.stream,
        "id": life.entry_id,
        "number": life.number,
        "in_redis": life.entry is not None,
        "where": life.where,
        "entry": _entry(life.entry),
        "before": _entry(life.before),
        "after": _entry(life.after),
        "gap": _entry(life.gap),
        "gap_records": [_entry(record) for record in life.gap_records],
        "happenings": [one._asdict() for one in life.happenings],
        "journal": {
            "read": life.journal,
            "settled": life.is_settled,
            "copies": [
                copy.place._asdict() | {"body": copy.body, "is_stored": copy.is_stored}
                for copy in life.copies
            ],
            "rest_book": life.rest_book and life.rest_book._asdict(),
            "refused": [
                refused.place._asdict() | {"fault": refused.fault} for refused in life.refused
            ],
        },
        "groups": [asdict(group) for group in life.groups],
        "unknown": life.unknown,
    }


def _entry(stored: Stored | None) -> dict[str, Any] | None:
    return None if stored is None else {"id": stored.id, "fields": stored.fields}
