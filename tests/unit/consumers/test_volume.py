"""The SQL recipe's consumer: minutes, exact sums, and addresses that are none."""

import sqlite3
from pathlib import Path

import pytest

from bridge.errors import ConfigError
from consumers.testing import Tape, Trial
from examples.volume import Volume

TRADES = "trade.SOL_USDC"


def rows(path: Path) -> list[tuple[str, int, int, str]]:
    sql = "SELECT symbol, minute_ms, trades, volume FROM volume ORDER BY minute_ms"
    return sqlite3.connect(path).execute(sql).fetchall()


def test_quantities_add_up_exactly_by_minute(tmp_path: Path) -> None:
    path = tmp_path / "volume.db"
    tape, trial = Tape(), Trial(Volume, TRADES, database=str(path))
    trial.give(tape.trade("98.96", "0.1"), tape.trade("98.97", "0.2"))
    trial.give(tape.trade("98.96", "0.0000000000000000000000000001", after_s=60))
    trial.give(tape.trade("98.96", "12345678901234567890"))
    assert rows(path) == [
        ("SOL_USDC", 1_788_367_440_000, 2, "0.3"),
        ("SOL_USDC", 1_788_367_500_000, 2, "12345678901234567890.0000000000000000000000000001"),
    ]


def test_what_a_worker_stored_before_it_died_is_not_stored_again(tmp_path: Path) -> None:
    path = tmp_path / "volume.db"
    tape, trial = Tape(), Trial(Volume, TRADES, database=str(path))
    trial.give(tape.trade("1", "1"))
    trial.crash_after(tape.trade("1", "2"), tape.trade("1", "3"))
    assert rows(path) == [("SOL_USDC", 1_788_367_440_000, 3, "6")]


@pytest.mark.parametrize("password", ["hid%zz", "hid%de"])
def test_an_address_that_is_none_does_not_show_its_password(password: str) -> None:
    trial = Trial(Volume, TRADES, database=f"postgresql://me:{password}@127.0.0.1:5432/x")
    with pytest.raises(ConfigError, match="not a valid address") as told:
        trial.give(Tape().trade("1"))
    assert "hid" not in str(told.value)
    assert told.value.__suppress_context__
