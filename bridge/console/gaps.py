"""The page Gaps: the gap log as a timeline (pure)."""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bridge.contract.entry import BadEntry, decode
from bridge.contract.events import GapRecord
from bridge.contract.streams import is_private

KEPT = 2000  # records, the newest

Record = dict[str, Any]


@dataclass(slots=True)
class GapsPage:
    """The newest records of the gap log; those of the account's streams only if allowed."""

    shows_private: bool = False
    last_id: str = "-"
    unreadable: int = 0
    _records: deque[Record] = field(default_factory=lambda: deque(maxlen=KEPT))

    def take(self, entries: Iterable[tuple[str, Mapping[str, str]]]) -> list[Record]:
        """Add entries of the log, in order; returns the records to be shown."""
        new: list[Record] = []
        for entry_id, fields in entries:
            self.last_id = entry_id
            record = self._record(entry_id, fields)
            if record is not None:
                new.append(record)
        self._records.extend(new)
        return new

    def whole(self) -> dict[str, Any]:
        """The whole page, for a new client."""
        return {"records": list(self._records), "unreadable": self.unreadable, "kept": KEPT}

    def of(self, *streams: str) -> list[Record]:
        """The records of these streams."""
        return [record for record in self._records if record["stream"] in streams]

    def _record(self, entry_id: str, fields: Mapping[str, str]) -> Record | None:
        try:
            event = decode(fields)
        except BadEntry:
            self.unreadable += 1
            return None
        if not isinstance(event, GapRecord):
            self.unreadable += 1
            return None
        if is_private(event.stream) and not self.shows_private:
            return None
        return gap_record(entry_id, event)


def gap_record(entry_id: str, event: GapRecord) -> Record:
    """A record for the page. `missing` counts numbers: None in streams without numbers."""
    at_us = event.received_us
    end_us = at_us if event.to_us is None else event.to_us
    missing = None
    if event.from_ is not None and event.to is not None:
        missing = event.to - event.from_ + 1
    return {
        "id": entry_id,
        "stream": event.stream,
        "recovered": event.recovered,
        "cause": str(event.cause),
        "how": event.how or "",
        "missing": missing,
        "from": event.from_,
        "to": event.to,
        "from_us": end_us if event.from_us is None else event.from_us,
        "to_us": end_us,
        "at_us": at_us,
    }
