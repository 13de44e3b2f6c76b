"""An entry on its way from Redis to a handler (pure)."""

from collections.abc import Mapping
from typing import Any

Entry = tuple[str, list[str]]
"""An entry as Redis sends it: its ID, and its fields, each name followed by its value.

No dict is made of them: most entries are never asked for a field by its name, and to make one costs
a fifth of what a worker does for an entry.
"""

ParsedEntry = tuple[str, dict[str, str]]
"""An entry as the Redis client gives it: its ID, and its fields by name."""


class JoinedEntry(tuple[str, list[str]]):
    """An entry that says of which stream it is: those of several are handed over together."""

    stream: str

    @classmethod
    def of(cls, stream: str, entry: Entry) -> "JoinedEntry":
        """The same entry, with its stream."""
        made = cls(entry)
        made.stream = stream
        return made


def entry_of(entry_id: str, fields: Mapping[str, str]) -> Entry:
    """An entry of which the fields are known by name."""
    return entry_id, [text for pair in fields.items() for text in pair]


def fields_of(entry: Entry) -> dict[str, str]:
    """An entry's fields by name; of a name that is there twice, the last value."""
    texts = iter(entry[1])
    return dict(zip(texts, texts, strict=True))


def stream_of(entry: Entry, stream: str) -> str:
    """The stream of an entry among those of `stream`, which may be the name of several."""
    return entry.stream if isinstance(entry, JoinedEntry) else stream


def entries_by_key(reply: Any) -> dict[str, list[Entry]]:
    """The reply to XREAD or XREADGROUP, of protocol 2: the entries of each key that has some."""
    return {key: [(one, flat) for one, flat in entries] for key, entries in reply or ()}
