"""Dead letters: entries that could not be handled, kept in Redis with the reason.

A dead letter is an entry of `consumers:{<stream>}:<group>:dead` with all data to inspect it and to
handle it again, even after its source entry was trimmed. `retry` moves it to `…:again`; a worker
takes it from there, which moves it back to `dead` until it is handled successfully. So a handler
that kills its worker gets it once per `retry`, and not without end.
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
KEPT = 10_000  # dead letters of a stream and group; the oldest are dropped first
DEAD_PART = "dead"  # last part of the key of the dead letters
_MOST_FIELDS = 100  # an entry with more is not a dead letter of the kit, which has seven
PAGE = 100  # dead letters per read, and sent-back ones that a worker takes at a time


class DeadLetter(NamedTuple):
    """A dead letter that a worker has taken to handle it again: its entry, and the number of
    attempts, the current one included."""

    letter_id: str
    entry: Entry
    attempts: int

    def removal(self) -> Write:
        """The command that deletes the dead letter, to be applied with the handler's results."""
        return Write("XDEL", DEAD_PART, (self.letter_id,))


class StoredDeadLetter(NamedTuple):
    """A dead letter as stored in Redis: group, stream, ID, and its fields as written."""

    group: str
    stream: str
    letter_id: str
    fields: dict[str, str]
    is_sent_back: bool = False  # sent back, and not taken by a worker yet


def dead_letter(
    stream: str,
    entry: Entry,
    *,
    attempts: int,
    error: BaseException,
    worker: str,
) -> Write:
    """The command that adds an entry to the dead letters of its stream. Effect: logs it; of many in
    a stream, the first few and then the number left out."""
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


# Defaults for fields that are missing because another program wrote the entry.
_NO_FIELDS = dict.fromkeys(("entry_id", "error", "at", "worker"), "") | {
    "attempts": "0",
    "fields": "{}",
}


def _attempts(fields: Mapping[str, str]) -> int | None:
    """The number of attempts at the entry; None if the fields are not a dead letter of the kit."""
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
    """Stream → reply, without streams whose key has another type (written by another program).
    Raises any other error among the replies.
    """
    by_stream = {
        stream: one for stream, one in zip(streams, replies, strict=True) if not is_of_a_key(one)
    }
    checked(list(by_stream.values()))
    return by_stream


class DeadLetters:
    """All dead letters of one group."""

    def __init__(self, redis: Redis, keys: Keys, group: str) -> None:
        self._redis = redis
        self._keys = keys
        self._group = group
        self._unusable: set[str] = set()  # streams whose `…:again` key has another type

    async def find(
        self, streams: Sequence[str], letter_id: str | None = None
    ) -> list[StoredDeadLetter]:
        """The dead letters of these streams, or those with this ID, oldest first per stream."""
        keys = {stream: self._keys.dead(stream, self._group) for stream in streams}
        return await self._find(keys, letter_id, is_sent_back=False)

    async def find_sent_back(
        self, streams: Sequence[str], letter_id: str | None = None
    ) -> list[StoredDeadLetter]:
        """The same for dead letters that were sent back and that no worker has taken yet."""
        keys = {stream: self._keys.again(stream, self._group) for stream in streams}
        return await self._find(keys, letter_id, is_sent_back=True)

    async def send_back(self, dead_letters: Iterable[StoredDeadLetter]) -> int:
        """Send dead letters back to the group's workers, which handle each once more. Returns how
        many still existed."""
        calls = [
            Call(
                (self._keys.dead(one.stream, one.group), self._keys.again(one.stream, one.group)),
                (one.letter_id,),
            )
            for one in dead_letters
        ]
        return sum(checked(await script("send_back").run(self._redis, calls)))

    async def drop(self, dead_letters: Iterable[StoredDeadLetter]) -> int:
        """Delete dead letters for good. Returns how many still existed."""
        async with self._redis.pipeline(transaction=False) as pipeline:
            for one in dead_letters:
                key = self._keys.again if one.is_sent_back else self._keys.dead
                pipeline.xdel(key(one.stream, one.group), one.letter_id)
            return sum(await pipeline.execute())

    async def sent_back(self, streams: Sequence[str]) -> dict[str, list[ParsedEntry]]:
        """Dead letters that were sent back: stream → IDs and fields, one page per stream."""
        async with self._redis.pipeline(transaction=False) as pipeline:
            for stream in streams:
                pipeline.xrange(self._keys.again(stream, self._group), count=PAGE)
            replies = await pipeline.execute(raise_on_error=False)
        by_stream = _of_streams(streams, replies)
        for stream in by_stream.keys() ^ streams:
            self._report_unusable(stream)
        return {stream: some for stream, some in by_stream.items() if some}

    async def take(
        self, stream: str, waiting: ParsedEntry, worker: str, owner: tuple[str, int] | None = None
    ) -> DeadLetter | None:
        """Take a dead letter that was sent back, to handle it once. None if another worker has it.

        `owner`: in ordered mode, the worker that must own the stream, and its fencing token; the
        result is None if it no longer owns the stream.
        """
        letter_id, fields = waiting
        attempts = _attempts(fields)
        if attempts is None:  # written by another program: kept, it would be read again and again
            if (besides := _refused_lines.take(stream)) is not None:
                fields_of_line = {"stream": stream, "letter": letter_id, "then": "deleted"}
                _log.warning("dead_letter_refused", **fields_of_line, **besides)
            await self._redis.xdel(self._keys.again(stream, self._group), letter_id)
            return None
        # Taking it makes it a dead letter again at once. Its reason is written for the case that
        # this worker dies before the handler has succeeded.
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
        dead_letters: list[StoredDeadLetter] = []
        for stream in await self._streams_with_some(keys):
            after = letter_id or "-"
            while True:
                last = letter_id or "+"
                page: Any = await self._redis.xrange(keys[stream], after, last, count=PAGE)
                dead_letters += [
                    StoredDeadLetter(self._group, stream, one, _NO_FIELDS | fields, is_sent_back)
                    for one, fields in page
                ]
                if letter_id or len(page) < PAGE:
                    break
                after = f"({page[-1][0]}"
        return dead_letters

    async def _streams_with_some(self, keys: Mapping[str, str]) -> list[str]:
        async with self._redis.pipeline(transaction=False) as pipeline:
            for key in keys.values():
                pipeline.xlen(key)
            replies = await pipeline.execute(raise_on_error=False)
        return [stream for stream, number in _of_streams(keys, replies).items() if number]

    def _report_unusable(self, stream: str) -> None:
        """Log it once per stream."""
        if stream not in self._unusable:
            self._unusable.add(stream)
            key = self._keys.again(stream, self._group)
            _log.warning("stream_unusable", stream=key, error="what is sent back cannot lie there")
