"""The archive is exact through kills. Longer, and other runs: `ARCHIVE_KILLS`, `ARCHIVE_SEED`."""

import os
import time

import pytest

from tests.support.archive_kills import archive_through_kills
from tests.support.consumer_worker import Bench

KILLS = int(os.environ.get("ARCHIVE_KILLS", "2"))
SEED = int(os.environ.get("ARCHIVE_SEED", time.time_ns() % 1_000_000))


@pytest.mark.timeout(90 + 10 * KILLS)
def test_archive_files_hold_every_entry_once_when_workers_are_killed_or_suspended(
    bench: Bench,
) -> None:
    archive_through_kills(bench, KILLS, SEED)
