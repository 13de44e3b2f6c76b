"""Records that wait in memory: they cannot be written, and it is not their turn to be heard."""

from collections import deque
from collections.abc import Iterator

from bridge.journal.record import Kind, Record, render_record
from bridge.journal.unwritten import stream_of

RECORD_BYTES = 400  # what one takes besides its body
SHED_SHARE = 10
PRIVATE_STREAM = b'"stream":"account.'


class Held:
    """A queue of records. `bytes`: the memory it takes, roughly."""

    def __init__(self) -> None:
        self.bytes = 0
        self._records: deque[Record] = deque()

    def __len__(self) -> int:
        return len(self._records)

    def add(self, record: Record) -> None:
        self._records.append(record)
        self.bytes += _size(record)

    def pop(self) -> Record:
        """The oldest."""
        record = self._records.popleft()
        self.bytes -= _size(record)
        return record

    def lines(self) -> list[bytes]:
        """All of it, as lines of a journal."""
        return [render_record(record) for record in self._records]

    def clear(self) -> None:
        self._records.clear()
        self.bytes = 0

    def shed(self) -> Iterator[tuple[str, Record]]:
        """Give up the oldest tenth of the frames and say of which stream each was: public ones,
        the account's where there are no others. What happened to connections stays.
        """
        frames = [record for record in self._records if record.kind in (Kind.FRAME, Kind.BINARY)]
        going = [record for record in frames if is_public(record)] or frames
        gone = {id(record) for record in going[: 1 + len(going) // SHED_SHARE]}
        kept = [record for record in self._records if id(record) not in gone]
        dropped = [record for record in self._records if id(record) in gone]
        self._records = deque(kept)
        self.bytes = sum(map(_size, kept))
        for record in dropped:
            yield stream_of(record), record


def is_public(record: Record) -> bool:
    """Is it a frame of a public stream?"""
    return record.kind is Kind.FRAME and PRIVATE_STREAM not in record.body


def _size(record: Record) -> int:
    return RECORD_BYTES + len(record.body)
