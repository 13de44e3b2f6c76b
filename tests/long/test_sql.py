"""The SQL recipe with real databases and killed workers: every trade is in the sums once."""

import sqlite3
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from tests.support.consumer_entries import START_US, Fields, entry_id, trade
from tests.support.consumer_worker import Bench
from tests.support.postgres import running_postgres

STREAMS = ("trade.SOL_USDC", "trade.BTC_USDC")
RUN = ("examples.volume:Volume", "--lease", "0.5")
QUANTITY = "0.1234567890123"
KILLS = 2
ENTRIES = 30  # added at once; after a kill they are handled one by one

pytestmark = pytest.mark.timeout(180)  # many processes start, on a machine that may be busy


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    with running_postgres() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return str(tmp_path / "volume.db")
    url: str = request.getfixturevalue("postgres")
    name = f"test_{uuid4().hex}"
    with psycopg.connect(url, autocommit=True) as postgres:
        postgres.execute(f"CREATE DATABASE {name}")  # type: ignore[arg-type]
    return url.replace("/postgres", f"/{name}")


def rows(database: str) -> list[Any]:
    """The rows of trades and volume, of all minutes."""
    sql = "SELECT trades, volume FROM volume"
    if database.startswith("postgres"):
        with psycopg.connect(database) as postgres:
            return postgres.execute(sql).fetchall()
    return sqlite3.connect(database).execute(sql).fetchall()


def trades(first: int, last: int) -> dict[str, Fields]:
    found = {}
    for n in range(first, last + 1):
        at_us = START_US + n * 100_000
        found[entry_id(at_us, n)] = trade(n, at_us, quantity=QUANTITY)
    return found


def counted(database: str) -> int:
    try:
        return sum(trades for trades, _ in rows(database))
    except (sqlite3.OperationalError, psycopg.errors.UndefinedTable):
        return 0  # no worker has created the tables yet


def test_every_trade_is_counted_once_whenever_the_worker_is_killed(
    bench: Bench, database: str
) -> None:
    bench.register(*STREAMS)
    last = 0
    for _ in range(KILLS):
        before = counted(database)
        worker = bench.start(*RUN, VOLUME_DATABASE=database)
        for _ in range(3):  # several batches, so that the kill may fall between two
            for stream in STREAMS:
                bench.add(stream, trades(last + 1, last + ENTRIES))
            last += ENTRIES
        bench.until(lambda before=before: counted(database) > before)
        worker.kill()
    worker = bench.start(*RUN, VOLUME_DATABASE=database)
    for stream in STREAMS:
        bench.await_group(stream, "volume", next(reversed(trades(last, last))))
    assert worker.stop() == 0
    assert counted(database) == 2 * last
    assert sum(Decimal(volume) for _, volume in rows(database)) == Decimal(QUANTITY) * 2 * last
    assert "hidden" not in "".join(one.err for one in bench.workers)


def test_a_redelivered_batch_changes_nothing(bench: Bench, database: str) -> None:
    """As after a kill between the commit in the database and the commit in Redis."""
    bench.register(STREAMS[0])
    bench.add(STREAMS[0], trades(1, 700))
    for _ in range(2):
        worker = bench.start(*RUN, VOLUME_DATABASE=database)
        bench.await_group(STREAMS[0], "volume", next(reversed(trades(700, 700))))
        assert worker.stop() == 0
        bench.redis.delete("consumers:{trade.SOL_USDC}:volume:position")
        bench.redis.xgroup_destroy(STREAMS[0], "volume")
        assert counted(database) == 700
