"""The archive sample: files and pending rows together contain every entry exactly once."""

import os
import stat
from importlib import import_module
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import ConfigError
from consumers.handlers.archive import Archive
from consumers.kit.effects.files import put_once, remove_unfinished
from consumers.testing import EventFactory, StreamEntry, Trial
from tests.support.examples import examples

TRADES = "trade.SOL_USDC"


def trial(folder: Path, stream: str = TRADES, rows: str = "4", seconds: str = "3600") -> Trial:
    return Trial(Archive, stream, folder=str(folder), rows=rows, seconds=seconds)


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def archived(folder: Path) -> list[str]:
    """The archived entry IDs in the order of the files and of their rows."""
    paths = sorted(
        folder.rglob("*.parquet"),
        key=lambda p: int(p.stem.split("-")[-2]) * 10**12 + int(p.stem.split("-")[-1]),
    )
    return [i for path in paths for i in pyarrow.parquet.read_table(path)["entry_id"].to_pylist()]


def trades(factory: EventFactory, count: int, **more: Any) -> list[StreamEntry]:
    return [factory.trade("98.96", "1.5", **more) for _ in range(count)]


def ids(given: list[StreamEntry]) -> list[str]:
    return [one.entry_id for one in given]


def test_archive_writes_a_file_when_there_are_enough_rows(tmp_path: Path) -> None:
    factory, one = EventFactory(), trial(tmp_path)
    given = trades(factory, 3)
    one.deliver(*given)
    assert files(tmp_path) == []
    given += trades(factory, 2)
    one.deliver(*given[3:])
    assert files(tmp_path) == ["stream=trade.SOL_USDC/day=2026-09-02/after-0-0.parquet"]
    assert archived(tmp_path) == ids(given)
    assert one.redis.exists(one.key("state")) == 0  # no rows are pending
    one.deliver(*trades(factory, 4))
    assert files(tmp_path)[1] == (
        f"stream=trade.SOL_USDC/day=2026-09-02/after-{given[-1].entry_id}.parquet"
    )


def test_archive_writes_a_file_for_each_day(tmp_path: Path) -> None:
    factory, one = EventFactory(start="2026-09-02T23:59:58"), trial(tmp_path)
    given = trades(factory, 5, after_s=1)
    one.deliver(*given)
    assert files(tmp_path) == [
        "stream=trade.SOL_USDC/day=2026-09-02/after-0-0.parquet",
        f"stream=trade.SOL_USDC/day=2026-09-03/after-{given[0].entry_id}.parquet",
    ]
    assert archived(tmp_path) == ids(given)


def test_archive_writes_rows_after_their_time_although_no_entry_comes(
    tmp_path: Path,
) -> None:
    factory, one = EventFactory(), trial(tmp_path, rows="1000", seconds="0")
    one.deliver(*trades(factory, 1))
    assert len(archived(tmp_path)) == 1
    patient = trial(tmp_path / "other", rows="1000")
    patient.deliver(*trades(factory, 1))
    patient.idle()
    assert archived(tmp_path / "other") == []
    patient.idle(stopping=True)
    assert len(archived(tmp_path / "other")) == 1


def test_archive_keeps_waiting_rows_after_a_takeover(tmp_path: Path) -> None:
    factory, one = EventFactory(), trial(tmp_path)
    given = trades(factory, 7)
    one.deliver(*given[:2])
    one.deliver(*given[2:3])
    one.take_over()
    one.deliver(*given[3:])
    assert archived(tmp_path) == ids(given)


def test_archive_has_each_row_once_when_a_worker_dies_between_file_and_commit(
    tmp_path: Path,
) -> None:
    factory, one = EventFactory(), trial(tmp_path)
    given = trades(factory, 11)
    one.deliver(*given[:3])
    one.crash_after(*given[3:6])  # writes a file, which the next worker detects
    assert archived(tmp_path) == ids(given[:6])
    one.deliver(*given[6:])
    assert archived(tmp_path) == ids(given)


def test_archive_of_two_workers_at_once_continues_after_the_file_of_the_first(
    tmp_path: Path,
) -> None:
    factory = EventFactory()
    given = trades(factory, 9)
    sleeper, heir = trial(tmp_path, rows="5"), trial(tmp_path, rows="3")
    sleeper.deliver(*given[:4])  # 4 pending rows; its lease expires
    heir.deliver(*given[:4])  # writes a file with the same rows
    sleeper.deliver(*given[4:5])
    assert archived(tmp_path) == ids(given[:5])
    heir.deliver(*given[4:])
    assert archived(tmp_path) == ids(given)


def test_archive_leaves_out_entries_that_an_emptied_redis_gets_again(tmp_path: Path) -> None:
    given = trades(EventFactory(), 9)
    trial(tmp_path).deliver(*given[:6], at_once=2)
    trial(tmp_path).deliver(*given, at_once=2)
    assert archived(tmp_path) == ids(given)[:8]


def test_archive_files_hold_every_kind_of_value(tmp_path: Path) -> None:
    factory, one = EventFactory(first=11), trial(tmp_path, "depth.SOL_USDC", rows="1")
    one.deliver(
        factory.updates_missing(5),
        factory.depth([("98.90", "1")], [], updates=2),
        factory.snapshot([("98.90", "1"), ("98.8", "2")], [("99", "0.50")]),
    )
    table = pyarrow.parquet.read_table(next(tmp_path.rglob("*.parquet"))).to_pylist()
    assert [one["type"] for one in table] == ["gap", "depth", "depth_snapshot"]
    assert (table[0]["from"], table[0]["to"], table[0]["recovered"]) == (11, 15, False)
    assert table[1]["bids"] == [{"price": "98.90", "quantity": "1"}]
    assert table[2]["asks"] == [{"price": "99", "quantity": "0.50"}]
    assert table[2]["engine_at"].isoformat() == "2026-09-02T16:44:00.250000+00:00"
    assert table[0]["bids"] is None


def test_archive_folder_is_read_by_duckdb_and_pandas(tmp_path: Path) -> None:
    # imported here: each takes a second, which test processes without this test save
    duckdb: Any = import_module("duckdb")
    pandas: Any = import_module("pandas")
    one = trial(tmp_path, rows="2")
    factory = EventFactory(start="2026-09-02T23:59:59")
    one.deliver(*[factory.trade(f"{n}.10", "0.5") for n in range(1, 9)], at_once=2)
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
    frame = pandas.read_parquet(tmp_path / "stream=trade.SOL_USDC")
    assert sorted(frame["trade_id"]) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert set(frame["day"].astype(str)) == {"2026-09-02", "2026-09-03"}


@st.composite
def lives(draw: st.DrawFn) -> list[tuple[str, int]]:
    """Sequences of deliveries, takeovers, crashes before the commit, idle periods and stops."""
    acts = st.sampled_from(["deliver", "deliver", "deliver", "crash", "take_over", "idle", "stop"])
    return draw(st.lists(st.tuples(acts, st.integers(1, 5)), min_size=1, max_size=12))


@examples(8)
@given(lives(), st.integers(1, 6), st.sampled_from([0.25, 9_000.0]))
def test_archive_files_together_are_the_stream_after_any_crashes_and_takeovers(
    tmp_path_factory: pytest.TempPathFactory,
    acts: list[tuple[str, int]],
    rows: int,
    after_s: float,
) -> None:
    folder = tmp_path_factory.mktemp("archive")
    factory, one, reported = EventFactory(), trial(folder, rows=str(rows)), list[str]()
    for act, count in acts:
        if act in ("deliver", "crash"):
            given = trades(factory, count, after_s=after_s)
            reported += ids(given)
            (one.deliver if act == "deliver" else one.crash_after)(*given)
        elif act == "take_over":
            one.take_over()
        else:
            one.idle(stopping=act == "stop")
    one.idle(stopping=True)
    assert archived(folder) == reported


def test_put_once_writes_a_file_once_and_wholly(tmp_path: Path) -> None:
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


@pytest.mark.parametrize(
    ("stream", "account", "modes"),
    [
        ("account.orderUpdate", "private", (0o755, 0o700, 0o700, 0o600)),
        ("account.orderUpdate", "shared", (0o755, 0o755, 0o755, 0o644)),
        (TRADES, "private", (0o755, 0o755, 0o755, 0o644)),
    ],
)
def test_archive_files_of_the_account_are_private_unless_shared(
    tmp_path: Path, stream: str, account: str, modes: tuple[int, ...]
) -> None:
    before = os.umask(0o022)
    try:
        one = Trial(Archive, stream, folder=str(tmp_path / "new"), rows="1", account=account)
        one.deliver(*trades(EventFactory(), 1))
    finally:
        os.umask(before)
    [file] = tmp_path.glob(f"new/stream={stream}/*/*.parquet")
    way = (*reversed(file.parents[:3]), file)
    assert tuple(stat.S_IMODE(path.stat().st_mode) for path in way) == modes


def test_put_once_private_is_never_readable_by_others_while_it_is_written(tmp_path: Path) -> None:
    seen: list[int] = []

    def write(half: Path) -> None:
        half.write_text("first")
        seen.append(stat.S_IMODE(half.stat().st_mode))

    tmp_path.chmod(0o755)
    assert put_once(tmp_path / "one.txt", write, private=True)
    assert seen == [0o600]
    assert (tmp_path / "one.txt").read_text() == "first"


def test_put_once_syncs_a_new_folder_in_the_one_above_it(
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


def test_archive_removes_unfinished_files_of_dead_writers(tmp_path: Path) -> None:
    folder = tmp_path / "stream=trade.SOL_USDC" / "day=2026-09-02"
    folder.mkdir(parents=True)
    (folder / ".half-after-0-0.parquet.1234").write_text("half")
    one = trial(tmp_path, rows="1")
    one.deliver(*trades(EventFactory(), 1))
    assert files(tmp_path) == ["stream=trade.SOL_USDC/day=2026-09-02/after-0-0.parquet"]
    remove_unfinished(tmp_path)
    assert len(files(tmp_path)) == 1


def test_archive_refuses_options_out_of_range() -> None:
    for rows in ("0", "²"):
        with pytest.raises(ConfigError, match=f"rows={rows}: write after how many rows"):
            Trial(Archive, TRADES, rows=rows)
    with pytest.raises(ConfigError, match="account=open: private or shared"):
        Trial(Archive, TRADES, account="open")
    for seconds in ("soon", "nan", "-1"):
        with pytest.raises(ConfigError, match=f"seconds={seconds}: write how long"):
            Trial(Archive, TRADES, seconds=seconds)


def test_archive_without_pyarrow_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(ConfigError, match=r"pip install 'backpack-bridge\[archive\]'"):
        Trial(Archive, TRADES)


def test_archive_keeps_entries_with_times_outside_the_calendar(tmp_path: Path) -> None:
    absurd = {"engine_us": 2**64 - 1, "event_us": 2**64 - 1, "received_us": 2**64 - 1}
    given = [
        StreamEntry("18446744073709551615-10", one.event.model_copy(update=absurd))
        for one in trades(EventFactory(), 1)
    ]
    trial(tmp_path, rows="1").deliver(*given)

    assert files(tmp_path) == ["stream=trade.SOL_USDC/day=9998-12-31/after-0-0.parquet"]
