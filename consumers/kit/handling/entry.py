"""An entry on its way from Redis to a handler (pure)."""

from collections.abc import Mapping
from typing import Any

Entry = tuple[str, list[str]]
"""An entry as Redis sends it: its ID, and its fields, each name followed by its value.

The fields stay a flat list: most entries need no lookup by name, and making a dict costs a fifth of
a worker's time per entry.
"""

ParsedEntry = tuple[str, dict[str, str]]
"""An entry as the Redis client gives it: its ID, and its fields by name."""


class JoinedEntry(tuple[str, list[str]]):
    """An entry with the name of its stream, for batches over several streams."""

    stream: str

    @classmethod
    def of(cls, stream: str, entry: Entry) -> "JoinedEntry":
        """The same entry, with its stream."""
        made = cls(entry)
        made.stream = stream
        return made


def entry_of(entry_id: str, fields: Mapping[str, str]) -> Entry:
    """An entry made from its fields by name."""
    return entry_id, [text for pair in fields.items() for text in pair]


def fields_of(entry: Entry) -> dict[str, str]:
    """An entry's fields by name; of a repeated name, the last value."""
    texts = iter(entry[1])
    return dict(zip(texts, texts, strict=True))


def stream_of(entry: Entry, stream: str) -> str:
    """The stream of an entry; `stream` itself unless that is the name of joined streams."""
    return entry.stream if isinstance(entry, JoinedEntry) else stream


def entries_by_key(reply: Any) -> dict[str, list[Entry]]:
    """A RESP2 reply to XREAD or XREADGROUP as key → entries, for keys that have entries."""
    return {key: [(one, flat) for one, flat in entries] for key, entries in reply or ()}
