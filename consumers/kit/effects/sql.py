"""Exactly-once SQL: the entry ID is stored in the same database transaction as its result.

    once = Once("volume", sqlite3)

    def on_trade(self, delivery: Delivery[Trade]) -> None:
        with self.database:  # one transaction
            if once.take(self.database, delivery):
                self.database.execute("UPDATE …")

`take` returns True for the first delivery of an entry. For a redelivery (a worker died between the
database commit and the ack in Redis, or was suspended beyond its lease) it returns False: skip the
entry. A rollback also removes the mark. Works with any PEP 249 driver of a database with
`INSERT … ON CONFLICT`: SQLite (3.24 or newer), PostgreSQL. Async drivers: `statement`.

Does not use your tables, opens no connection, ends no transaction.
"""

from typing import Any, Protocol

from bridge.contract.identity import EntryId
from bridge.errors import ConfigError
from consumers.kit.api.consumer import Delivery, Mode

_SIGNS = {"qmark": "?", "format": "%s", "pyformat": "%s"}

# An ordered consumer gets a stream's entries in order: the last ID covers all entries before it.
# The row is locked until the transaction ends, so two owners of one stream cannot interleave.
_ORDERED = (
    "CREATE TABLE IF NOT EXISTS consumer_positions (consumer TEXT NOT NULL, stream TEXT NOT NULL, "
    "ms BIGINT NOT NULL, seq BIGINT NOT NULL, PRIMARY KEY (consumer, stream))",
    "INSERT INTO consumer_positions (consumer, stream, ms, seq) VALUES (?, ?, ?, ?) "
    "ON CONFLICT (consumer, stream) DO UPDATE SET ms = excluded.ms, seq = excluded.seq "
    "WHERE (consumer_positions.ms, consumer_positions.seq) < (excluded.ms, excluded.seq)",
)
# A shared consumer gets entries in any order: each needs a row of its own.
_SHARED = (
    "CREATE TABLE IF NOT EXISTS consumer_entries (consumer TEXT NOT NULL, stream TEXT NOT NULL, "
    "ms BIGINT NOT NULL, seq BIGINT NOT NULL, PRIMARY KEY (consumer, stream, ms, seq))",
    "INSERT INTO consumer_entries (consumer, stream, ms, seq) VALUES (?, ?, ?, ?) "
    "ON CONFLICT (consumer, stream, ms, seq) DO NOTHING",
)


class Driver(Protocol):
    """A PEP 249 module: `sqlite3`, `psycopg`."""

    paramstyle: str


class Executes(Protocol):
    """A connection or a cursor: `execute` returns an object with `rowcount`."""

    def execute(self, sql: str, parameters: Any = ..., /) -> Any: ...


class Once:
    """The marks of one consumer: `name` separates consumers in the same database."""

    def __init__(self, name: str, driver: Driver, mode: Mode = "ordered") -> None:
        sign = _SIGNS.get(driver.paramstyle)
        if sign is None:
            raise ConfigError(f"a driver with paramstyle {driver.paramstyle!r} is not supported")
        self._name = name
        create, insert = _ORDERED if mode == "ordered" else _SHARED
        self.create_sql = create
        self._insert = insert.replace("?", sign)

    def create(self, database: Executes) -> None:
        """Create the table of marks if it is missing. The caller commits."""
        database.execute(self.create_sql)

    def take(self, database: Executes, delivery: Delivery[Any]) -> bool:
        """Whether this is the first delivery of the entry. Marks it in the open transaction."""
        return bool(database.execute(*self.statement(delivery)).rowcount == 1)

    def statement(self, delivery: Delivery[Any]) -> tuple[str, tuple[str, str, int, int]]:
        """SQL and parameters of `take`: the entry is new if the statement changes one row."""
        entry_id = EntryId.parse(delivery.entry_id)
        return self._insert, (self._name, delivery.stream, entry_id.ms, entry_id.seq)

    def forget(self, database: Executes, before_ms: int) -> None:
        """Shared only: delete the marks of entries older than `before_ms` (ms since 1970), which
        the stream has trimmed."""
        sign = "?" if "?" in self._insert else "%s"
        database.execute(
            f"DELETE FROM consumer_entries WHERE consumer = {sign} AND ms < {sign}",
            (self._name, before_ms),
        )
