"""The exact book of a market at a moment, or why it cannot be known.

Backwards from the moment, the entries up to the newest snapshot are enough: snapshot and changes
make the book. If a gap comes first, the book is unknown.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum

from bridge.contract.entry import BadEntry
from bridge.contract.events import Depth, Level
from bridge.contract.identity import EntryId, first_believable_us
from bridge.contract.stream_types import StreamType
from bridge.contract.streams import DEPTH_WINDOWS, BadStreamName, Stream, parse_stream
from bridge.core.book import Delta, DepthBook, Sides
from bridge.core.records import Lost, Opened, Record, SegmentState, Started, Subscribed
from bridge.errors import ConfigError
from bridge.inspect.book import Book
from bridge.inspect.stored import Stored
from bridge.protocol.rest import DepthBody


class From(StrEnum):
    """The source of the entries."""

    REDIS = "redis"
    JOURNAL = "journal"
    ARCHIVE = "archive"


@dataclass(frozen=True, slots=True)
class BookAt:
    """The book, or why it is not known. `at_id`: the last entry applied; `snapshot_id`: the
    snapshot it starts from. `certain`: how many bids and asks, from the best on, are certain;
    beyond them levels may be missing that have not changed since the snapshot.
    """

    stream: str
    source: From
    bids: tuple[Level, ...] = ()
    asks: tuple[Level, ...] = ()
    update_id: int | None = None
    at_id: str = ""
    at_ms: int = 0
    snapshot_id: str = ""
    certain: tuple[int, int] = (0, 0)
    unknown: str = ""

    @property
    def is_known(self) -> bool:
        return not self.unknown


def depth_streams(market: str) -> list[Stream]:
    """The streams with the book of a market, the exact one first; or the one stream that is named.
    Raises ConfigError for an invalid name.
    """
    names = [market] if market.startswith(f"{StreamType.DEPTH}.") else [
        f"{StreamType.DEPTH}.{market}",
        *(f"{StreamType.DEPTH}.{window}.{market}" for window in DEPTH_WINDOWS),
    ]  # fmt: skip
    try:
        return [parse_stream(name) for name in names]
    except BadStreamName as error:
        raise ConfigError(str(error)) from None


def book_of(stream: Stream, source: From, newest_first: Iterable[Stored], count: int) -> BookAt:
    """The book made of entries, given from the newest one backwards."""
    entries: list[Stored] = []
    for entry in newest_first:
        if entry.type == "gap":
            return BookAt(stream.name, source, unknown=_behind_gap(entry, entries))
        entries.append(entry)
        if entry.type == "depth_snapshot":
            return _made(stream, source, entries, count)
    if not entries:
        why = f"{source} has no entry of {stream.name} up to then"
    else:
        why = f"{source} has no snapshot before it: its entries begin with {entries[-1].id}"
    return BookAt(stream.name, source, unknown=why)


def _behind_gap(gap: Stored, since: list[Stored]) -> str:
    first, last, cause = gap.text("from"), gap.text("to"), gap.text("cause")
    if not first:
        return f"the stream begins at {gap.id}, and no snapshot follows until then"
    changes = f", {len(since):,} changes since are no book" if since else ""
    return (
        f"updates {first} to {last} are missing ({cause}, gap {gap.id}), and no snapshot follows "
        f"until then{changes}"
    )


def before_gap(book: BookAt, following: Stored | None) -> BookAt:
    """The book; not known if a gap follows, whose missing updates may precede the moment."""
    if not book.is_known or following is None or following.type != "gap":
        return book
    first, last = following.text("from"), following.text("to")
    if not first:
        return book  # another beginning of the stream
    why = (
        f"behind {book.at_id} the updates {first} to {last} are missing "
        f"({following.text('cause')}, gap {following.id}); some may have come before then"
    )
    return replace(book, unknown=why)


class JournalBook:
    """Builds the book up to a moment from a journal's changes and the REST replies joined with
    them. `until_ms`: the moment, in the engine's time; `until_number`: the last update of that ms
    that counts (None: all do); `hold_us`: how long the bridge waited for another connection to
    bring what one had missed.
    """

    def __init__(
        self, stream: Stream, until_ms: int, hold_us: int, until_number: int | None = None
    ) -> None:
        self._hold_us = hold_us
        self.is_over = False
        self._stream = stream
        self._until_ms = until_ms
        self._until_number = until_number
        self._book = DepthBook(0, levels_kept=1_000_000)
        self._snapshot = Sides()
        self._bodies: dict[int, Sides] = {}
        self._held: list[tuple[DepthBody, int]] = []  # while early changes wait for a hole to fill
        self._receivers: set[int] = set()  # connections subscribed to the stream
        self._at_ms = 0
        self._is_before_gap = False
        self._why = f"the journal has no book of {stream.name} before it"

    def happened(self, record: Record) -> None:
        """Apply a connection's record: as in the core, the book is discarded when a connection
        starts to receive the stream and none did before.
        """
        name = self._stream.name
        if isinstance(record, Started):
            self._receivers.clear()
        elif isinstance(record, SegmentState):
            state = record.connections
            self._receivers = {number for number, streams in state.items() if name in streams}
        elif isinstance(record, Lost):
            self._receivers.discard(record.connection)
        elif isinstance(record, Opened | Subscribed):
            if name not in record.streams:
                self._receivers.discard(record.connection)
                return
            if not self._receivers and record.received_us // 1000 <= self._until_ms:
                self._begin_anew()
            self._receivers.add(record.connection)

    def _begin_anew(self) -> None:
        if self._book.joined:
            number = self._book.number
            self._why = (
                f"behind update {number} no connection received the stream, and no snapshot "
                "follows until then"
            )
        self._book.reset()
        self._held.clear()

    def change(self, change: Depth, received_us: int) -> None:
        """Apply a received change."""
        for one in self._book.in_order(Delta.of(change), received_us, self._hold_us):
            ms = first_believable_us((one.engine_us, one.event_us), received_us) // 1000
            if ms > self._until_ms or (ms == self._until_ms and self._is_behind(one)):
                self._join_held()
                self._end(one)
                return
            was_known, was_at = self._book.joined, self._book.number
            self._book.follow(one, ms)
            self._book.crosses(one, ms)  # records the time, which reveals a restart of the numbers
            self._at_ms = max(self._at_ms, ms)
            if was_known and not self._book.joined:
                self._why = _why_void(was_at, one)
            self._report_join()
        if not self._book.has_early:
            self._join_held()

    def _is_behind(self, change: Delta) -> bool:
        return self._until_number is not None and change.last_update_id > self._until_number

    def body(self, body: DepthBody, received_us: int) -> None:
        """Apply a REST reply with a whole book. After a break it arrives while the first changes
        still wait for another connection's: it is joined once these are applied.
        """
        if received_us // 1000 > self._until_ms:
            return
        self._held.append((body, received_us))
        if not self._book.has_early:
            self._join_held()

    def _join_held(self) -> None:
        held, self._held = self._held, []
        for body, received_us in held:
            self._join(body, received_us)

    def _join(self, body: DepthBody, received_us: int) -> None:
        sides = Sides()
        sides.apply(body.bids, body.asks)
        if not self._book.joined:
            self._bodies[body.last_update_id] = sides
        self._book.join(body.last_update_id, body.bids, body.asks, received_us)
        self._report_join()

    def result(self, count: int) -> BookAt:
        """The book at the moment, with `count` levels a side."""
        is_whole = self.is_over or self._book.number == self._until_number
        if self._book.joined and self._book.has_early and not is_whole:
            self._is_before_gap = True
            self._why = (
                f"the updates directly after {self._book.number} are missing, and another "
                "connection may still bring them"
            )
        if not self._book.joined or self._is_before_gap:
            return BookAt(self._stream.name, From.JOURNAL, unknown=self._why)
        bids, asks = self._book.levels()
        now = Sides()
        now.apply(bids, asks)
        certain = Book.begun(self._snapshot, now).certain()
        return BookAt(
            self._stream.name,
            From.JOURNAL,
            tuple(bids[:count]),
            tuple(asks[:count]),
            self._book.number,
            at_ms=self._at_ms,
            certain=(min(certain[0], count), min(certain[1], count)),
        )

    def _report_join(self) -> None:
        if self._book.joined and self._book.rest_update_id:
            self._snapshot = self._bodies.pop(self._book.rest_update_id, self._snapshot)
            self._book.forget_rest_update_id()
            self._bodies.clear()

    def _end(self, following: Delta) -> None:
        """Stop at the first change after the moment; updates may be missing before it."""
        self.is_over = True
        number = self._book.number
        is_whole = number == self._until_number
        if self._book.joined and following.first_update_id > number + 1 and not is_whole:
            self._is_before_gap = True
            self._why = (
                f"behind update {number} the updates to {following.first_update_id - 1} are "
                "missing; some may have come before then"
            )


def _why_void(number: int, delta: Delta) -> str:
    """Why the book that was known up to update `number` is unknown after this change."""
    if delta.last_update_id < number:
        what = f"the numbers began anew with update {delta.first_update_id}"
    else:
        what = f"updates {number + 1} to {delta.first_update_id - 1} are missing"
    return f"{what}, and no snapshot follows until then"


def _made(stream: Stream, source: From, entries: list[Stored], count: int) -> BookAt:
    book = Book()
    try:
        book.replace(entries.pop())
        for entry in reversed(entries):
            if entry.type == "depth" and not book.apply(entry):
                why = f"the changes do not follow on before {entry.id}"
                return BookAt(stream.name, source, unknown=why)
    except BadEntry as error:
        return BookAt(stream.name, source, unknown=f"{error}: another program wrote it")
    bids, asks = book.levels(count)
    certain_bids, certain_asks = book.certain()
    return BookAt(
        stream.name,
        source,
        tuple(bids),
        tuple(asks),
        book.position,
        book.entry_id,
        EntryId.parse(book.entry_id).ms,
        book.snapshot_id,
        (min(certain_bids, len(bids)), min(certain_asks, len(asks))),
    )
