"""One entry's whole life: how it came, where it stands, what is missing before it, who has it.

Reads Redis and a journal, and changes neither. What is not recorded anywhere is said, too.
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
AROUND_US = 120_000_000  # a copy over another connection comes within a minute
NEAR_US = 5_000_000


class Query(NamedTuple):
    """What is asked for. `number`: the exchange's, in sequenced streams; `entry_id` None: it is
    found by its number.
    """

    stream: Stream
    entry_id: EntryId | None
    number: int | None


class Copy(NamedTuple):
    """The message as it once came. `is_stored`: the entry was made of this one."""

    place: Place
    body: str
    is_stored: bool


class Happening(NamedTuple):
    """What happened to a connection, or to the journal, near a gap."""

    received_us: int
    connection: int
    text: str


@dataclass(slots=True)
class Life:
    """All that is known. `where`: a sentence on where it stands in Redis; `unknown`: what cannot be
    told, a sentence each.
    """

    stream: str
    entry_id: str = ""
    number: int | None = None
    where: str = ""
    entry: Stored | None = None
    before: Stored | None = None
    after: Stored | None = None
    gap: Stored | None = None  # that names it as missing, or that it is
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
        """A journal was read."""
        self.journal = text

    def add_settled(self, *, is_settled: bool) -> None:
        """Its checkpoint says so, or not yet."""
        self.is_settled = is_settled

    def add_rest_book(self, place: Place) -> None:
        """It has the REST reply that the snapshot was made of."""
        self.rest_book = place


def wanted(stream: Stream, text: str) -> Query:
    """Read what a person asks for: an entry ID, or the exchange's number. Raises ConfigError."""
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


def in_redis(client: Any, space: KeySpace, asked: Query) -> Life:
    """What Redis tells. Raises what its client raises."""
    stream = RedisStream(client, space, asked.stream.name)
    about = stream.about()
    if about is None:
        found = _Standing("there is no such stream in Redis")
    else:
        found = _find(stream, about, asked)
    gap = _gap_of(found, asked)
    entry_id = found.entry.id if found.entry is not None else str(asked.entry_id or "")
    groups = Groups(client, space, stream.name)
    return Life(
        stream.name,
        entry_id,
        asked.number,
        found.where,
        found.entry,
        found.before,
        found.after,
        gap,
        list(_gap_records(client, space, stream.name, asked.number, gap)),
        groups=groups.lives(entry_id, asked.number) if entry_id else [],
    )


class _Standing(NamedTuple):
    """Where an entry stands in its stream."""

    where: str
    entry: Stored | None = None
    before: Stored | None = None
    after: Stored | None = None


def _find(stream: RedisStream, about: About, asked: Query) -> _Standing:
    if about.oldest is None or about.newest is None:
        return _Standing("the stream is empty")
    if asked.entry_id is not None:
        entry, anchor = stream.entry(str(asked.entry_id)), str(asked.entry_id)
    else:
        assert asked.number is not None, "without an ID there is a number"
        entry, anchor = _by_number(stream, about, asked.number)
    if entry is not None:
        anchor = entry.id
    found = _Standing("", entry, stream.last_before(anchor), stream.next_after(anchor))
    return found._replace(where=_where(about, anchor, found))


def _by_number(stream: RedisStream, about: About, number: int) -> tuple[Stored | None, str]:
    """The entry that has this number, or an ID between the two that it would stand between."""
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
            break  # it, a gap perhaps, stands behind the place
        anchor = f"{place.ms}-{place.seq + 1}"
    return None, anchor


def _where(about: About, anchor: str, found: _Standing) -> str:
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


def _gap_of(found: _Standing, asked: Query) -> Stored | None:
    """The gap entry that it is, or that says it is missing."""
    if found.entry is not None:
        return found.entry if found.entry.type == "gap" else None
    for near in (found.after, found.before):
        if near is not None and near.type == "gap" and _covers(near, asked):
            return near
    return None


def _covers(gap: Stored, asked: Query) -> bool:
    if asked.number is not None:
        first, last = gap.number("from"), gap.number("to")
        return first is not None and last is not None and first <= asked.number <= last
    from_us, to_us = gap.number("from_us") or 0, gap.number("to_us")
    assert asked.entry_id is not None, "without a number there is an ID"
    return (
        to_us is not None
        and from_us <= asked.entry_id.ms * 1000 + 999
        and (asked.entry_id.ms * 1000 <= to_us)
    )


def _gap_records(
    client: Any, space: KeySpace, stream: str, number: int | None, gap: Stored | None
) -> Iterator[Stored]:
    """The records of the gap log that tell of it, or of the gap that it stands in."""
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


def add_journal(life: Life, asked: Query, path: Path) -> None:
    """Look for the message in a journal. Raises ConfigError where there is none to read."""
    around = _around_us(life, asked)
    segments = segments_between(path, *around)
    life.add_journal(f"{path}: {len(segments)} of its segments, of that time, read")
    fits = _fits(life, asked)
    stream = JournalStream(asked.stream, segments)
    for received in stream.received(_mark(life, asked)):
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


def _around_us(life: Life, asked: Query) -> tuple[int, int]:
    """When it was received, about."""
    moments = [
        us
        for entry in (life.entry, *((life.before, life.after) if life.entry is None else ()))
        if entry is not None and (us := entry.number("received_us")) is not None
    ]
    if asked.entry_id is not None and (life.entry is None or not moments):
        moments.append(asked.entry_id.ms * 1000)
    if not moments:
        return 0, 2**62
    if life.gap is not None and life.before is not None:
        moments.append(life.before.number("received_us") or min(moments))
    return min(moments) - AROUND_US, max(moments) + AROUND_US


def _mark(life: Life, asked: Query) -> bytes:
    """What stands in every frame of the message."""
    if asked.number is not None:
        last = life.entry.number("last_update_id") if life.entry is not None else None
        return str(last or asked.number).encode()
    for name in ("engine_us", "event_us"):
        if life.entry is not None and (text := life.entry.text(name)):
            return text.encode()
    return b""


def _fits(life: Life, asked: Query) -> Callable[[Received], bool]:
    """Whether a message is the one that is meant."""
    if asked.number is not None:
        number = EntryId.parse(life.entry.id).position if life.entry is not None else asked.number
        return lambda one: one.entry is not None and one.entry.number == number
    if life.entry is not None:
        try:
            key = event_key(decode(life.entry.fields), life.entry.values)
        except BadEntry:
            return lambda _: False
        return lambda one: one.entry is not None and one.entry.key == key
    assert asked.entry_id is not None, "without a number there is an ID"
    ms, seq = asked.entry_id
    return lambda one: (
        one.entry is not None and one.entry.ms == ms and seq - 1000 < one.entry.number <= seq
    )


def _is_made_of(stored: Stored | None, received: Received) -> bool:
    if stored is None or received.entry is None:
        return False
    return received.entry.fields().get("received_us") == stored.text("received_us")


def _add_happenings(life: Life, segments: Sequence[Segment]) -> None:
    """What happened near a gap; the REST body that a snapshot was made of."""
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


# ---- what cannot be told -------------------------------------------------------------------------


def add_unknown(life: Life, asked: Query) -> None:
    """Say what nothing has recorded."""
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
