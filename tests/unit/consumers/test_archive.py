"""The archive sample: files and what waits for them together hold every entry exactly once."""

import os
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.errors import ConfigError
from consumers.files import put_once, sweep
from consumers.handlers.archive import Archive
from consumers.testing import Given, Tape, Trial

TRADES = "trade.SOL_USDC"


def trial(folder: Path, stream: str = TRADES, rows: str = "4", seconds: str = "3600") -> Trial:
    return Trial(Archive, stream, folder=str(folder), rows=rows, seconds=seconds)


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def archived(folder: Path) -> list[str]:
    """Entry IDs in the order of the files and of their rows."""
    paths = sorted(
        folder.rglob("*.parquet"),
        key=lambda p: int(p.stem.split("-")[-2]) * 10**12 + int(p.stem.split("-")[-1]),
    )
    return [i for path in paths for i in pyarrow.parquet.read_table(path)["entry_id"].to_pylist()]


def trades(tape: Tape, count: int, **more: Any) -> list[Given]:
    return [tape.trade("98.96", "1.5", **more) for _ in range(count)]


def ids(given: list[Given]) -> list[str]:
    return [one.entry_id for one in given]


def test_rows_wait_until_they_are_enough_for_a_file(tmp_path: Path) -> None:
    tape, one = Tape(), trial(tmp_path)
    given = trades(tape, 3)
    one.give(*given)
    assert files(tmp_path) == []
    given += trades(tape, 2)
    one.give(*given[3:])
    assert files(tmp_path) == ["stream=trade.SOL_USDC/day=2026-09-02/after-0-0.parquet"]
    assert archived(tmp_path) == ids(given)
    assert one.redis.exists(one.key("state")) == 0  # nothing waits any more
    one.give(*trades(tape, 4))
    assert files(tmp_path)[1] == (
        f"stream=trade.SOL_USDC/day=2026-09-02/after-{given[-1].entry_id}.parquet"
    )


def test_a_file_is_of_one_day(tmp_path: Path) -> None:
    tape, one = Tape(start="2026-09-02T23:59:58"), trial(tmp_path)
    given = trades(tape, 5, after_s=1)
    one.give(*given)
    assert files(tmp_path) == [
        "stream=trade.SOL_USDC/day=2026-09-02/after-0-0.parquet",
        f"stream=trade.SOL_USDC/day=2026-09-03/after-{given[0].entry_id}.parquet",
    ]
    assert archived(tmp_path) == ids(given)


def test_rows_that_have_waited_long_enough_are_put_also_where_nothing_comes(
    tmp_path: Path,
) -> None:
    tape, one = Tape(), trial(tmp_path, rows="1000", seconds="0")
    one.give(*trades(tape, 1))
    assert len(archived(tmp_path)) == 1
    patient = trial(tmp_path / "other", rows="1000")
    patient.give(*trades(tape, 1))
    patient.rest()
    assert archived(tmp_path / "other") == []
    patient.rest(stopping=True)
    assert len(archived(tmp_path / "other")) == 1


def test_rows_that_wait_are_there_after_a_takeover(tmp_path: Path) -> None:
    tape, one = Tape(), trial(tmp_path)
    given = trades(tape, 7)
    one.give(*given[:2])
    one.give(*given[2:3])
    one.take_over()
    one.give(*given[3:])
    assert archived(tmp_path) == ids(given)


def test_a_worker_that_dies_between_its_file_and_its_commit_doubles_nothing(
    tmp_path: Path,
) -> None:
    tape, one = Tape(), trial(tmp_path)
    given = trades(tape, 11)
    one.give(*given[:3])
    one.crash_after(*given[3:6])  # puts a file, which the next worker finds
    assert archived(tmp_path) == ids(given[:6])
    one.give(*given[6:])
    assert archived(tmp_path) == ids(given)


def test_of_two_workers_at_once_the_second_goes_on_after_the_file_of_the_first(
    tmp_path: Path,
) -> None:
    tape = Tape()
    given = trades(tape, 9)
    sleeper, heir = trial(tmp_path, rows="5"), trial(tmp_path, rows="3")
    sleeper.give(*given[:4])  # has rows in hand, and sleeps through its lease
    heir.give(*given[:4])  # puts a file of the same rows
    sleeper.give(*given[4:5])
    assert archived(tmp_path) == ids(given[:5])
    heir.give(*given[4:])
    assert archived(tmp_path) == ids(given)


def test_what_redis_has_lost_and_gets_again_is_not_archived_again(tmp_path: Path) -> None:
    given = trades(Tape(), 9)
    trial(tmp_path).give(*given[:6], at_once=2)
    trial(tmp_path).give(*given, at_once=2)
    assert archived(tmp_path) == ids(given)[:8]


def test_every_kind_of_value_is_in_the_files(tmp_path: Path) -> None:
    tape, one = Tape(first=11), trial(tmp_path, "depth.SOL_USDC", rows="1")
    one.give(
        tape.updates_missing(5),
        tape.depth([("98.90", "1")], [], updates=2),
        tape.snapshot([("98.90", "1"), ("98.8", "2")], [("99", "0.50")]),
    )
    table = pyarrow.parquet.read_table(next(tmp_path.rglob("*.parquet"))).to_pylist()
    assert [one["type"] for one in table] == ["gap", "depth", "depth_snapshot"]
    assert (table[0]["from"], table[0]["to"], table[0]["repaired"]) == (11, 15, False)
    assert table[1]["bids"] == [{"price": "98.90", "quantity": "1"}]
    assert table[2]["asks"] == [{"price": "99", "quantity": "0.50"}]
    assert table[2]["engine_at"].isoformat() == "2026-09-02T16:44:00.250000+00:00"
    assert table[0]["bids"] is None


def test_duckdb_and_pandas_read_the_whole_folder(tmp_path: Path) -> None:
    one = trial(tmp_path, rows="2")
    tape = Tape(start="2026-09-02T23:59:59")
    one.give(*[tape.trade(f"{n}.10", "0.5") for n in range(1, 9)], at_once=2)
    days: Any = duckdb.sql(
        f"""
        SELECT day, count(*), sum(price::DECIMAL(38, 18) * quantity::DECIMAL(38, 18))::VARCHAR
        FROM read_parquet('{tmp_path}/stream=trade.*/day=*/*.parquet', hive_partitioning = true)
        WHERE type = 'trade' GROUP BY day ORDER BY day
        """
    ).fetchall()
    assert [(str(day), count, float(total)) for day, count, total in days] == [
        ("2026-09-02", 3, 3.15),
        ("2026-09-03", 5, 15.25),
    ]
    frame = pd.read_parquet(tmp_path / "stream=trade.SOL_USDC")
    assert sorted(frame["trade_id"]) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert set(frame["day"].astype(str)) == {"2026-09-02", "2026-09-03"}


@st.composite
def lives(draw: st.DrawFn) -> list[tuple[str, int]]:
    """What happens: batches of some entries, takeovers, deaths before the commit, rests."""
    acts = st.sampled_from(["give", "give", "give", "crash", "take_over", "rest", "stop"])
    return draw(st.lists(st.tuples(acts, st.integers(1, 5)), min_size=1, max_size=12))


@settings(max_examples=40)
@given(lives(), st.integers(1, 6), st.sampled_from([0.25, 9_000.0]))
def test_the_union_of_all_files_is_the_stream_whatever_happens(
    tmp_path_factory: pytest.TempPathFactory,
    acts: list[tuple[str, int]],
    rows: int,
    after_s: float,
) -> None:
    folder = tmp_path_factory.mktemp("archive")
    tape, one, told = Tape(), trial(folder, rows=str(rows)), list[str]()
    for act, count in acts:
        if act in ("give", "crash"):
            given = trades(tape, count, after_s=after_s)
            told += ids(given)
            (one.give if act == "give" else one.crash_after)(*given)
        elif act == "take_over":
            one.take_over()
        else:
            one.rest(stopping=act == "stop")
    one.rest(stopping=True)
    assert archived(folder) == told


def test_a_file_is_put_once_and_wholly(tmp_path: Path) -> None:
    path = tmp_path / "a" / "one.txt"
    assert put_once(path, lambda half: half.write_text("first") and None)
    assert not put_once(path, lambda half: half.write_text("second") and None)
    assert path.read_text() == "first"

    def fails(half: Path) -> None:
        half.write_text("hal")
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space"):
        put_once(tmp_path / "a" / "two.txt", fails)
    assert files(tmp_path) == ["a/one.txt"]


def test_a_new_folder_is_on_disk_in_the_one_above_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda opened: synced.append(os.fstat(opened).st_ino))
    put_once(tmp_path / "a" / "b" / "one.txt", lambda half: half.write_text("first") and None)
    above = (tmp_path, tmp_path / "a", tmp_path / "a" / "b")
    assert [synced.count(folder.stat().st_ino) for folder in above] == [1, 1, 1]
    synced.clear()
    put_once(tmp_path / "a" / "b" / "two.txt", lambda half: half.write_text("second") and None)
    assert [synced.count(folder.stat().st_ino) for folder in above] == [0, 0, 1]


def test_what_a_dead_writer_left_is_swept_away(tmp_path: Path) -> None:
    folder = tmp_path / "stream=trade.SOL_USDC" / "day=2026-09-02"
    folder.mkdir(parents=True)
    (folder / ".half-after-0-0.parquet.1234").write_text("half")
    one = trial(tmp_path, rows="1")
    one.give(*trades(Tape(), 1))
    assert files(tmp_path) == ["stream=trade.SOL_USDC/day=2026-09-02/after-0-0.parquet"]
    sweep(tmp_path)
    assert len(files(tmp_path)) == 1


def test_options_that_cannot_be_are_refused() -> None:
    for rows in ("0", "²"):
        with pytest.raises(ConfigError, match=f"rows={rows}: write after how many rows"):
            Trial(Archive, TRADES, rows=rows)
    with pytest.raises(ConfigError, match="seconds"):
        Trial(Archive, TRADES, seconds="soon")


def test_without_pyarrow_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(ConfigError, match=r"pip install 'backpack-bridge\[archive\]'"):
        Trial(Archive, TRADES)
