"""The life of one entry: its frames, its place in Redis, gaps before it, and its consumers.

Reads Redis and a journal, and changes neither. Also lists what is recorded nowhere.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from bridge.contract import keys
from bridge.contract.entry import BadEntry, decode
from bridge.contract.identity import EntryId, event_key
from bridge.contract.stream_types import Identity
from bridge.contract.streams import Stream
from bridge.core.records import Lost, Missing, Opened, Record, RestBody, Started, Suspected
from bridge.errors import ConfigError
from bridge.inspect.groups import GroupLife, Groups
from bridge.inspect.journal_stream import JournalStream, Origin, Place, Received
from bridge.inspect.redis_stream import About, RedisStream
from bridge.inspect.stored import Stored
from bridge.journal.checkpoint import read_checkpoint
from bridge.journal.inspection import NO_FRAME, lines_of, segments_between
from bridge.journal.segments import Segment
from bridge.runtime.keyspace import KeySpace
from bridge.runtime.terminal import bounded

_ID = re.compile(r"([0-9]{1,20})(?:-([0-9]{1,20}))?")
AROUND_US = 120_000_000  # another connection's copy arrives within a minute
NEAR_US = 5_000_000
_EVER_US = 2**62


class Query(NamedTuple):
    """The entry to explain. `number`: the exchange's, in sequenced streams; `entry_id` None: find
    the entry by its number.
    """

    stream: Stream
    entry_id: EntryId | None
    number: int | None


class Copy(NamedTuple):
    """One received copy of the message. `is_stored`: the entry was made of this copy."""

    place: Place
    body: str
    is_stored: bool


class Happening(NamedTuple):
    """An event of a connection or of the journal near a gap."""

    received_us: int
    connection: int
    text: str


@dataclass(slots=True)
class Life:
    """All that is known. `where`: a sentence on its place in Redis; `unknown`: what cannot be
    known, a sentence each.
    """

    stream: str
    entry_id: str = ""
    number: int | None = None
    where: str = ""
    entry: Stored | None = None
    before: Stored | None = None
    after: Stored | None = None
    gap: Stored | None = None  # the gap that names it as missing, or the entry itself
    gap_records: list[Stored] = field(default_factory=list)
    copies: list[Copy] = field(default_factory=list)
    refused: list[Received] = field(default_factory=list)
    rest_book: Place | None = None
    happenings: list[Happening] = field(default_factory=list)
    journal: str = ""
    is_settled: bool | None = None  # by the journal's checkpoint
    groups: list[GroupLife] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)

    def add_journal(self, text: str) -> None:
        """Set which journal was read."""
        self.journal = text

    def add_settled(self, *, is_settled: bool) -> None:
        """Set whether the journal's checkpoint covers it."""
        self.is_settled = is_settled

    def add_rest_book(self, place: Place) -> None:
        """Set the place of the REST reply that the snapshot was made of."""
        self.rest_book = place


def parse_query(stream: Stream, text: str) -> Query:
    """Parse an entry ID, or the exchange's number. Raises ConfigError."""
    is_sequenced = stream.spec.identity is Identity.SEQUENCED
    found = _ID.fullmatch(text)
    if found is None or max(first := int(found[1]), second := int(found[2] or 0)) >= 2**64:
        raise ConfigError(
            f"{bounded(text, 100)!r} is no entry ID: write one such as 1788368290062-67120540310"
            + (", or the exchange's number alone" if is_sequenced else "")
        )
    if found[2]:
        entry_id = EntryId(first, second)
        return Query(stream, entry_id, entry_id.position if is_sequenced else None)
    if is_sequenced:
        return Query(stream, None, first)
    return Query(stream, EntryId(first, 0), None)


# ---- Redis ---------------------------------------------------------------------------------------


def in_redis(client: Any, space: KeySpace, query: Query) -> Life:
    """What Redis knows of the entry. Raises the Redis client's errors."""
    stream = RedisStream(client, space, query.stream.name)
    about = stream.about()
    if about is None:
        found = _Position("there is no such stream in Redis")
    else:
        found = _find(stream, about, query)
    gap = _gap_of(found, query)
    entry_id = found.entry.id if found.entry is not None else str(query.entry_id or "")
    groups = Groups(client, space, stream.name)
    return Life(
        stream.name,
        entry_id,
        query.number,
        found.where,
        found.entry,
        found.before,
        found.after,
        gap,
        list(_gap_records(client, space, stream.name, query.number, gap)),
        groups=groups.lives(entry_id, query.number) if entry_id else [],
    )


class _Position(NamedTuple):
    """The place of an entry in its stream, with its neighbours."""

    where: str
    entry: Stored | None = None
    before: Stored | None = None
    after: Stored | None = None


def _find(stream: RedisStream, about: About, query: Query) -> _Position:
    if about.oldest is None or about.newest is None:
        return _Position("the stream is empty")
    if query.entry_id is not None:
        entry, anchor = stream.entry(str(query.entry_id)), str(query.entry_id)
    else:
        assert query.number is not None, "without an ID there is a number"
        entry, anchor = _by_number(stream, about, query.number)
    if entry is not None:
        anchor = entry.id
    found = _Position("", entry, stream.last_before(anchor), stream.next_after(anchor))
    return found._replace(where=_where(about, anchor, found))


def _by_number(stream: RedisStream, about: About, number: int) -> tuple[Stored | None, str]:
    """The entry with this number, or else an ID between its would-be neighbours."""
    # Bisects the ms of the IDs, since numbers rise with them; then scans from the ms found.
    low, high = EntryId.parse(about.oldest or "").ms, EntryId.parse(about.newest or "").ms + 1
    while high - low > 1:
        middle = (low + high) // 2
        found = stream.next_after(f"{middle - 1}-{2**64 - 1}")
        if found is None or EntryId.parse(found.id).position > number:
            high = middle
        else:
            low = max(middle, EntryId.parse(found.id).ms)
    anchor = f"{low}-0"
    for entry in stream.forwards(f"{low}-0"):
        place = EntryId.parse(entry.id)
        first = entry.number("first_update_id") if entry.type == "depth" else place.position
        if entry.is_message and (first or 0) <= number <= place.position:
            return entry, entry.id
        if place.position > number or (place.position == number and not entry.is_message):
            break  # an entry after the place, perhaps a gap
        anchor = f"{place.ms}-{place.seq + 1}"
    return None, anchor


def _where(about: About, anchor: str, found: _Position) -> str:
    if found.entry is not None:
        return f"in Redis, among {about.length:,} entries from {about.oldest} to {about.newest}"
    if found.before is None:
        return (
            f"not in Redis: older than the oldest entry that it keeps, {about.oldest}; it was "
            "trimmed away, or never there"
        )
    if found.after is None and EntryId.parse(anchor) > EntryId.parse(about.last_id):
        return f"not in Redis: newer than the newest entry, {about.newest}"
    return "not in Redis, which keeps entries before and behind its place"


def _gap_of(found: _Position, query: Query) -> Stored | None:
    """The gap entry that it is, or that names it as missing."""
    if found.entry is not None:
        return found.entry if found.entry.type == "gap" else None
    for near in (found.after, found.before):
        if near is not None and near.type == "gap" and _covers(near, query):
            return near
    return None


def _covers(gap: Stored, query: Query) -> bool:
    if query.number is not None:
        first, last = gap.number("from"), gap.number("to")
        return first is not None and last is not None and first <= query.number <= last
    from_us, to_us = gap.number("from_us") or 0, gap.number("to_us")
    assert query.entry_id is not None, "without a number there is an ID"
    return (
        to_us is not None
        and from_us <= query.entry_id.ms * 1000 + 999
        and (query.entry_id.ms * 1000 <= to_us)
    )


def _gap_records(
    client: Any, space: KeySpace, stream: str, number: int | None, gap: Stored | None
) -> Iterator[Stored]:
    """The records of the gap log about it, or about the gap that covers it."""
    if gap is None and number is None:
        return
    for record in RedisStream(client, space, keys.GAPS).forwards():
        if record.text("stream") != stream:
            continue
        if _mentions(record, number) or (gap is not None and _is_of(record, gap)):
            yield record


def _mentions(record: Stored, number: int | None) -> bool:
    first, last = record.number("from"), record.number("to")
    if number is None or first is None or last is None:
        return False
    return first <= number <= last


def _is_of(record: Stored, gap: Stored) -> bool:
    facts = ("from", "to", "from_us", "to_us", "cause")
    return all(record.text(name) == gap.text(name) for name in facts)


# ---- the journal ---------------------------------------------------------------------------------


def add_journal(life: Life, query: Query, path: Path) -> None:
    """Search a journal for the message. Raises ConfigError where it cannot be read."""
    around = _around_us(life, query)
    segments = segments_between(path, *around)
    life.add_journal(f"{path}: {len(segments)} of its segments, of that time, read")
    fits = _fits(life, query)
    stream = JournalStream(query.stream, segments)
    for received in stream.received(_mark(life, query)):
        if received.entry is None:
            if abs(received.place.received_us - sum(around) // 2) <= NEAR_US:
                life.refused.append(received)
        elif fits(received):
            body = received.body.decode(errors="backslashreplace")
            life.copies.append(Copy(received.place, body, _is_made_of(life.entry, received)))
    if life.gap is not None or (life.entry is not None and life.entry.type == "depth_snapshot"):
        _add_happenings(life, segments)
    if life.copies and path.is_dir() and (checkpoint := read_checkpoint(path)) is not None:
        begin = checkpoint.suspended.get(life.stream, checkpoint.offset)
        life.add_settled(is_settled=all(copy.place.position < begin for copy in life.copies))
    if stream.damaged:
        life.unknown.append(f"{stream.damaged:,} lines of the journal cannot be read")


def _around_us(life: Life, query: Query) -> tuple[int, int]:
    """The range of times in which it was received, µs."""
    moments = [
        us
        for entry in (life.entry, *((life.before, life.after) if life.entry is None else ()))
        if entry is not None and (us := entry.number("received_us")) is not None
    ]
    if query.entry_id is not None and (life.entry is None or not moments):
        moments.append(query.entry_id.ms * 1000)
    if not moments:
        return 0, _EVER_US
    if life.gap is not None and life.before is not None:
        moments.append(life.before.number("received_us") or min(moments))
    first_us, last_us = min(moments) - AROUND_US, max(moments) + AROUND_US
    if life.entry is None and query.entry_id is None:  # its time is not known
        if life.before is None:
            first_us = 0
        if life.after is None:
            last_us = _EVER_US
    return first_us, last_us


def _mark(life: Life, query: Query) -> bytes:
    """Bytes that every frame of the message contains."""
    if query.number is not None:
        if life.entry is None and query.stream.spec.snapshot:
            return b""  # a change of a book names its first and last number, not those between
        last = life.entry.number("last_update_id") if life.entry is not None else None
        return str(last or query.number).encode()
    for name in ("engine_us", "event_us"):
        if life.entry is not None and (text := life.entry.text(name)):
            return text.encode()
    return b""


def _fits(life: Life, query: Query) -> Callable[[Received], bool]:
    """A test whether a received message is the one searched for."""
    if (number := query.number) is not None:
        if life.entry is not None:
            number = EntryId.parse(life.entry.id).position
            return lambda one: one.entry is not None and one.entry.number == number
        return lambda one: one.entry is not None and one.entry.after < number <= one.entry.number
    if life.entry is not None:
        try:
            key = event_key(decode(life.entry.fields), life.entry.values)
        except BadEntry:
            return lambda _: False
        return lambda one: one.entry is not None and one.entry.key == key
    assert query.entry_id is not None, "without a number there is an ID"
    ms, seq = query.entry_id
    return lambda one: (
        one.entry is not None and one.entry.ms == ms and seq - 1000 < one.entry.number <= seq
    )


def _is_made_of(stored: Stored | None, received: Received) -> bool:
    if stored is None or received.entry is None:
        return False
    return received.entry.fields().get("received_us") == stored.text("received_us")


def _add_happenings(life: Life, segments: Sequence[Segment]) -> None:
    """Add events near a gap, and the REST body that a snapshot was made of."""
    about = life.entry or life.gap
    assert about is not None, "there is an entry, or a gap"
    to_us = about.number("to_us") or about.number("received_us") or 0
    since = life.before.number("received_us") if life.before is not None else None
    from_us = about.number("from_us") or since or to_us
    book = b'"%b"' % about.text("rest_update_id").encode()
    for segment in segments:
        for line in lines_of(segment, NO_FRAME):
            record = line.record
            if isinstance(record, RestBody):
                if record.stream == life.stream and len(book) > 2 and book in record.body:
                    place = Place(
                        segment.path.name,
                        line.position - segment.start,
                        line.position,
                        line.received_us,
                        Origin.REST,
                    )
                    life.add_rest_book(place)  # fmt: skip
            elif life.gap is not None and from_us - NEAR_US <= line.received_us <= to_us + NEAR_US:
                text = _describe(record, life.stream)
                if text:
                    life.happenings.append(Happening(line.received_us, line.number, text))


def _describe(record: Record | None, stream: str) -> str:
    match record:
        case Opened(name=name, streams=streams) if stream in streams:
            return f"opened as {name}, to receive this stream"
        case Lost(cause=cause):
            return f"ended: {cause}"
        case Suspected(stream=suspected) if suspected == stream:
            return "the stream was suspected on it"
        case Started():
            return "a process started"
        case Missing(cause=cause, spans=spans) if spans is None or stream in spans:
            return f"the journal lacks what was received then: {cause}"
    return ""


# ---- what cannot be known ------------------------------------------------------------------------


def add_unknown(life: Life, query: Query) -> None:
    """Add sentences on what is recorded nowhere."""
    if life.entry is not None:
        life.unknown.append(
            "when it came into Redis: Redis does not keep that. Not before the bridge received it"
        )
    if any(group.progress.value == "settled" for group in life.groups):
        life.unknown.append(
            "who handled it, when, and how often it was delivered: a group keeps that while an "
            "entry is pending. Whether a group that is behind it had begun before it is not kept"
        )
    if any(group.missed for group in life.groups):
        life.unknown.append(
            "which entries a group has missed: only their number is kept, and this may be one"
        )
    if life.groups:
        life.unknown.append(
            "what it changed beyond the results named here: a consumer's results do not name "
            "the entries they were made of"
        )
    if not life.journal:
        life.unknown.append("the frame as it came, and its copies: no journal was read")
    elif life.entry is not None and life.entry.is_message and not life.copies:
        life.unknown.append(
            "the frame as it came: this journal does not have it; another bridge was first, or "
            "the journal does not reach back so far"
        )
