"""Dead letters: entries that could not be handled, kept beside their stream with the reason.

One lies in `consumers:{<stream>}:<group>:dead` with all that is needed to look at it and to handle
it again, even where the stream itself has been trimmed meanwhile. `retry` moves it to `…:again`; a
worker takes it from there, which makes it dead once more until it was handled well: so a handler
that kills its worker gets it once for each time it is sent back, and not for ever.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import structlog
from redis.asyncio import Redis

from bridge.contract.json_text import parsed
from bridge.contract.whole_number import whole_number
from bridge.runtime.refusals import is_of_a_key
from consumers.kit.api.results import Write, is_entry_id
from consumers.kit.handling.entry import Entry, ParsedEntry, entry_of, fields_of
from consumers.kit.handling.failure import NotFinished, error_text, source_line
from consumers.kit.handling.log_budget import LogBudget
from consumers.kit.redis.keys import Keys
from consumers.kit.redis.scripts import Call, checked, script

_log = structlog.get_logger()
_lines, _refused_lines = LogBudget(), LogBudget()  # of this process
KEPT = 10_000  # dead letters of a stream and group: the oldest go first
DEAD_PART = "dead"  # of the key they lie in
_MOST_FIELDS = 100  # of what may be one of ours: it has seven
PAGE = 100  # read at a time; of those that were sent back, taken by a worker at a time


class DeadLetter(NamedTuple):
    """One that a worker has taken to handle it again: its entry, and the attempts at that entry,
    the one that begins included."""

    letter_id: str
    entry: Entry
    attempts: int

    def removal(self) -> Write:
        """The command that deletes it, to be applied with the results of handling it."""
        return Write("XDEL", DEAD_PART, (self.letter_id,))


class StoredDeadLetter(NamedTuple):
    """One as it lies in Redis: where, and its fields as they were written."""

    group: str
    stream: str
    letter_id: str
    fields: dict[str, str]
    is_sent_back: bool = False  # and no worker has taken it yet


def dead_letter(
    stream: str,
    entry: Entry,
    *,
    attempts: int,
    error: BaseException,
    worker: str,
) -> Write:
    """The command that puts an entry among the dead letters of its stream; it is logged, of many
    in a stream the first few and then how many were left out."""
    entry_id = entry[0]
    besides = _lines.take(stream)
    if besides is not None:
        _log.warning("dead_letter", stream=stream, entry_id=entry_id, attempts=attempts, **besides)
    letter = {
        "stream": stream,
        "entry_id": entry_id,
        "attempts": str(attempts),
        "error": error_text(stream, error),
        "at": source_line(error),
        "worker": worker,
        "fields": json.dumps(fields_of(entry), separators=(",", ":")),
    }
    flat = [text for pair in letter.items() for text in pair]
    return Write("XADD", DEAD_PART, ("MAXLEN", "~", str(KEPT), "*", *flat))


# As they are shown where another program has written something else.
_NO_FIELDS = dict.fromkeys(("entry_id", "error", "at", "worker"), "") | {
    "attempts": "0",
    "fields": "{}",
}


def _attempts(fields: Mapping[str, str]) -> int | None:
    """How often its entry was tried; None where this is no dead letter of ours."""
    attempts = whole_number(fields.get("attempts", ""), 9)
    if attempts is None:
        return None
    if not is_entry_id(fields.get("entry_id", "")):
        return None
    try:
        entry = parsed(fields.get("fields", ""))
    except ValueError:
        return None
    is_flat = isinstance(entry, dict) and all(isinstance(one, str) for one in entry.values())
    return attempts if is_flat and len(fields) <= _MOST_FIELDS else None


def _of_streams(streams: Iterable[str], replies: Iterable[Any]) -> dict[str, Any]:
    """The reply of each; a key of another kind, which another program has written, holds no dead
    letters. Raises what else Redis refuses.
    """
    found = {
        stream: one for stream, one in zip(streams, replies, strict=True) if not is_of_a_key(one)
    }
    checked(list(found.values()))
    return found


class DeadLetters:
    """All dead letters of one group."""

    def __init__(self, redis: Redis, keys: Keys, group: str) -> None:
        self._redis = redis
        self._keys = keys
        self._group = group
        self._unusable: set[str] = set()  # streams: what would be sent back there is none of ours

    async def find(
        self, streams: Sequence[str], letter_id: str | None = None
    ) -> list[StoredDeadLetter]:
        """All, or those with this ID, oldest first within each stream."""
        keys = {stream: self._keys.dead(stream, self._group) for stream in streams}
        return await self._find(keys, letter_id, is_sent_back=False)

    async def find_sent_back(
        self, streams: Sequence[str], letter_id: str | None = None
    ) -> list[StoredDeadLetter]:
        """The same of those that were sent back and that no worker has taken yet."""
        keys = {stream: self._keys.again(stream, self._group) for stream in streams}
        return await self._find(keys, letter_id, is_sent_back=True)

    async def send_back(self, found: Iterable[StoredDeadLetter]) -> int:
        """Give them to the group's workers, who handle each once more. Returns how many were still
        there."""
        calls = [
            Call(
                (self._keys.dead(one.stream, one.group), self._keys.again(one.stream, one.group)),
                (one.letter_id,),
            )
            for one in found
        ]
        return sum(checked(await script("send_back").run(self._redis, calls)))

    async def drop(self, found: Iterable[StoredDeadLetter]) -> int:
        """Delete them for good. Returns how many were still there."""
        async with self._redis.pipeline(transaction=False) as pipeline:
            for one in found:
                key = self._keys.again if one.is_sent_back else self._keys.dead
                pipeline.xdel(key(one.stream, one.group), one.letter_id)
            return sum(await pipeline.execute())

    async def sent_back(self, streams: Sequence[str]) -> dict[str, list[ParsedEntry]]:
        """Those that wait for a worker, by stream: their own IDs and fields, a page of each."""
        async with self._redis.pipeline(transaction=False) as pipeline:
            for stream in streams:
                pipeline.xrange(self._keys.again(stream, self._group), count=PAGE)
            replies = await pipeline.execute(raise_on_error=False)
        found = _of_streams(streams, replies)
        for stream in found.keys() ^ streams:
            self._report_unusable(stream)
        return {stream: some for stream, some in found.items() if some}

    async def take(
        self, stream: str, waiting: ParsedEntry, worker: str, owner: tuple[str, int] | None = None
    ) -> DeadLetter | None:
        """Take one that was sent back, to handle it once. None where another worker has it.

        `owner`: who must own the stream, and its fencing token, in ordered mode; None is returned
        where it is owned no more.
        """
        letter_id, fields = waiting
        attempts = _attempts(fields)
        if attempts is None:  # of another program: it would be met again and again
            if (besides := _refused_lines.take(stream)) is not None:
                told = {"stream": stream, "letter": letter_id, "then": "deleted", **besides}
                _log.warning("dead_letter_refused", **told)
            await self._redis.xdel(self._keys.again(stream, self._group), letter_id)
            return None
        # Until it was handled well it is dead again, with the reason that holds if this worker
        # dies with it.
        unfinished = NotFinished(attempts + 1)
        call = Call(
            (
                self._keys.again(stream, self._group),
                self._keys.dead(stream, self._group),
                self._keys.position(stream, self._group),
            ),
            (letter_id, error_text(stream, unfinished), worker, *(owner or ("", ""))),
        )
        reply: Any = await script("take_dead_letter").run_one(self._redis, call)
        if reply is None:
            return None
        new_id, flat = reply
        taken = dict(zip(flat[::2], flat[1::2], strict=True))
        entry = entry_of(taken["entry_id"], parsed(taken["fields"]))
        return DeadLetter(new_id, entry, int(taken["attempts"]))

    async def _find(
        self, keys: Mapping[str, str], letter_id: str | None, *, is_sent_back: bool
    ) -> list[StoredDeadLetter]:
        found: list[StoredDeadLetter] = []
        for stream in await self._streams_with_some(keys):
            after = letter_id or "-"
            while True:
                last = letter_id or "+"
                page: Any = await self._redis.xrange(keys[stream], after, last, count=PAGE)
                found += [
                    StoredDeadLetter(self._group, stream, one, _NO_FIELDS | fields, is_sent_back)
                    for one, fields in page
                ]
                if letter_id or len(page) < PAGE:
                    break
                after = f"({page[-1][0]}"
        return found

    async def _streams_with_some(self, keys: Mapping[str, str]) -> list[str]:
        async with self._redis.pipeline(transaction=False) as pipeline:
            for key in keys.values():
                pipeline.xlen(key)
            replies = await pipeline.execute(raise_on_error=False)
        return [stream for stream, number in _of_streams(keys, replies).items() if number]

    def _report_unusable(self, stream: str) -> None:
        """Once."""
        if stream not in self._unusable:
            self._unusable.add(stream)
            key = self._keys.again(stream, self._group)
            _log.warning("stream_unusable", stream=key, error="what is sent back cannot lie there")
