"""Effect-once for SQL, with SQLite in memory: duplicates, rollbacks, separate consumers."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import ConfigError
from consumers import Delivery
from consumers.kit.effects.sql import Once
from tests.support.consumer_entries import delivery as made
from tests.support.consumer_entries import trade


def at(entry_id: str, stream: str = "trade.SOL_USDC") -> Delivery[Any]:
    return made(trade(1, 1), stream=stream, at=entry_id)


@pytest.fixture
def database() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:")) as connection:
        yield connection


def once(database: sqlite3.Connection, mode: Any = "ordered", name: str = "volume") -> Once:
    one = Once(name, sqlite3, mode)
    one.create(database)
    return one


def test_once_of_an_ordered_consumer_rejects_an_entry_that_is_not_newer(
    database: sqlite3.Connection,
) -> None:
    one = once(database)
    # IDs are compared as numbers: 5-9 is before 5-10
    ids = ["5-9", "5-9", "5-10", "5-9", "6-1", "5-11", "6-1"]
    assert [one.take(database, at(i)) for i in ids] == [
        True,
        False,
        True,
        False,
        True,
        False,
        False,
    ]


def test_once_of_a_shared_consumer_marks_each_entry(database: sqlite3.Connection) -> None:
    one = once(database, "shared")
    ids = ["5-9", "6-1", "5-10", "6-1", "5-9"]
    assert [one.take(database, at(i)) for i in ids] == [True, True, True, False, False]


@pytest.mark.parametrize("mode", ["ordered", "shared"])
def test_marks_are_separate_by_stream_and_consumer(database: sqlite3.Connection, mode: str) -> None:
    one, other = once(database, mode), once(database, mode, "other")
    assert one.take(database, at("5-1"))
    assert one.take(database, at("5-1", "trade.BTC_USDC"))
    assert other.take(database, at("5-1"))


@pytest.mark.parametrize("mode", ["ordered", "shared"])
def test_once_loses_its_mark_with_a_rolled_back_transaction(
    database: sqlite3.Connection, mode: str
) -> None:
    one = once(database, mode)
    assert one.take(database, at("5-1"))
    database.rollback()
    assert one.take(database, at("5-1"))
    database.commit()
    database.rollback()
    assert not one.take(database, at("5-1"))


def test_marks_of_trimmed_entries_can_be_dropped(
    database: sqlite3.Connection,
) -> None:
    one = once(database, "shared")
    for ms in (5, 6, 7):
        one.take(database, at(f"{ms}-0"))
    one.forget(database, before_ms=7)
    assert database.execute("SELECT ms FROM consumer_entries").fetchall() == [(7,)]


def test_once_writes_statements_in_the_drivers_parameter_style() -> None:
    class Driver:
        paramstyle = "pyformat"

    sql, parameters = Once("volume", Driver()).statement(at("5-9"))
    assert "VALUES (%s, %s, %s, %s)" in sql
    assert "?" not in sql
    assert parameters == ("volume", "trade.SOL_USDC", 5, 9)
    Driver.paramstyle = "named"
    with pytest.raises(ConfigError, match="'named' is not supported"):
        Once("volume", Driver())


@given(st.lists(st.integers(1, 30)), st.lists(st.tuples(st.integers(0, 29), st.integers(1, 30))))
def test_once_makes_a_sum_exact_under_redelivery(
    quantities: list[int], again: list[tuple[int, int]]
) -> None:
    with closing(sqlite3.connect(":memory:")) as database:
        one, total = once(database), 0
        redelivered = dict(again)
        i = 0
        while i < len(quantities):
            if one.take(database, at(f"{i // 3}-{i}")):
                total += quantities[i]
            i = max(0, i + 1 - redelivered.pop(i, 0)) if i in redelivered else i + 1
    assert total == sum(quantities)
