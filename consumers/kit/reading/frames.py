"""Rows of entries as a pandas or a Polars frame. Only this module needs these libraries.

Times are UTC datetimes, integers and booleans are nullable, and decimals stay the exchange's own
strings unless `decimals` selects another type.
"""

from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from importlib import import_module
from typing import Any, Literal

from bridge.errors import ConfigError
from consumers.kit.reading.columns import Column, ColumnKind

Decimals = Literal["text", "float", "decimal"]
"""The type of decimals: the exchange's own strings; floats, for plots; exact `Decimal`s."""

_READ: dict[Decimals, Callable[[str], Any]] = {"text": str, "float": float, "decimal": Decimal}


def pandas_frame(
    columns: Sequence[Column], rows: Iterable[Sequence[Any]], decimals: Decimals
) -> Any:
    """The rows as a `pandas.DataFrame`. Raises ConfigError if pandas is not installed."""
    pandas = _library("pandas")
    by_name = _by_name(columns, rows, decimals)
    dtypes = {
        ColumnKind.TEXT: "string",
        ColumnKind.WHOLE: "Int64",
        ColumnKind.FLAG: "boolean",
        ColumnKind.JSON: "string",
        ColumnKind.LEVELS: "object",
        ColumnKind.DECIMAL: {"text": "string", "float": "float64", "decimal": "object"}[decimals],
    }

    def series(column: Column, values: Sequence[Any]) -> Any:
        if column.kind is ColumnKind.MOMENT:
            whole = pandas.Series(values, dtype="Int64")
            return pandas.to_datetime(whole, unit="us", utc=True).dt.as_unit("us")
        return pandas.Series(values, dtype=dtypes[column.kind])

    return pandas.DataFrame({c.name: series(c, by_name[c.name]) for c in columns})


def polars_frame(
    columns: Sequence[Column], rows: Iterable[Sequence[Any]], decimals: Decimals
) -> Any:
    """The rows as a `polars.DataFrame`. Raises ConfigError if Polars is not installed."""
    polars = _library("polars")
    by_name = _by_name(columns, rows, decimals)

    def decimal_type(column: Column) -> Any:
        if decimals != "decimal":
            return polars.String if decimals == "text" else polars.Float64
        given = [value for value in by_name[column.name] if value is not None]
        behind_the_point = max((-value.as_tuple().exponent for value in given), default=0)
        return polars.Decimal(38, behind_the_point)

    types = {
        ColumnKind.TEXT: polars.String,
        ColumnKind.WHOLE: polars.Int64,
        ColumnKind.FLAG: polars.Boolean,
        ColumnKind.JSON: polars.String,
        ColumnKind.LEVELS: polars.List(polars.List(polars.String)),
        ColumnKind.MOMENT: polars.Datetime("us", "UTC"),
    }
    schema = {column.name: types.get(column.kind) or decimal_type(column) for column in columns}
    return polars.DataFrame(by_name, schema=schema)


def _by_name(
    columns: Sequence[Column], rows: Iterable[Sequence[Any]], decimals: Decimals
) -> dict[str, list[Any]]:
    """Column name → list of values, converted for a frame. Raises ConfigError for another
    `decimals`."""
    if decimals not in _READ:
        raise ConfigError(f"decimals={decimals!r}: write text, float or decimal")
    values: dict[str, list[Any]] = {column.name: [] for column in columns}
    fill = [_filler(column, values[column.name], decimals) for column in columns]
    for one in rows:
        for put, value in zip(fill, one, strict=True):
            put(value)
    return values


def _filler(column: Column, into: list[Any], decimals: Decimals) -> Callable[[Any], None]:
    read: Callable[[Any], Any] | None = None
    if column.kind is ColumnKind.DECIMAL and decimals != "text":
        read = _READ[decimals]
    elif column.kind is ColumnKind.LEVELS:
        read = _lists
    if read is None:
        return into.append
    return lambda value: into.append(None if value is None else read(value))


def _lists(levels: Iterable[Sequence[str]]) -> list[list[str]]:
    return [list(level) for level in levels]


def _library(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        raise ConfigError(
            f"{name} is not installed: pip install 'backpack-bridge[{name}]'"
        ) from None
