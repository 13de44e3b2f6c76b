"""The consumer of the SQL recipe: sums per minute, effect-once, and invalid addresses."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from bridge.errors import ConfigError
from consumers.testing import EventFactory, Trial
from examples.volume import Volume

TRADES = "trade.SOL_USDC"


def rows(path: Path) -> list[tuple[str, int, int, str]]:
    sql = "SELECT symbol, minute_ms, trades, volume FROM volume ORDER BY minute_ms"
    with closing(sqlite3.connect(path)) as database:
        return database.execute(sql).fetchall()


def test_volume_adds_up_quantities_exactly_by_minute(tmp_path: Path) -> None:
    path = tmp_path / "volume.db"
    factory, trial = EventFactory(), Trial(Volume, TRADES, database=str(path))
    trial.deliver(factory.trade("98.96", "0.1"), factory.trade("98.97", "0.2"))
    trial.deliver(factory.trade("98.96", "0.0000000000000000000000000001", after_s=60))
    trial.deliver(factory.trade("98.96", "12345678901234567890"))
    assert rows(path) == [
        ("SOL_USDC", 1_788_367_440_000, 2, "0.3"),
        ("SOL_USDC", 1_788_367_500_000, 2, "12345678901234567890.0000000000000000000000000001"),
    ]


def test_volume_stores_entries_once_when_a_worker_dies_before_its_commit(tmp_path: Path) -> None:
    path = tmp_path / "volume.db"
    factory, trial = EventFactory(), Trial(Volume, TRADES, database=str(path))
    trial.deliver(factory.trade("1", "1"))
    trial.crash_after(factory.trade("1", "2"), factory.trade("1", "3"))
    assert rows(path) == [("SOL_USDC", 1_788_367_440_000, 3, "6")]


@pytest.mark.parametrize("password", ["hid%zz", "hid%de"])
def test_volume_refuses_a_bad_address_without_its_password(password: str) -> None:
    trial = Trial(Volume, TRADES, database=f"postgresql://me:{password}@127.0.0.1:5432/x")
    with pytest.raises(ConfigError, match="not a valid address") as caught:
        trial.deliver(EventFactory().trade("1"))
    assert "hid" not in str(caught.value)
    assert caught.value.__suppress_context__
