"""Reads replies about a stream's ends: its last ID, first and last entry, newest entries (pure)."""

from collections.abc import Sequence
from typing import Any

import hiredis

from bridge.contract.identity import EMPTY, EntryId
from bridge.core.tail import Edge, Known, Tail, edge
from bridge.redis.append import UNLIMITED, Limits, Reply


def tail_of(info: Reply, known: Sequence[Known] = (), limits: Limits = UNLIMITED) -> Tail:
    """The tail of a stream from the reply of XINFO STREAM; an error reply: there is no stream.

    `known`: its newest entries; `limits`: its retention.
    """
    if not isinstance(info, list):
        return Tail(EMPTY, known)
    facts = dict(zip(info[::2], info[1::2], strict=True))
    first, newest = _edge(facts[b"first-entry"]), _edge(facts[b"last-entry"])
    was_trimmed = first is not None and _was_trimmed(facts, first, limits)
    last = str(facts[b"last-generated-id"].decode())
    return Tail(last, known, first if was_trimmed else None, newest)


def _edge(entry: Reply) -> Edge | None:
    if entry is None:
        return None  # the stream is empty
    [(entry_id, fields)] = decoded([entry])
    return edge(entry_id, fields)


def _was_trimmed(facts: dict[bytes, Any], first: Edge, limits: Limits) -> bool:
    """Whether the stream had older entries. Before Redis 7 this is unknown: it counts as trimmed if
    it is as long, or as old, as its limits. The newest entry may be another program's.
    """
    length = facts[b"length"]
    if (added := facts.get(b"entries-added")) is not None:
        return bool(added > length)
    if limits.max_entries and length >= int(limits.max_entries):
        return True
    age_ms = EntryId.parse(facts[b"last-entry"][0].decode()).ms - first.id.ms
    return bool(limits.max_age_ms) and age_ms >= int(limits.max_age_ms)


def refusal(info: Reply, entries: Reply) -> str | None:
    """Why a tail could not be read, or None; a stream that does not exist is empty."""
    if isinstance(entries, hiredis.ReplyError):
        return str(entries)
    if isinstance(info, hiredis.ReplyError) and "no such key" not in str(info):
        return str(info)
    return None


def decoded(entries: Reply) -> list[tuple[str, dict[str, str]]]:
    """Entries in a reply, with IDs and fields as text."""
    assert isinstance(entries, list)
    return [
        (
            entry_id.decode(),
            {
                name.decode(errors="replace"): value.decode(errors="replace")
                for name, value in zip(fields[::2], fields[1::2], strict=True)
            },
        )
        for entry_id, fields in entries
    ]
