"""What an ordered consumer leaves in Redis: its state, and the results of a batch (pure).

Both go to Redis in the one script that also moves the position, so a batch counts wholly or not at
all. Every key lies beside the stream, in its slot. Knows what is to be written, not how.
"""

import json
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from typing import Any, NamedTuple

# Lua's unpack() has room for some 8,000 values; a command is split well below.
_ARGUMENTS_AT_ONCE = 1000


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
        self._values: dict[str, Any] = {k: json.loads(v) for k, v in (saved or {}).items()}
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

    def touch_all(self) -> None:
        """Redis has lost it: everything is to be sent again."""
        self._changed = dict.fromkeys(self._values)

    def take_writes(self, part: str) -> list[Write]:
        """The commands that save what changed since the last call."""
        changed, self._changed = self._changed, {}
        gone = [field for field in changed if field not in self._values]
        kept = {f: _compact(self._values[f]) for f in changed if f in self._values}
        return [*_split("HDEL", part, gone), *_split("HSET", part, _flat(kept))]


class Results:
    """The writes of one batch, in order. An empty `part` is the consumer's main key.

    `part` names the key `consumers:{<stream>}:<group>:<part>`; `lease`, `position` and `state` are
    the kit's own.
    """

    RESERVED = frozenset({"lease", "position", "state"})

    def __init__(self) -> None:
        self.writes: list[Write] = []

    def set(self, part: str, value: str) -> None:
        self._add("SET", part, value)

    def delete(self, part: str) -> None:
        self._add("DEL", part)

    def hset(self, part: str, fields: Mapping[str, str]) -> None:
        self._check(part)
        self.writes += _split("HSET", part, _flat(fields))

    def hdel(self, part: str, fields: Sequence[str]) -> None:
        self._check(part)
        self.writes += _split("HDEL", part, fields)

    def replace_hash(self, part: str, fields: Mapping[str, str]) -> None:
        """The hash is these fields and no others."""
        self.delete(part)
        self.hset(part, fields)

    def xadd(
        self, part: str, entry_id: str, fields: Mapping[str, str], *, keep_entries: int
    ) -> None:
        """Append to a derived stream. With the source's entry ID it is there once, however often
        it is made: what is not newer than the last entry is left out."""
        limit = ("MAXLEN", "~", str(keep_entries))
        self._add("XADD", part, *limit, entry_id, *_flat(fields))

    def _add(self, command: str, part: str, *arguments: str) -> None:
        self._check(part)
        self.writes.append(Write(command, part, arguments))

    def _check(self, part: str) -> None:
        if part in self.RESERVED:
            raise ValueError(f"results may not be written to {part!r}: that key is the kit's")


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
