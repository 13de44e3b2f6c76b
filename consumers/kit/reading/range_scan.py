"""A scan of a range of a stream, page by page (pure: gives the commands, takes the replies).

The end is fixed by the first reply, so that the scan of a growing stream ends. It warns of what the
stream no longer keeps: what was asked for and is gone, and what is trimmed away before the scan
comes to it.
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from redis.exceptions import ResponseError

from bridge.contract.identity import EntryId
from bridge.contract.streams import is_stream
from bridge.errors import ConfigError
from bridge.runtime.nearest import did_you_mean
from consumers.kit.handling.entry import ParsedEntry
from consumers.kit.redis.keys import Keys

PAGE_ENTRIES = 500

Command = tuple[str | int, ...]

FIRST, LAST = "-", "+"


class TrimmedAway(UserWarning):
    """Entries that were asked for are not kept any more."""


class RangeScan:
    """From `start` (an ID, or `-`) to `end` (an ID that is left out, or `+`)."""

    def __init__(self, stream: str, keys: Keys, start: str, end: str) -> None:
        self.is_done = False
        self._stream = stream
        self._key = keys.stream(stream)
        self._registry = keys.registry
        self._next = start
        self._end = end
        self._is_begun = False

    def commands(self) -> Sequence[Command]:
        """The commands of the next round trip; their replies are for `take`."""
        if not self._is_begun:
            return (("XINFO STREAM", self._key), ("HKEYS", self._registry))
        # The oldest entry is asked for after the page: what is trimmed meanwhile shows.
        return (
            ("XRANGE", self._key, self._next, self._end, "COUNT", PAGE_ENTRIES),
            ("XRANGE", self._key, FIRST, LAST, "COUNT", 1),
        )

    def is_whole(self, replies: Sequence[Any]) -> bool:
        """Are these, of a replica, what the primary would answer? Not the first, which say where
        the stream ends, nor a page that is not full: the replica may not have what follows. What it
        has of a stream begins where the primary's does, and has no holes.
        """
        page = replies[0] if replies else None
        return self._is_begun and isinstance(page, list) and len(page) == PAGE_ENTRIES

    @property
    def is_begun(self) -> bool:
        """Is it known where the scan ends?"""
        return self._is_begun

    def take(self, replies: Sequence[Any]) -> Sequence[ParsedEntry]:
        """The entries in the replies. Raises ConfigError where there is no such stream."""
        if not self._is_begun:
            self._begin(*replies)
            return ()
        for reply in replies:
            if isinstance(reply, Exception):
                raise reply
        page: list[ParsedEntry] = replies[0]
        # From the second page on: if the oldest entry is behind our place, the stream was trimmed
        # past it, and what was between is missing from this scan.
        if self._next.startswith("("):
            self._warn_if_overtaken(replies[1])
        if page:
            self._next = f"({page[-1][0]}"
        self.is_done = len(page) < PAGE_ENTRIES
        return page

    def _begin(self, about: Any, names: Any) -> None:
        self._is_begun = True
        if isinstance(about, ResponseError) and "no such key" in str(about):
            self.is_done = True
            if isinstance(names, Exception):
                raise names
            if self._stream not in names:
                hint = (
                    did_you_mean(self._stream, filter(is_stream, names))
                    or f"; HKEYS {self._registry} lists them"
                )
                raise ConfigError(f"there is no stream {self._stream}{hint}")
            return
        if isinstance(about, Exception):  # what the registry says is of no use here
            raise about
        if self._end == LAST:
            self._end = about["last-generated-id"]
        oldest = about["first-entry"]
        if oldest is None or self._next == FIRST or _is_whole(about):
            return
        if EntryId.parse(self._next) < EntryId.parse(oldest[0]):
            self._warn(f"begins at {oldest[0]}: what was before, from {self._next}, is not kept")

    def _warn_if_overtaken(self, oldest: Sequence[ParsedEntry]) -> None:
        done = self._next[1:]
        if not oldest:
            self._warn(f"was deleted while it was read: what came after {done} is not there")
        elif EntryId.parse(oldest[0][0]) > EntryId.parse(done):
            self._warn(f"was trimmed while it was read: after {done} comes {oldest[0][0]}")

    def _warn(self, what: str) -> None:
        warnings.warn(f"{self._stream} {what}", TrimmedAway, stacklevel=4)


def _is_whole(about: Mapping[str, Any]) -> bool:
    """Whether no entry was ever removed. Redis before 7.0 does not count them: then, unknown."""
    return bool(about.get("entries-added") == about["length"])
