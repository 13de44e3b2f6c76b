"""What a consumer writes to Redis: results, and in ordered mode its state (pure).

One script writes them and also acknowledges the entries or moves the position, so that they are
applied once, all or nothing. Every key is in the stream's hash slot. This module collects the
writes; the scripts apply them.
"""

import json
import re
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from typing import Any, NamedTuple

from bridge.contract.json_text import parsed

# Lua's unpack() fails above some 8,000 values; commands are split well below that.
_ARGUMENTS_AT_ONCE = 1000
_FIELDS_MOST = 1000  # of an entry, which cannot be split


class Write(NamedTuple):
    """One Redis command on a key of the group and stream; `part` is the key's last part."""

    command: str
    part: str
    arguments: tuple[str, ...]


class State(MutableMapping[str, Any]):
    """A dict of JSON values that is saved with the position: only changed fields are sent.

    Assign to change a field: a value that is mutated in place is not saved.
    """

    def __init__(self, saved: Mapping[str, str] | None = None) -> None:
        self._saved: dict[str, str] = dict(saved or {})  # as stored in Redis
        self._sent: dict[str, str | None] = {}  # sent and not confirmed; None: to be deleted
        self._values: dict[str, Any] = {k: parsed(v) for k, v in self._saved.items()}
        self._changed: dict[str, None] = {}

    def __getitem__(self, field: str) -> Any:
        return self._values[field]

    def __setitem__(self, field: str, value: Any) -> None:
        self._values[field] = value
        self._changed[field] = None

    def __delitem__(self, field: str) -> None:
        del self._values[field]
        self._changed[field] = None

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def confirm(self) -> None:
        """Record that Redis has applied the last `take_writes`."""
        for field, text in self._sent.items():
            if text is None:
                self._saved.pop(field, None)
            else:
                self._saved[field] = text
        self._sent = {}

    def discard(self) -> None:
        """Drop the last `take_writes`, which Redis has not applied."""
        self._sent = {}

    def saved_writes(self, part: str) -> list[Write]:
        """The commands that restore the confirmed state after Redis has lost it."""
        return _split("HSET", part, _flat(self._saved))

    def take_writes(self, part: str) -> list[Write]:
        """The commands that save the changes since the last call. Raises TypeError for a field that
        is not text or a value that is not JSON."""
        for field in self._changed:
            if type(field) is not str:
                raise TypeError(f"a field of state is a {type(field).__name__}: write text")
            _text(field)
        changed, self._changed = self._changed, {}
        deleted = [field for field in changed if field not in self._values]
        kept = {f: _compact(self._values[f]) for f in changed if f in self._values}
        self._sent = {**dict.fromkeys(deleted), **kept}
        return [*_split("HDEL", part, deleted), *_split("HSET", part, _flat(kept))]


RESERVED = frozenset({"lease", "position", "state", "settled", "dead", "again", "ticks"})


class Results:
    """The writes to Redis, in order. An empty `part` is the consumer's main key.

    `part` names the key `consumers:{<stream>}:<group>:<part>`; the names in RESERVED are refused.
    Ordered: the writes of a batch. Shared: those of one entry, or of one list of `on_batch`.
    """

    def __init__(self, *, in_order: bool = True) -> None:
        self.writes: list[Write] = []
        self._in_order = in_order

    def set(self, part: str, value: str) -> None:
        self._add("SET", part, value)

    def delete(self, part: str) -> None:
        self._add("DEL", part)

    def hset(self, part: str, fields: Mapping[str, str]) -> None:
        self._check(part)
        self.writes += _split("HSET", part, [_text(value) for value in _flat(fields)])

    def hdel(self, part: str, fields: Sequence[str]) -> None:
        self._check(part)
        self.writes += _split("HDEL", part, [_text(field) for field in fields])

    def replace_hash(self, part: str, fields: Mapping[str, str]) -> None:
        """Replace the hash: afterwards it has these fields and no others."""
        self.delete(part)
        self.hset(part, fields)

    def incrby(self, part: str, by: int) -> None:
        self._add("INCRBY", part, _whole(by))

    def hincrby(self, part: str, field: str, by: int) -> None:
        """Integers only: for fractions, count the smallest unit, or keep the sum in `state`."""
        self._add("HINCRBY", part, field, _whole(by))

    def xadd(
        self, part: str, entry_id: str, fields: Mapping[str, str], *, keep_entries: int
    ) -> None:
        """Append to a derived stream. With the source's entry ID an entry is appended once, however
        often it is sent: IDs not above the last one are skipped. In shared mode entries are not
        handled in order: only `*`, an ID by Redis' clock, skips none. Raises ValueError, TypeError
        for arguments that Redis would refuse."""
        if entry_id != "*" and not self._in_order:
            raise ValueError(f"xadd to {part!r}: in shared mode the ID must be '*'")
        if not fields:
            raise ValueError(f"xadd to {part!r}: an entry needs fields")
        if len(fields) > _FIELDS_MOST:
            raise ValueError(
                f"xadd to {part!r}: {len(fields)} fields, and an entry takes at most "
                f"{_FIELDS_MOST}: write them as one field of JSON, or to a hash (hset)"
            )
        if entry_id != "*" and not is_entry_id(entry_id):
            raise ValueError(f"xadd to {part!r}: {entry_id!r} is no entry ID: give the source's")
        limit = ("MAXLEN", "~", _whole(max(0, keep_entries)))
        self._add("XADD", part, *limit, entry_id, *_flat(fields))

    def _add(self, command: str, part: str, *arguments: str) -> None:
        self._check(part)
        self.writes.append(Write(command, part, tuple(map(_text, arguments))))

    def _check(self, part: str) -> None:
        if type(part) is not str:
            raise TypeError(f"the part of a result is a {type(part).__name__}: write text")
        _text(part)
        if part in RESERVED:
            raise ValueError(f"results may not be written to {part!r}: that key is the kit's")


def is_entry_id(text: str) -> bool:
    """Whether the text is an ID that XADD accepts: two numbers below 2^64, not both 0."""
    match = re.fullmatch(r"([0-9]{1,20})-([0-9]{1,20})", text)
    return match is not None and 0 < max(int(match[1]), int(match[2])) < 2**64


_LARGEST = 10**15  # bound of one increment: Redis integers end at some 9 * 10**18


def _whole(number: int) -> str:
    if type(number) is not int:
        raise TypeError(f"{type(number).__name__} where Redis needs a whole number")
    if abs(number) > _LARGEST - 1:
        raise ValueError(f"{number} is too large to add")
    return str(number)


def _text(value: object) -> str:
    """The value as text for Redis; an int is converted. Raises TypeError and ValueError here, as
    the handler's failure: raised by the client later, it would be the connection's."""
    if type(value) is int:
        return str(value)
    if type(value) is not str:
        raise TypeError(f"{type(value).__name__} where Redis needs text: write str(…)")
    if not value.isascii():
        value.encode()  # a lone surrogate is not UTF-8: UnicodeEncodeError, a ValueError
    return value


def packed(writes: Sequence[Write], index: MutableMapping[str, int], first: int) -> list[str | int]:
    """The script arguments for `writes.lua`. Effect: adds new parts to `index`, numbered from
    `first` in the order of the script's keys."""
    arguments: list[str | int] = [len(writes)]
    for write in writes:
        at = index.setdefault(write.part, first + len(index))
        arguments += (write.command, at, len(write.arguments), *write.arguments)
    return arguments


def _split(command: str, part: str, arguments: Sequence[str]) -> list[Write]:
    # The size is even, so that a field and its value stay in one command.
    return [
        Write(command, part, tuple(arguments[i : i + _ARGUMENTS_AT_ONCE]))
        for i in range(0, len(arguments), _ARGUMENTS_AT_ONCE)
    ]


def _flat(fields: Mapping[str, str]) -> list[str]:
    return [text for pair in fields.items() for text in pair]


def _compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
