"""Kills and stops workers of the archive at random while entries arrive; compares files and
streams.
"""

import random
import signal
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet

from tests.support.consumer_entries import START_US, entry_id, gap, trade
from tests.support.consumer_worker import Bench, Worker

STREAMS = ("trade.SOL_USDC", "trade.BTC_USDC", "trade.ETH_USDC")
RUN = ("archive", "--lease", "0.5", "--option", "rows=150", "--option", "seconds=0.3")
_TRADES_AT_ONCE = 20
_FAR_BEHIND = 2000
_STEP_US = 400_000  # between two trades: a few minutes of the test cover a day


def archive_through_kills(bench: Bench, kills: int, seed: int) -> None:
    """Run two workers, kill or stop one of them `kills` times, and compare files and streams."""
    print(f"ARCHIVE_SEED={seed} ARCHIVE_KILLS={kills}")
    chance = random.Random(seed)
    folder = bench.folder / "archive"
    bench.register(*STREAMS)
    with flowing(bench):
        workers = [bench.start(*RUN), bench.start(*RUN)]
        for _ in range(kills):
            grown = len(files(folder)) + chance.randint(1, 12)
            bench.until(lambda grown=grown: len(files(folder)) >= grown)
            victim = workers.pop(chance.randrange(2))
            if chance.random() < 0.7:
                victim.kill()
                workers.append(bench.start(*RUN))
            else:
                _sleep_through_the_lease(bench, victim, workers[0])
                workers.append(victim)
    for worker in workers:
        bench.until(lambda worker=worker: bench.status("archive", worker))  # the worker has started
        assert worker.stop() == 0, worker.err
    finish(bench)
    for stream in STREAMS:
        assert_files_are_the_stream(bench, folder, stream)


@contextmanager
def flowing(bench: Bench) -> Iterator[None]:
    """Add trades and gaps to all streams until the block ends."""
    over = threading.Event()

    def feed() -> None:
        number = 1
        while not over.is_set():
            for stream in STREAMS:
                bench.add(stream, dict(_some(number)))
            number += _TRADES_AT_ONCE + 1
            over.wait(0.02)
            while _behind(bench) > _FAR_BEHIND and not over.is_set():
                over.wait(0.1)  # limits the backlog at the end of the test

    feeder = threading.Thread(target=feed)
    feeder.start()
    try:
        yield
    finally:
        over.set()
        feeder.join()


def _behind(bench: Bench) -> int:
    return max(int(bench.group(stream, "archive").get("lag") or 0) for stream in STREAMS)


def _some(first: int) -> Iterator[tuple[str, dict[str, str]]]:
    for number in range(first, first + _TRADES_AT_ONCE):
        at_us = START_US + number * _STEP_US
        yield entry_id(at_us, number), trade(number, at_us, price=f"{number % 100}.{number % 7}0")
    missing = first + _TRADES_AT_ONCE
    yield entry_id(START_US + missing * _STEP_US, missing, 1), gap(missing, first=missing)


def _sleep_through_the_lease(bench: Bench, sleeper: Worker, other: Worker) -> None:
    sleeper.signal(signal.SIGSTOP)
    bench.until(lambda: all(bench.owner(stream, "archive") == other.name for stream in STREAMS))
    sleeper.signal(signal.SIGCONT)


def finish(bench: Bench) -> None:
    """Start a last worker, wait until it has read all streams, and stop it."""
    last = bench.start(*RUN)
    bench.until(lambda: bench.status("archive", last))  # the worker has started
    for stream in STREAMS:
        about: Any = bench.redis.xinfo_stream(stream)
        bench.await_group(stream, "archive", about["last-generated-id"])
    assert last.stop() == 0


def files(folder: Path) -> Sequence[Path]:
    return list(folder.rglob("*.parquet"))


def assert_files_are_the_stream(bench: Bench, folder: Path, stream: str) -> None:
    """Every entry is in one file of its day, once, with its values; no unfinished file is left."""
    kept: Any = bench.redis.xrange(stream)
    expected = {at: (fields["type"], fields.get("price")) for at, fields in kept}
    rows: dict[str, tuple[str, str | None]] = {}
    times = Counter[str]()
    for path in files(folder / f"stream={stream}"):
        for row in parquet.ParquetFile(path).read().to_pylist():
            times[row["entry_id"]] += 1
            rows[row["entry_id"]] = (row["type"], row["price"])
            assert path.parent.name == f"day={row['time']:%Y-%m-%d}"
    assert [at for at, count in times.items() if count > 1] == []
    assert rows == expected
    assert [path.name for path in folder.rglob(".half-*")] == []
