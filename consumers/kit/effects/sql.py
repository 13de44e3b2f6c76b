"""Effect-once for SQL: the entry's ID goes into the database in the transaction of its result.

    once = Once("volume", sqlite3)

    def on_trade(self, delivery: Delivery[Trade]) -> None:
        with self.database:  # one transaction
            if once.take(self.database, delivery):
                self.database.execute("UPDATE …")

`take` is true the first time an entry comes. If it comes again (a worker died between the database
and Redis, or slept through its lease and woke up), it is false, and nothing is to be done; a
transaction that is rolled back takes the mark with it. Works with any driver of PEP 249 that knows
`INSERT … ON CONFLICT`: SQLite (3.24 or newer), PostgreSQL. Async drivers: `statement`.

Knows nothing of your tables, opens no connection, ends no transaction.
"""

from typing import Any, Protocol

from bridge.contract.identity import EntryId
from bridge.errors import ConfigError
from consumers.kit.api.consumer import Delivery, Mode

_SIGNS = {"qmark": "?", "format": "%s", "pyformat": "%s"}

# An ordered consumer gets a stream's entries in their order: the last one stands for all before.
# The row is locked until the transaction ends, so two owners of one stream cannot pass each other.
_ORDERED = (
    "CREATE TABLE IF NOT EXISTS consumer_positions (consumer TEXT NOT NULL, stream TEXT NOT NULL, "
    "ms BIGINT NOT NULL, seq BIGINT NOT NULL, PRIMARY KEY (consumer, stream))",
    "INSERT INTO consumer_positions (consumer, stream, ms, seq) VALUES (?, ?, ?, ?) "
    "ON CONFLICT (consumer, stream) DO UPDATE SET ms = excluded.ms, seq = excluded.seq "
    "WHERE (consumer_positions.ms, consumer_positions.seq) < (excluded.ms, excluded.seq)",
)
# A shared consumer gets them in any order: each needs a mark of its own.
_SHARED = (
    "CREATE TABLE IF NOT EXISTS consumer_entries (consumer TEXT NOT NULL, stream TEXT NOT NULL, "
    "ms BIGINT NOT NULL, seq BIGINT NOT NULL, PRIMARY KEY (consumer, stream, ms, seq))",
    "INSERT INTO consumer_entries (consumer, stream, ms, seq) VALUES (?, ?, ?, ?) "
    "ON CONFLICT (consumer, stream, ms, seq) DO NOTHING",
)


class Driver(Protocol):
    """A module of PEP 249: `sqlite3`, `psycopg`."""

    paramstyle: str


class Executes(Protocol):
    """A connection or a cursor: `execute` gives what knows the `rowcount`."""

    def execute(self, sql: str, parameters: Any = ..., /) -> Any: ...


class Once:
    """The marks of one consumer: `name` sets them apart from others' in the same database."""

    def __init__(self, name: str, driver: Driver, mode: Mode = "ordered") -> None:
        sign = _SIGNS.get(driver.paramstyle)
        if sign is None:
            raise ConfigError(f"a driver with paramstyle {driver.paramstyle!r} is not supported")
        self._name = name
        create, insert = _ORDERED if mode == "ordered" else _SHARED
        self.create_sql = create
        self._insert = insert.replace("?", sign)

    def create(self, database: Executes) -> None:
        """Make the table of marks, if it is not there; commit as you do elsewhere."""
        database.execute(self.create_sql)

    def take(self, database: Executes, delivery: Delivery[Any]) -> bool:
        """Whether the entry comes for the first time; marks it, in the open transaction."""
        return bool(database.execute(*self.statement(delivery)).rowcount == 1)

    def statement(self, delivery: Delivery[Any]) -> tuple[str, tuple[str, str, int, int]]:
        """SQL and parameters of `take`: the entry is new where this changes one row."""
        entry_id = EntryId.parse(delivery.entry_id)
        return self._insert, (self._name, delivery.stream, entry_id.ms, entry_id.seq)

    def forget(self, database: Executes, before_ms: int) -> None:
        """Shared only: drop the marks of entries from before: what the stream no longer keeps."""
        sign = "?" if "?" in self._insert else "%s"
        database.execute(
            f"DELETE FROM consumer_entries WHERE consumer = {sign} AND ms < {sign}",
            (self._name, before_ms),
        )
