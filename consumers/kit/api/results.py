"""What a consumer leaves in Redis: results, and in ordered mode its state (pure).

They go to Redis in the one script that also acknowledges the entries or moves the position, so that
they count once, wholly or not at all. Every key lies beside the stream, in its slot. Knows what is
to be written, not how.
"""

import json
import re
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from typing import Any, NamedTuple

from bridge.contract.json_text import parsed

# Lua's unpack() has room for some 8,000 values; a command is split well below.
_ARGUMENTS_AT_ONCE = 1000
_FIELDS_MOST = 1000  # of an entry, which cannot be split


class Write(NamedTuple):
    """One Redis command on a key beside the stream; `part` is the key's last part."""

    command: str
    part: str
    arguments: tuple[str, ...]


class State(MutableMapping[str, Any]):
    """A dict of JSON values that is saved with the position: only what changed is sent.

    Assign to change: a value that is altered in place is not noticed.
    """

    def __init__(self, saved: Mapping[str, str] | None = None) -> None:
        self._saved: dict[str, str] = dict(saved or {})  # as Redis has it
        self._sent: dict[str, str | None] = {}  # on its way there; None: to be deleted
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
        """Redis has what `take_writes` gave last."""
        for field, text in self._sent.items():
            if text is None:
                self._saved.pop(field, None)
            else:
                self._saved[field] = text
        self._sent = {}

    def discard(self) -> None:
        """What `take_writes` gave last does not get to Redis."""
        self._sent = {}

    def saved_writes(self, part: str) -> list[Write]:
        """The commands that put back what Redis had, where it has lost it."""
        return _split("HSET", part, _flat(self._saved))

    def take_writes(self, part: str) -> list[Write]:
        """The commands that save what changed since the last call."""
        for field in self._changed:
            if type(field) is not str:
                raise TypeError(f"a field of state is a {type(field).__name__}: write text")
            _text(field)
        changed, self._changed = self._changed, {}
        gone = [field for field in changed if field not in self._values]
        kept = {f: _compact(self._values[f]) for f in changed if f in self._values}
        self._sent = {**dict.fromkeys(gone), **kept}
        return [*_split("HDEL", part, gone), *_split("HSET", part, _flat(kept))]


RESERVED = frozenset({"lease", "position", "state", "settled", "dead", "again", "ticks"})


class Results:
    """What is to be written, in order. An empty `part` is the consumer's main key.

    `part` names the key `consumers:{<stream>}:<group>:<part>`; some names are the kit's own.
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
        """The hash is these fields and no others."""
        self.delete(part)
        self.hset(part, fields)

    def incrby(self, part: str, by: int) -> None:
        self._add("INCRBY", part, _whole(by))

    def hincrby(self, part: str, field: str, by: int) -> None:
        """Whole numbers only: of a fraction, add up the smallest unit, or keep a state."""
        self._add("HINCRBY", part, field, _whole(by))

    def xadd(
        self, part: str, entry_id: str, fields: Mapping[str, str], *, keep_entries: int
    ) -> None:
        """Append to a derived stream. With the source's entry ID it is there once, however often
        it is made: what is not newer than the last entry is left out. In shared mode entries are
        not handled in their order: only `*`, an ID by Redis' clock, leaves none out."""
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
    """Two numbers below 2^64, not both 0: the IDs that XADD takes."""
    found = re.fullmatch(r"([0-9]{1,20})-([0-9]{1,20})", text)
    return found is not None and 0 < max(int(found[1]), int(found[2])) < 2**64


_LARGEST = 10**15  # what may be added at a time: Redis counts to some 9 * 10**18


def _whole(number: int) -> str:
    if type(number) is not int:
        raise TypeError(f"{type(number).__name__} where Redis needs a whole number")
    if abs(number) > _LARGEST - 1:
        raise ValueError(f"{number} is too large to add")
    return str(number)


def _text(value: object) -> str:
    """What Redis takes; a number that is exactly one text is taken too. Raises TypeError and
    ValueError, here, where it is the handler's failure: later it would be the connection's."""
    if type(value) is int:
        return str(value)
    if type(value) is not str:
        raise TypeError(f"{type(value).__name__} where Redis needs text: write str(…)")
    if not value.isascii():
        value.encode()  # half of a surrogate pair is no UTF-8: UnicodeEncodeError, a ValueError
    return value


def packed(writes: Sequence[Write], index: MutableMapping[str, int], first: int) -> list[str | int]:
    """The arguments that the scripts read (`writes.lua`). `index` gains the parts that are new,
    numbered from `first` on in the order of the script's keys."""
    arguments: list[str | int] = [len(writes)]
    for write in writes:
        at = index.setdefault(write.part, first + len(index))
        arguments += (write.command, at, len(write.arguments), *write.arguments)
    return arguments


def _split(command: str, part: str, arguments: Sequence[str]) -> list[Write]:
    # An even number: fields stay with their values.
    return [
        Write(command, part, tuple(arguments[i : i + _ARGUMENTS_AT_ONCE]))
        for i in range(0, len(arguments), _ARGUMENTS_AT_ONCE)
    ]


def _flat(fields: Mapping[str, str]) -> list[str]:
    return [text for pair in fields.items() for text in pair]


def _compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
