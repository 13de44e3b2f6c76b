"""Recipe: results in a SQL database, each entry counted once: traded volume by market and minute.

    python -m consumers run examples.volume:Volume --option database=volume.db

The entry ID is stored in the same transaction as the result (`Once`), so a worker that is killed
between the commits to the database and to Redis counts nothing twice. Instead of an SQLite file,
`database` may be a PostgreSQL URL (needs psycopg), `postgresql://user:password@localhost/market`:
set it as VOLUME_DATABASE, so that no process list shows it.
"""

import os
import sqlite3
import weakref
from collections import defaultdict
from decimal import Context, Decimal
from typing import Any

from backpack_bridge import ConfigError, Consumer, Delivery, EntryId, Once, Trade

_EXACT = Context(prec=400)  # the default context would round sums beyond 28 digits

# Sums are stored as text: not every database has exact decimals. Only one worker writes a row.
_TABLE = """
CREATE TABLE IF NOT EXISTS volume (
    symbol TEXT NOT NULL, minute_ms BIGINT NOT NULL, trades BIGINT NOT NULL, volume TEXT NOT NULL,
    PRIMARY KEY (symbol, minute_ms))"""
_READ = "SELECT trades, volume FROM volume WHERE symbol = ? AND minute_ms = ?"
_WRITE = """
INSERT INTO volume (symbol, minute_ms, trades, volume) VALUES (?, ?, ?, ?)
ON CONFLICT (symbol, minute_ms) DO UPDATE SET trades = excluded.trades, volume = excluded.volume"""


class Volume(Consumer):
    """Adds up traded quantities by market and minute in SQLite or PostgreSQL."""

    name = "volume"
    mode = "ordered"
    streams = ("trade.*",)

    def __init__(self, database: str = "volume.db") -> None:
        self._where = os.environ.get("VOLUME_DATABASE", database)

    def load(self) -> None:
        """Open this object's connection (one object per stream), and create the tables."""
        self._driver, self._database = _connect(self._where)
        weakref.finalize(self, self._database.close)  # when another worker gets the stream
        self._once = Once(self.name, self._driver)
        with self._transaction():
            self._once.create(self._database)
            self._execute(_TABLE)

    def on_batch(self, batch: list[Delivery[Trade]]) -> None:
        """Write the marks of these entries and their sums in one transaction."""
        with self._transaction():
            minutes: dict[tuple[str, int], list[str]] = defaultdict(list)
            for delivery in batch:
                if self._once.take(self._database, delivery):
                    minute_ms = EntryId.parse(delivery.entry_id).ms // 60_000 * 60_000
                    minutes[delivery.event.symbol, minute_ms].append(delivery.event.quantity)
            for minute, quantities in minutes.items():
                self._add(minute, quantities)

    def _add(self, minute: tuple[str, int], quantities: list[str]) -> None:
        trades, volume = self._execute(_READ, minute).fetchone() or (0, "0")
        total = Decimal(volume)
        for quantity in quantities:
            total = _EXACT.add(total, Decimal(quantity))
        self._execute(_WRITE, (*minute, trades + len(quantities), f"{total:f}"))

    def _execute(self, sql: str, parameters: tuple[Any, ...] = ()) -> Any:
        sign = "?" if self._driver is sqlite3 else "%s"
        return self._database.execute(sql.replace("?", sign), parameters)

    def _transaction(self) -> Any:
        """A context manager: commits at its end, rolls back on an exception."""
        return self._database if self._driver is sqlite3 else self._database.transaction()


def _connect(where: str) -> tuple[Any, Any]:
    """The driver and an open connection. Raises ConfigError for an invalid PostgreSQL URL."""
    if not where.startswith(("postgres://", "postgresql://")):
        database = sqlite3.connect(where, timeout=20)  # s to wait while another worker writes
        database.execute("PRAGMA journal_mode = WAL")  # readers do not wait for writers
        return sqlite3, database
    try:
        import psycopg
    except ImportError:
        raise ConfigError("PostgreSQL needs psycopg: pip install 'psycopg[binary]'") from None
    try:
        return psycopg, psycopg.connect(where, autocommit=True)
    except (psycopg.ProgrammingError, UnicodeError):  # these quote the address, password and all
        raise ConfigError("VOLUME_DATABASE is not a valid address of PostgreSQL") from None
