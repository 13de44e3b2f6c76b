"""A scan of a range of a stream, page by page (pure: returns commands, takes their replies).

The first reply fixes the end, so that the scan of a growing stream ends. The scan warns about
requested entries that were trimmed before it began, and about entries trimmed before it reaches
them.
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
    """Requested entries were trimmed from the stream."""


class RangeScan:
    """A scan from `start` (an ID, or `-`) to `end` (`(` and an excluded ID, or `+`)."""

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
        # The oldest entry is read after the page, to detect entries trimmed in between.
        return (
            ("XRANGE", self._key, self._next, self._end, "COUNT", PAGE_ENTRIES),
            ("XRANGE", self._key, FIRST, LAST, "COUNT", 1),
        )

    def is_whole(self, replies: Sequence[Any]) -> bool:
        """Whether these replies of a replica equal those of the primary. The first replies do not
        count, as they fix the stream's end, nor does a page that is not full: the replica may lag.
        A replica's copy of a stream begins at the same entry and has no holes.
        """
        page = replies[0] if replies else None
        return self._is_begun and isinstance(page, list) and len(page) == PAGE_ENTRIES

    @property
    def is_begun(self) -> bool:
        """Whether the first replies were taken, which fix the end of the scan."""
        return self._is_begun

    def take(self, replies: Sequence[Any]) -> Sequence[ParsedEntry]:
        """The entries in the replies. Raises ConfigError if the stream is not in the registry, and
        Redis errors among the replies."""
        if not self._is_begun:
            self._begin(*replies)
            return ()
        for reply in replies:
            if isinstance(reply, Exception):
                raise reply
        page: list[ParsedEntry] = replies[0]
        # From the second page on: an oldest entry beyond our position means that the stream was
        # trimmed past it, and the entries in between are missing from this scan.
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
        if isinstance(about, Exception):  # the registry does not matter here
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
    """Whether no entry was ever removed. Redis before 7.0 lacks the counter: then False."""
    return bool(about.get("entries-added") == about["length"])
