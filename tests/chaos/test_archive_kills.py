"""The archive's workers killed and stopped at random for minutes: its files equal the streams."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.archive_kills import archive_through_kills
from tests.support.consumer_worker import Bench, bench
from tests.support.redis_server import running_redis

KILLS = int(os.environ.get("CHAOS_KILLS", "60"))
SEED = int(os.environ.get("CHAOS_SEED", time.time_ns() % 1_000_000))


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[Bench]:
    with running_redis() as server, bench(tmp_path, server.url) as one:
        yield one


@pytest.mark.timeout(120 + 10 * KILLS)
def test_archive_files_hold_every_entry_once_when_workers_are_killed_or_suspended(
    workers: Bench,
) -> None:
    archive_through_kills(workers, KILLS, SEED)
