"""Walking over a range of a stream page by page (pure: says what to ask Redis, takes the replies).

The end is fixed by the first look, so that a walk over a growing stream ends. What the stream no
longer keeps is said: both what was asked for and is gone, and what is trimmed away before the walk
has come to it.
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from redis.exceptions import ResponseError

from bridge.contract.identity import EntryId
from bridge.errors import ConfigError
from bridge.runtime.nearest import did_you_mean
from consumers.keys import Keys

PAGE_ENTRIES = 500

Entry = tuple[str, dict[str, str]]
Command = tuple[str | int, ...]

FIRST, LAST = "-", "+"


class TrimmedAway(UserWarning):
    """Entries that were asked for are not kept any more."""


class Walk:
    """From `start` (an ID, or `-`) to `end` (an ID that is left out, or `+`)."""

    def __init__(self, stream: str, keys: Keys, start: str, end: str) -> None:
        self.is_done = False
        self._stream = stream
        self._key = keys.stream(stream)
        self._registry = keys.registry
        self._next = start
        self._end = end
        self._looked = False

    def ask(self) -> Sequence[Command]:
        """Commands for one round trip."""
        if not self._looked:
            return (("XINFO STREAM", self._key), ("HKEYS", self._registry))
        # The oldest entry is asked for after the page: what is trimmed meanwhile shows.
        return (
            ("XRANGE", self._key, self._next, self._end, "COUNT", PAGE_ENTRIES),
            ("XRANGE", self._key, FIRST, LAST, "COUNT", 1),
        )

    def take(self, replies: Sequence[Any]) -> Sequence[Entry]:
        """The entries in the replies. Raises ConfigError where there is no such stream."""
        if not self._looked:
            self._look(*replies)
            return ()
        for reply in replies:
            if isinstance(reply, Exception):
                raise reply
        page: list[Entry] = replies[0]
        if self._next.startswith("("):
            self._tell_if_overtaken(replies[1])
        if page:
            self._next = f"({page[-1][0]}"
        self.is_done = len(page) < PAGE_ENTRIES
        return page

    def _look(self, about: Any, names: Any) -> None:
        self._looked = True
        if isinstance(about, ResponseError) and "no such key" in str(about):
            self.is_done = True
            if self._stream not in names:
                hint = did_you_mean(self._stream, names) or f"; HKEYS {self._registry} lists them"
                raise ConfigError(f"there is no stream {self._stream}{hint}")
            return
        for reply in (about, names):
            if isinstance(reply, Exception):
                raise reply
        if self._end == LAST:
            self._end = about["last-generated-id"]
        oldest = about["first-entry"]
        if oldest is None or self._next == FIRST or _is_whole(about):
            return
        if EntryId.parse(self._next) < EntryId.parse(oldest[0]):
            self._warn(f"begins at {oldest[0]}: what was before, from {self._next}, is not kept")

    def _tell_if_overtaken(self, oldest: Sequence[Entry]) -> None:
        done = self._next[1:]
        if not oldest:
            self._warn(f"was deleted while it was read: what came after {done} is not there")
        elif EntryId.parse(oldest[0][0]) > EntryId.parse(done):
            self._warn(f"was trimmed while it was read: after {done} comes {oldest[0][0]}")

    def _warn(self, what: str) -> None:
        warnings.warn(f"{self._stream} {what}", TrimmedAway, stacklevel=4)


def _is_whole(about: Mapping[str, Any]) -> bool:
    """Whether nothing was ever taken out; before Redis 7.0 nobody counted, so it may have been."""
    return bool(about.get("entries-added") == about["length"])
