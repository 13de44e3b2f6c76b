"""Entries as rows of a table: the columns of a stream and their values (pure).

For data frames and Parquet files alike. Columns follow from the contract's models, so a stream's
table has the same columns whatever its content. A time field in µs, in ms or in UTC text becomes a
column that ends in `_at`, in µs. Decimals stay the exchange's own strings. A value that does not
fit its column (a time after the year 9999, a number above 63 bits) is null there and moves to
`extra`: nothing is lost.
"""

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import cache
from types import UnionType
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin, get_type_hints

from pydantic import StringConstraints

from bridge.contract.events import Event, Quarantined
from bridge.contract.identity import EntryId
from bridge.contract.moments import LAST_US
from bridge.contract.stream_types import STREAM_SPECS
from bridge.contract.streams import BadStreamName, parse_stream


class ColumnKind(StrEnum):
    """The type of a column's values."""

    TEXT = "text"
    DECIMAL = "decimal"  # the exchange's own string
    WHOLE = "whole"
    FLAG = "flag"
    MOMENT = "moment"  # µs since 1970
    LEVELS = "levels"  # pairs of price and quantity
    JSON = "json"


class Column(NamedTuple):
    """A column; `field` is the name of the event's field."""

    name: str
    kind: ColumnKind
    field: str
    scale_us: int = 1  # of times: µs in one unit of the field; 0 for UTC text


_UNITS = {"_us": 1, "_ms": 1000, "_utc": 0}
_WHOLE_MAX = 2**63 - 1
_MOMENT_MAX_US = 253_402_300_799_999_999  # the last µs of the year 9999
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_DECIMALS = r"[0-9]+(\.[0-9]+)?$"  # how the contract's decimal patterns end
_TIMES = ("event_at", "engine_at", "received_at")

ENTRY_ID, TIME, EXTRA = "entry_id", "time", "extra"
_OF_EACH_ROW = (Column(ENTRY_ID, ColumnKind.TEXT, ""), Column(TIME, ColumnKind.MOMENT, ""))


def models_of(stream: str) -> tuple[type[Event], ...]:
    """The event classes that a stream of this name may contain, the exchange's events first."""
    try:
        kind = parse_stream(stream).type
    except BadStreamName:
        return (Quarantined,) if stream == "bridge:quarantine" else (Event,)
    return STREAM_SPECS[kind].models


def columns_of(stream: str) -> tuple[Column, ...]:
    """The columns of a stream's table, whatever its content: ID, its time, all fields of its
    events, `extra` last."""
    return columns_of_models(models_of(stream))


@cache
def columns_of_models(models: Sequence[type[Event]]) -> tuple[Column, ...]:
    """The columns of a table of these events: ID, its time, all fields, `extra` last."""
    by_name = {column.name: column for column in _OF_EACH_ROW}
    for model in models:
        for column in _columns(model):
            by_name.setdefault(column.name, column)
    # As in an entry: the three times and `extra` come last.
    times = [by_name.pop(name) for name in _TIMES if name in by_name]
    return (*by_name.values(), *times, Column(EXTRA, ColumnKind.JSON, ""))


def row_of(columns: Sequence[Column], entry_id: str, event: Event) -> tuple[Any, ...]:
    """The values of one entry by column: str, int, bool, list of pairs or JSON; None for null."""
    fields = event.__dict__
    extra = {name: value for name, value in fields.items() if name not in _covered(columns)}
    extra |= event.extra
    values: list[Any] = [entry_id, min(EntryId.parse(entry_id).ms * 1000, LAST_US)]
    for column in columns[len(_OF_EACH_ROW) : -1]:
        value = fields.get(column.field)
        fitted = None if value is None else _fitted(column, value)
        if fitted is None and value is not None:
            extra[column.field] = value
        values.append(fitted)
    values.append(_compact(extra) if extra else None)
    return tuple(values)


@cache
def _covered(columns: Sequence[Column]) -> frozenset[str]:
    return frozenset(column.field for column in columns)


def _columns(model: type[Event]) -> Iterator[Column]:
    hints = get_type_hints(model, include_extras=True)
    for field in model.model_fields:
        name = field.rstrip("_")
        unit = next((unit for unit in _UNITS if name.endswith(unit)), None)
        if unit is None:
            yield Column(name, _kind(hints[field]), field)
        else:
            yield Column(name.removesuffix(unit) + "_at", ColumnKind.MOMENT, field, _UNITS[unit])


def _kind(annotation: Any) -> ColumnKind:
    parts = list(_parts(annotation))
    if bool in parts:
        return ColumnKind.FLAG
    if int in parts:
        return ColumnKind.WHOLE
    if any(get_origin(part) is list for part in parts):
        is_levels = any(get_origin(arg) is tuple for part in parts for arg in get_args(part))
        return ColumnKind.LEVELS if is_levels else ColumnKind.JSON
    patterns = [part.pattern for part in parts if isinstance(part, StringConstraints)]
    return (
        ColumnKind.DECIMAL
        if any(str(pattern).endswith(_DECIMALS) for pattern in patterns)
        else ColumnKind.TEXT
    )


def _parts(annotation: Any) -> Iterator[Any]:
    """A type and all its parts, constraints included."""
    yield annotation
    if get_origin(annotation) in (Annotated, Union, UnionType):
        for part in get_args(annotation):
            yield from _parts(part)


def _fitted(column: Column, value: Any) -> Any:
    """The value as stored in the column; None if it does not fit."""
    if column.kind is ColumnKind.WHOLE:
        return value if value <= _WHOLE_MAX else None
    if column.kind is ColumnKind.MOMENT:
        return _moment_us(value, column.scale_us)
    return _compact(value) if column.kind is ColumnKind.JSON else value


def _moment_us(value: Any, scale_us: int) -> int | None:
    if scale_us:
        return value * scale_us if value * scale_us <= _MOMENT_MAX_US else None
    try:
        moment = datetime.fromisoformat(value).replace(tzinfo=UTC)
    except ValueError:
        return None
    return (moment - _EPOCH) // timedelta(microseconds=1)


def _compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
