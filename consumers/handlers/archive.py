"""Sample: keep every entry permanently, in Parquet files by stream and day, each exactly once.

    archive/stream=trade.SOL_USDC/day=2026-09-02/after-1788367440000-10.parquet

A result outside Redis cannot be part of the kit's commit. So the files themselves are the record of
progress: each is named by the entry it follows, and is created whole, and only if it does not exist
yet (`put_once`). Between two files rows wait in `state`, saved with the position.
A worker that takes over reads both, and skips rows that are in a file. If its predecessor was
killed before a file was written, nothing is lost; if after it, nothing is duplicated; of two
concurrent workers, one writes the file.

Files of `account.*` can be read by the worker's user only, unless `account=shared`.

Ordered, since a stream's files follow one another. Times are UTC, decimals stay the exchange's own
strings. Any Parquet tool reads the files, such as DuckDB, pandas and Polars. Several workers share
the streams; give them the same folder.
"""

import re
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import import_module
from itertools import groupby
from pathlib import Path
from typing import Any

from consumers import (
    Column,
    ColumnKind,
    ConfigError,
    Consumer,
    Delivery,
    EntryId,
    Event,
    Results,
    columns_of,
    put_once,
    remove_unfinished,
    row_of,
)

Row = Sequence[Any]  # as `row_of` returns it: the entry ID and its time, µs, come first

_LAST = b"last_entry_id"  # in a file's footer
_NO_ENTRY = "0-0"  # comes before every entry


class Files:
    """One stream's Parquet files."""

    def __init__(self, folder: Path, stream: str, *, private: bool) -> None:
        self._parquet = _library("pyarrow.parquet")
        self._folder = folder / f"stream={stream}"
        self._private = private
        self.columns = columns_of(stream)
        self._schema = _schema(self.columns)
        folder.mkdir(parents=True, exist_ok=True)  # not private: it holds public streams, too
        remove_unfinished(self._folder)

    def last_id(self) -> str:
        """The ID of the last entry in the files; `0-0` if there is no file."""
        newest = max(self._folder.glob("day=*/after-*.parquet"), key=_after, default=None)
        if newest is None:
            return _NO_ENTRY
        footer = self._parquet.read_schema(newest).metadata
        return str(footer[_LAST].decode())

    def put(self, after: str, rows: Sequence[Row]) -> bool:
        """Write one day's rows to a file; False if a file after the same entry exists."""
        last = rows[-1][0]
        path = self._folder / f"day={_day(rows[0])}" / f"after-{after}.parquet"
        table = self._table(rows).replace_schema_metadata({_LAST: last.encode()})
        return put_once(
            path,
            lambda half: self._parquet.write_table(table, half, compression="zstd"),
            private=self._private,
        )

    def _table(self, rows: Sequence[Row]) -> Any:
        values = [list(column) for column in zip(*rows, strict=True)]
        for number, column in enumerate(self.columns):
            if column.kind is ColumnKind.LEVELS:
                values[number] = [_pairs(levels) for levels in values[number]]
        arrow = _library("pyarrow")
        arrays = [arrow.array(v, type=f.type) for v, f in zip(values, self._schema, strict=True)]
        return arrow.Table.from_arrays(arrays, schema=self._schema)


class Archive(Consumer):
    """Keeps every entry in Parquet files, by stream and day (needs the extra `archive`)."""

    name = "archive"
    mode = "ordered"
    streams = ("*",)

    def __init__(
        self,
        folder: str = "archive",
        rows: str = "5000",
        seconds: str = "60",
        account: str = "private",
    ) -> None:
        if not re.fullmatch("[0-9]{1,9}", rows) or not int(rows):
            raise ValueError(f"rows={rows}: write after how many rows a file is made")
        self._rows_a_file = int(rows)
        try:
            self._seconds = float(seconds)
        except ValueError:
            self._seconds = -1.0
        if not self._seconds >= 0:  # also not a number
            raise ValueError(f"seconds={seconds}: write how long a row may wait")
        if account not in ("private", "shared"):
            raise ValueError(f"account={account}: private or shared, who may read account.* files")
        self._shares_account = account == "shared"
        self._folder = Path(folder)
        self._waiting: list[Row] = []
        self._since_s = 0.0  # when the first waiting row arrived, by monotonic()
        self._ends = False
        _library("pyarrow")

    def load(self) -> None:
        """Restore the last ID from the files, and the waiting rows from the state, without those
        that are in a file."""
        is_private = self.stream.startswith("account.") and not self._shares_account
        self._files = Files(self._folder, self.stream, private=is_private)
        self._last = self._files.last_id()
        names = [column.name for column in self._files.columns]
        for batch in sorted(self.state, key=EntryId.parse):
            saved = self.state[batch]
            rows = [dict(zip(saved["columns"], values, strict=True)) for values in saved["rows"]]
            self._waiting += [[values.get(name) for name in names] for values in rows]
        self._since_s = time.monotonic()
        self._forget_what_is_in_files()

    def on_batch(self, batch: list[Delivery[Event]]) -> None:
        """Add the batch to the waiting rows, as one field of the state."""
        columns = self._files.columns
        rows = [row_of(columns, entry_id, event) for _, entry_id, event in batch]
        new = [one for one in rows if EntryId.parse(one[0]) > EntryId.parse(self._last)]
        if not new:
            return
        if not self._waiting:
            self._since_s = time.monotonic()
        self._waiting += new
        self.state[new[0][0]] = {"columns": [column.name for column in columns], "rows": new}

    def due(self, *, stopping: bool) -> bool:
        """Whether waiting rows are old enough for a file, or the worker stops."""
        self._ends = stopping
        return bool(self._waiting) and (stopping or self._is_time())

    def write(self, results: Results) -> None:
        """Write waiting rows to files, if there are enough or they are old; the commit then removes
        them from the state."""
        if self._ends or self._is_time():
            self._make_files()

    def made(self) -> str:
        return f"{self.stream} up to {self._last}, {len(self._waiting)} rows waiting"

    def _is_time(self) -> bool:
        is_old = time.monotonic() - self._since_s >= self._seconds
        return len(self._waiting) >= self._rows_a_file or is_old

    def _make_files(self) -> None:
        while self._waiting:
            after = self._last
            rows = next(list(of_a_day) for _, of_a_day in groupby(self._waiting, _day))
            if self._files.put(after, rows):
                self._last = rows[-1][0]
            else:  # another worker wrote the file: one of us was suspended beyond its lease
                self._last = self._files.last_id()
            if self._last == after:
                raise RuntimeError(f"a file after {after} is there, and no entry in it is newer")
            self._forget_what_is_in_files()
        for batch in list(self.state):
            del self.state[batch]

    def _forget_what_is_in_files(self) -> None:
        last = EntryId.parse(self._last)
        self._waiting = [one for one in self._waiting if EntryId.parse(one[0]) > last]


def _after(path: Path) -> EntryId:
    return EntryId.parse(path.stem.removeprefix("after-"))


def _day(one: Row) -> str:
    return f"{datetime.fromtimestamp(one[1] // 1_000_000, UTC):%Y-%m-%d}"


def _pairs(levels: Sequence[Sequence[str]] | None) -> list[dict[str, str]] | None:
    if levels is None:
        return None
    return [{"price": price, "quantity": quantity} for price, quantity in levels]


def _schema(columns: Sequence[Column]) -> Any:
    arrow = _library("pyarrow")
    text = arrow.string()
    types = {
        ColumnKind.WHOLE: arrow.int64(),
        ColumnKind.FLAG: arrow.bool_(),
        ColumnKind.MOMENT: arrow.timestamp("us", tz="UTC"),
        ColumnKind.LEVELS: arrow.list_(arrow.struct([("price", text), ("quantity", text)])),
    }
    return arrow.schema([(column.name, types.get(column.kind, text)) for column in columns])


def _library(name: str) -> Any:
    """Import a module of pyarrow, an extra. Raises ConfigError if it is not installed."""
    try:
        return import_module(name)
    except ImportError:
        raise ConfigError(
            "the archive needs pyarrow: pip install 'backpack-bridge[archive]'"
        ) from None
