"""The gap log, `bridge:gaps`: one record for each gap in a stream, recovered or not (pure).

The beginning of a stream (cause `start`) has no record: nothing is known to be missing there. The
gap log is a stream identified by content: the same gap logged again is one record. The journal has
each record too, so that the gap log can be backfilled.
"""

from collections.abc import Mapping, Sequence

from bridge.contract.causes import GapCause
from bridge.contract.entry import BadEntry, decode
from bridge.contract.events import GapRecord
from bridge.contract.streams import Stream
from bridge.core.entries import Entry, content_entry, slot_of
from bridge.core.queue import QueueTable, StreamQueue
from bridge.core.trade_gaps import Recovered, Run

NEVER_WERE = "no such trades"
HISTORY = "history"
MAX_KEYS = 20_000  # of records that the journal has, the newest
_OF_A_GAP = ("symbol", "from", "to", "from_us", "to_us", "cause", "received_us")


class Journaled:
    """Records of the gap log that the journal has, and those still to be journaled."""

    def __init__(self) -> None:
        self._keys: dict[tuple[object, ...], None] = {}
        self._new: list[Entry] = []

    def logged(self, record: Entry) -> None:
        """Note a logged record: it is to be journaled unless the journal has it."""
        if record.key not in self._keys:
            self._new.append(record)
            self.has(record)

    def has(self, record: Entry) -> None:
        """Note that the journal has this record."""
        self._keys[record.key] = None
        if len(self._keys) > MAX_KEYS:
            del self._keys[next(iter(self._keys))]

    def take(self) -> Sequence[Entry]:
        """Records to be journaled; each is returned once."""
        if not self._new:
            return ()
        taken, self._new = self._new, []
        return taken


class GapLog:
    """Logs the gaps of a core into the `queue` of the gap log, each record once.

    `is_backfill`: the core reads other streams again; their positions are unrelated to how far the
    gap log's queue has been read.
    """

    def __init__(
        self, queue: StreamQueue, table: QueueTable, journaled: Journaled, *, is_backfill: bool
    ) -> None:
        self.queue = queue
        self.journaled = journaled
        self._table = table
        self._is_backfill = is_backfill

    def log(self, record: Entry, position: int, at_us: int) -> None:
        """Log a record; one that an earlier process has written is recognised by its content."""
        if not self._is_backfill and not self.queue.takes(position):
            return  # it was logged before, as the journal was read this far
        self.journaled.logged(record)
        slot = slot_of(record, max(position, self.queue.position), at_us)
        self.queue.put_recovered([slot])
        self._table.mark_ready(self.queue)


def of_fields(fields: Mapping[str, str]) -> Entry | None:
    """A record from its journaled fields; None: it is of another contract."""
    try:
        record = decode(fields)
    except BadEntry:
        return None
    return content_entry(record, record.received_us) if isinstance(record, GapRecord) else None


def of_gap(stream: Stream, gap: Entry) -> Entry:
    """The record of a gap in a stream."""
    fields = gap.fields()
    facts: dict[str, object] = {name: fields[name] or None for name in _OF_A_GAP}
    how = stream.spec.follows_gap or None
    return _record(facts | {"stream": stream.name, "recovered": False, "how": how})


def of_recovered(stream: Stream, recovered: Recovered, received_us: int) -> Entry:
    """The record of a gap that was fully recovered."""
    return _record(
        {
            "symbol": stream.symbol or None,
            "stream": stream.name,
            "from": recovered.run.first,
            "to": recovered.run.last,
            "cause": recovered.cause,
            "recovered": True,
            "how": HISTORY if recovered.rows else NEVER_WERE,
            "received_us": received_us,
        }
    )


def of_unseen(stream: Stream, run: Run, received_us: int) -> Entry:
    """The record of trades found missing too late to write a gap at their place."""
    return _record(
        {
            "symbol": stream.symbol or None,
            "stream": stream.name,
            "from": run.first,
            "to": run.last,
            "cause": GapCause.SKIPPED,
            "recovered": False,
            "received_us": received_us,
        }
    )


def _record(facts: dict[str, object]) -> Entry:
    record = GapRecord.model_validate(facts)
    return content_entry(record, record.received_us)
