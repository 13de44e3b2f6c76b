"""One stream in the Parquet files of the sample consumer `archive`, as the original entries.

    <folder>/stream=trade.SOL_USDC/day=2026-09-02/after-1788367440000-10.parquet

A file is named by the entry that precedes its first, and its footer holds the ID of its last.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from bridge.contract.entry import MODEL_BY_TYPE, field_names
from bridge.contract.identity import EntryId
from bridge.contract.json_text import parsed
from bridge.contract.moments import moment
from bridge.errors import ConfigError
from bridge.inspect.stored import Stored
from bridge.runtime.terminal import bounded

_LAST = b"last_entry_id"  # in a file's footer
_BAD = (OSError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


class _File(NamedTuple):
    path: Path
    after: EntryId
    last: EntryId


class ArchiveStream:
    """One stream's files. Raises ConfigError where there are none or they cannot be read."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self._arrow = _library("pyarrow")
        self._parquet = _library("pyarrow.parquet")
        self._files = self._find(folder)

    @property
    def last_id(self) -> EntryId:
        """ID of the newest entry."""
        return self._files[-1].last

    def forwards(self, first: EntryId, last: EntryId) -> Iterator[Stored]:
        """The entries of a range, both ends included, oldest first."""
        for file in self._files:
            if file.last >= first and file.after < last:
                for place, entry in self._read(file.path):
                    if first <= place <= last:
                        yield entry

    def backwards(self, last: EntryId) -> Iterator[Stored]:
        """The entries up to an ID, newest first."""
        for file in reversed(self._files):
            if file.after < last:
                for place, entry in reversed(list(self._read(file.path))):
                    if place <= last:
                        yield entry

    def _find(self, folder: Path) -> list[_File]:
        stream = folder / f"stream={self.name}"
        try:
            paths = [path for path in stream.glob("day=*/after-*.parquet") if path.is_file()]
        except OSError as error:
            raise _unreadable(stream, error) from None
        if not paths:
            raise ConfigError(
                f"{folder} holds no archive of {self.name}: give the folder of the consumer "
                "`archive` (-o folder=…)"
            )
        return sorted(map(self._file, paths), key=lambda file: (file.after, file.last))

    def _file(self, path: Path) -> _File:
        try:
            last = self._parquet.read_schema(path).metadata[_LAST].decode()
            return _File(path, EntryId.parse(path.stem.removeprefix("after-")), EntryId.parse(last))
        except (*_BAD, self._arrow.ArrowException) as error:
            raise _unreadable(path, error) from None

    def _read(self, path: Path) -> Iterator[tuple[EntryId, Stored]]:
        """Each entry with its ID. Columns may have any type, or be missing. Raises ConfigError."""
        try:
            yield from self._entries(path)
        except (*_BAD, self._arrow.ArrowException) as error:
            raise _unreadable(path, error) from None

    def _entries(self, path: Path) -> Iterator[tuple[EntryId, Stored]]:
        table = self._parquet.read_table(path, partitioning=None)
        kinds = table.column("type").to_pylist()
        plans = {kind: _plan(kind) for kind in set(kinds)}
        texts = {
            field: _texts(field[0], table, field[1])
            for field in {field for plan in plans.values() for field in plan.columns}
        }
        # Whole rows at once: value by value takes three times as long.
        rows = {
            kind: list(zip(*(texts[field] for field in plan.columns), strict=True))
            for kind, plan in plans.items()
        }
        for at, entry_id in enumerate(table.column("entry_id").to_pylist()):
            plan = plans[kinds[at]]
            values: Sequence[str] = rows[kinds[at]][at]
            if values[-1]:
                values = _with_extra(plan, list(values))
            yield EntryId.parse(entry_id), Stored(entry_id, plan.names, values)


class _Plan(NamedTuple):
    """How a row becomes an entry of one type."""

    names: tuple[str, ...]
    columns: Sequence[tuple[str, str]]  # names of the entry's field and of the column


@cache
def _plan(kind: str) -> _Plan:
    if kind not in MODEL_BY_TYPE:
        raise ConfigError(f"the archive has entries of a type {kind!r} that this version lacks")
    names = field_names(MODEL_BY_TYPE[kind])
    return _Plan(names, [(name, _column(name)) for name in names])


def _column(name: str) -> str:
    for end in _ENDS:
        if name.endswith(end):
            return name.removesuffix(end) + "_at"
    return name


def _texts(field: str, table: Any, name: str) -> Sequence[str]:
    """A column as the entry's field has it: times in the field's unit, sides of a book as JSON;
    empty for nulls and missing columns.
    """
    if name not in table.column_names:
        return [""] * len(table)
    arrow, column = import_module("pyarrow"), table.column(name)
    kind = column.type
    if arrow.types.is_timestamp(kind):
        column = column.cast(arrow.int64())
        if (text := _TEXT_OF_US.get(field.rpartition("_")[2])) is not None:
            return ["" if us is None else text(us) for us in column.to_pylist()]
    elif arrow.types.is_list(kind):
        return [side or "" for chunk in column.chunks for side in _sides(chunk)]
    found: Sequence[str] = column.cast(arrow.string()).fill_null("").to_pylist()
    return found


def _sides(chunk: Any) -> Iterator[str | None]:
    prices = chunk.values.field("price").to_pylist()
    quantities = chunk.values.field("quantity").to_pylist()
    offsets = chunk.offsets.to_pylist()
    for at, is_there in enumerate(chunk.is_valid().to_pylist()):
        if not is_there:
            yield None
            continue
        levels = range(offsets[at], offsets[at + 1])
        yield "[" + ",".join(f'["{prices[i]}","{quantities[i]}"]' for i in levels) + "]"


def _utc(us: int) -> str:
    found = moment(us)
    return str(us) if found is None else found.isoformat().removesuffix("+00:00")


# Suffixes of fields that are times; the column's name ends in `_at`, its unit is µs.
_ENDS = ("_us", "_ms", "_utc")
_TEXT_OF_US: Mapping[str, Callable[[int], str]] = {"ms": lambda us: str(us // 1000), "utc": _utc}


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _with_extra(plan: _Plan, values: list[str]) -> Sequence[str]:
    """Puts the values of `extra` back that did not fit their columns; `extra` names them by the
    model's field. Raises TypeError or ValueError where `extra` is no JSON object.
    """
    extra = parsed(values[-1])
    if not isinstance(extra, dict):
        raise TypeError(f"`extra` is no object: {values[-1][:100]}")
    named = {name: value for name, value in extra.items() if name.rstrip("_") in plan.names[:-1]}
    if not named:
        return values
    for name, value in named.items():
        del extra[name]
        values[plan.names.index(name.rstrip("_"))] = _text(value)
    values[-1] = json.dumps(extra, separators=(",", ":")) if extra else ""
    return values


def _unreadable(path: Path, error: Exception) -> ConfigError:
    why = bounded(str(error), 200)
    return ConfigError(f"{path} cannot be read as a file of the archive: {why}")


def _library(name: str) -> Any:
    """Import a module of pyarrow, which is an extra. Raises ConfigError where it is missing."""
    try:
        return import_module(name)
    except ImportError:
        raise ConfigError(
            "to read an archive, pyarrow is needed: pip install 'backpack-bridge[archive]'"
        ) from None
