"""Eight workers of a group over 50 streams and 3,000 entries a second for three minutes: every 2 s
one is killed, suspended for longer than its lease, or added. STORM_S, STORM_SEED.
"""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import storm
from tests.support.consumer_worker import Bench
from tests.support.consumer_worker import bench as running_bench
from tests.support.redis_server import running_redis

SECONDS = float(os.environ.get("STORM_S", "180"))
SEED = int(os.environ.get("STORM_SEED", time.time_ns() % 1_000_000))

pytestmark = pytest.mark.timeout(SECONDS + 2 * storm.CAUGHT_UP_WITHIN_S)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with running_redis() as server, running_bench(tmp_path, server.url) as one:
        yield one


def test_shared_mode_counts_every_entry_once_in_a_storm(bench: Bench) -> None:
    truth = storm.through_a_storm(bench, "Tally", "tally", SECONDS, SEED)
    storm.assert_everything_was_handled_and_counted_once(bench, truth)


def test_ordered_mode_keeps_candles_and_books_exact_with_one_owner_in_a_storm(bench: Bench) -> None:
    truth = storm.through_a_storm(bench, "Exact", "exact", SECONDS, SEED)
    storm.assert_order_and_owners(bench, truth)
    storm.assert_candles(bench, truth)
    storm.assert_books(bench, truth)
