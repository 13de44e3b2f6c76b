"""An in-memory Redis for the packed commands of an outbox, for tests without a socket.

It appends by the same rules as `bridge/redis/append.lua`
(`tests/integration/redis/test_append_script.py` compares the two) and trims nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import hiredis

from bridge.contract.identity import EntryId
from bridge.redis.ends import decoded

Reply = object
Stored = tuple[EntryId, list[bytes]]  # names and values alternate

NONE = EntryId(0, 0)
REACH = 1_000  # how many entries the script searches for the newest one of a bridge
SLOT_OF = {b"trade": 0, b"depth": 0, b"gap": 1, b"depth_snapshot": 2}


class Stream:
    """One stream: its entries, and the highest ID so far."""

    def __init__(self) -> None:
        self.entries: list[Stored] = []
        self.last = NONE
        self.added = 0

    def add(self, ms: int, seq: int, fields: list[bytes]) -> str:
        ms = max(ms, self.last.ms)
        if ms == self.last.ms and seq <= self.last.seq:
            ms += 1
        self.last = EntryId(ms, seq)
        self.entries.append((self.last, fields))
        self.added += 1
        return "+"

    def is_mixed(self) -> bool:
        """Whether another program wrote the newest entry."""
        if self.entries and self.entries[-1][0] == self.last:
            return not _is_ours(self.entries[-1])
        return self.last != NONE and (self.last.seq == 0 or self.last.seq % 10 > 2)

    def our_position(self) -> int:
        newest = reversed(self.entries[-REACH:])
        return next((each[0].position for each in newest if _is_ours(each)), -1)


class MemoryServer:
    """`refusals`: the error of each command on a key, by key; the empty key stands for all."""

    def __init__(self) -> None:
        self.streams: dict[bytes, Stream] = {}
        self.refusals: dict[str, str] = {}
        self.closed = 0

    def flush(self) -> None:
        """Delete all data, as FLUSHALL does."""
        self.streams.clear()

    def delete(self, name: str) -> None:
        self.streams.pop(name.encode(), None)

    def xadd(self, name: str, fields: Mapping[str, str], now_ms: int) -> None:
        """Append as another program's `XADD name *` at `now_ms` of the server's clock."""
        stream = self.streams.setdefault(name.encode(), Stream())
        ms, seq = (now_ms, 0) if now_ms > stream.last.ms else stream.last
        parts = [part.encode() for pair in fields.items() for part in pair]
        stream.add(ms, seq + (ms == stream.last.ms), parts)

    def trim(self, name: str, keep: int) -> None:
        """Remove all but the newest `keep` entries, as XTRIM does."""
        del self.streams[name.encode()].entries[:-keep]

    def delete_newest(self, name: str) -> None:
        """Remove the newest entry, as XDEL does."""
        del self.streams[name.encode()].entries[-1]

    def last(self, name: str) -> str:
        """The highest ID that the stream has had."""
        stream = self.streams.get(name.encode())
        return str(stream.last if stream else NONE)

    def entries(self, name: str) -> list[dict[str, str]]:
        """The entries of a stream."""
        return [fields for _, fields in decoded([_shown(each) for each in self._stored(name)])]

    def numbers(self, name: str) -> list[str]:
        """Short forms of a sequenced stream's entries: numbers, and gaps with their cause."""
        found = []
        for (entry_id, _), fields in zip(self._stored(name), self.entries(name), strict=True):
            match fields.get("type"):
                case None:
                    found.append("foreign")
                case "gap":
                    found.append(f"gap {fields['from']}-{fields['to']} {fields['cause']}")
                case "depth_snapshot":
                    found.append(f"book {fields['update_id']}")
                case _:
                    found.append(str(entry_id.position))
        return found

    # ---- the connection ------------------------------------------------------------------------

    def call(self, packed: bytes, replies: int) -> list[Reply]:
        """Apply the packed commands; their replies."""
        reader = hiredis.Reader()
        reader.feed(packed)
        found = []
        while (command := reader.gets()) is not False:
            found.append(self._answer(command))
        assert len(found) == replies
        return found

    def close(self) -> None:
        self.closed += 1

    def _answer(self, command: Any) -> Reply:
        name, *arguments = command
        for key, error in self.refusals.items():
            if not key or key.encode() in arguments:
                return hiredis.ReplyError(error)
        return _COMMANDS[name](self, arguments)

    def _ok(self, _: Sequence[bytes]) -> Reply:
        return b"OK"

    def _append(self, arguments: Sequence[bytes]) -> Reply:
        _, count, *rest = arguments
        found, argv = rest[: int(count)], rest[int(count) :]
        streams = {key: self.streams.get(key) or Stream() for key in found}
        answers = append([streams[key] for key in found], argv)  # a key may be there twice
        self.streams |= {key: stream for key, stream in streams.items() if stream.entries}
        return answers

    def _info(self, arguments: Sequence[bytes]) -> Reply:
        stream = self.streams.get(arguments[1])
        if stream is None:
            return hiredis.ReplyError("ERR no such key")
        shown = [_shown(entry) for entry in stream.entries]
        return [
            *(b"length", len(shown), b"last-generated-id", str(stream.last).encode()),
            *(b"entries-added", stream.added),
            *(b"first-entry", shown[0] if shown else None),
            *(b"last-entry", shown[-1] if shown else None),
        ]

    def _range(self, arguments: Sequence[bytes]) -> Reply:
        key, first, last, *count = arguments
        found = [each for each in self._stored(key) if _is_within(each[0], first, last)]
        return [_shown(each) for each in found[: int(count[1]) if count else None]]

    def _reverse_range(self, arguments: Sequence[bytes]) -> Reply:
        key, last, first, *count = arguments
        found = [each for each in self._stored(key) if _is_within(each[0], first, last)]
        return [_shown(each) for each in found[::-1][: int(count[1]) if count else None]]

    def _stored(self, name: str | bytes) -> Sequence[Stored]:
        stream = self.streams.get(name.encode() if isinstance(name, str) else name)
        return stream.entries if stream else ()


_COMMANDS: Mapping[bytes, Callable[[MemoryServer, Sequence[bytes]], Reply]] = {
    b"SCRIPT": MemoryServer._ok,
    b"HSET": MemoryServer._ok,
    b"EVALSHA": MemoryServer._append,
    b"XINFO": MemoryServer._info,
    b"XRANGE": MemoryServer._range,
    b"XREVRANGE": MemoryServer._reverse_range,
}


def append(streams: Sequence[Stream], argv: Sequence[bytes]) -> list[Reply]:
    """The append script's replies to these arguments. Appends to the streams."""
    shapes, place = [], 1
    for _ in range(int(argv[0])):
        count = int(argv[place])
        shapes.append(list(argv[place + 1 : place + 1 + count]))
        place += count + 1
    answers: list[Reply] = []
    for stream in streams:
        first = place + 3
        place = first + int(argv[place + 2])
        answers.append(_append_to(stream, argv[first:place], shapes))
    return answers


def _append_to(
    stream: Stream, argv: Sequence[bytes], shapes: Sequence[Sequence[bytes]]
) -> list[Reply]:
    status, signs, place = "ok", "", 0
    while place < len(argv):
        op, expected, number, ms, shape = argv[place : place + 5]
        place += 5
        if int(shape):
            names = shapes[int(shape) - 1]
            values = argv[place : place + len(names)]
            fields = [part for pair in zip(names, values, strict=True) for part in pair]
            place += len(names)
        else:
            fields = list(argv[place + 1 : place + 1 + int(argv[place])])
            place += 1 + len(fields)
        entry = op, expected.decode(), int(number), int(ms), fields
        sign = "" if signs else _place_by_newest(stream, *entry)
        sign = sign or _place(stream, *entry)
        if len(sign) > 1:
            status = sign
            break
        signs += sign
    # Without entries in the call the script has read only the newest stored entry.
    last = stream.last if argv or not stream.entries else stream.entries[-1][0]
    return [status.encode(), len(signs), str(last).encode(), signs.encode()]


def _place_by_newest(
    stream: Stream, op: bytes, expected: str, number: int, ms: int, fields: list[bytes]
) -> str:
    """The script's first attempt: place a message after the newest remaining entry. Empty if that
    is impossible, or if Redis has had a higher ID.
    """
    if not stream.entries or op in (b"G", b"S"):
        return ""
    tried = Stream()
    tried.entries, tried.last = list(stream.entries), stream.entries[-1][0]
    is_placed = _place(tried, op, expected, number, ms, fields) == "+"
    if not is_placed or tried.last <= stream.last:
        return ""
    stream.entries, stream.last = tried.entries, tried.last
    stream.added += 1
    return "+"


def _place(
    stream: Stream, op: bytes, expected: str, number: int, ms: int, fields: list[bytes]
) -> str:
    """The sign of a placed entry, or the status with which the script stops."""
    last = stream.last
    match op:
        case b"A" if last == NONE:
            return "empty"
        case b"A":
            return _append_message(stream, number, int(expected), ms, fields)
        case b"S":
            is_place = last != NONE and last.position == number and last.seq % 10 < 2
            if is_place and not stream.is_mixed():
                return stream.add(ms, number * 10 + 2, fields)
            return "=" if _has_snapshot(stream, number) else "~"
        case b"G":
            return stream.add(ms, number * 10 + 1, fields) if expected == str(last) else "~"
        case _:
            if expected not in ("", str(last)):
                return "moved"
            if (ms, number) <= (last.ms, last.seq):
                ms, number = last.ms, last.seq + 1
            return stream.add(ms, number, fields)


def _append_message(stream: Stream, number: int, after: int, ms: int, fields: list[bytes]) -> str:
    is_mixed = stream.is_mixed()
    at = stream.our_position() if is_mixed else stream.last.position
    if number <= at:
        return "!" if ms > stream.last.ms else "="
    if is_mixed:
        return "mixed"
    return "gap" if after > at else stream.add(ms, number * 10, fields)


def _is_ours(entry: Stored) -> bool:
    entry_id, fields = entry
    return fields[0] == b"type" and SLOT_OF.get(fields[1]) == entry_id.seq % 10


def _has_snapshot(stream: Stream, number: int) -> bool:
    for entry_id, fields in reversed(stream.entries[-500:]):
        if fields[1] == b"depth_snapshot":
            return entry_id.position >= number
        if fields[1] == b"gap":
            return False
    return False


def _is_within(entry_id: EntryId, first: bytes, last: bytes) -> bool:
    return _is_above(entry_id, first) and _is_below(entry_id, last)


def _is_above(entry_id: EntryId, first: bytes) -> bool:
    text = first.decode()
    if text == "-":
        return True
    if text.startswith("("):
        return entry_id > EntryId.parse(text[1:])
    return entry_id >= (EntryId.parse(text) if "-" in text else EntryId(int(text), 0))


def _is_below(entry_id: EntryId, last: bytes) -> bool:
    text = last.decode()
    if text == "+":
        return True
    return entry_id < EntryId.parse(text[1:])


def _shown(entry: Stored) -> list[Reply]:
    return [str(entry[0]).encode(), entry[1]]
