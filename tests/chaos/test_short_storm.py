"""Eight workers of a group over 50 streams for a short time: each second one is killed, suspended
or added. STORM_S, STORM_SEED; `tests/chaos/test_storm.py` is the long run.
"""

import os
import time

import pytest

from tests.support import storm
from tests.support.consumer_worker import Bench

SECONDS = float(os.environ.get("STORM_S", "8"))
SEED = int(os.environ.get("STORM_SEED", time.time_ns() % 1_000_000))

pytestmark = pytest.mark.timeout(SECONDS + 2 * storm.CAUGHT_UP_WITHIN_S)


def test_shared_mode_counts_every_entry_once_in_a_storm(bench: Bench) -> None:
    truth = storm.through_a_storm(bench, "Tally", "tally", SECONDS, SEED, act_every_s=1.0)
    storm.assert_everything_was_handled_and_counted_once(bench, truth)


def test_ordered_mode_keeps_candles_and_books_exact_with_one_owner_in_a_storm(bench: Bench) -> None:
    truth = storm.through_a_storm(bench, "Exact", "exact", SECONDS, SEED, act_every_s=1.0)
    storm.assert_order_and_owners(bench, truth)
    storm.assert_candles(bench, truth)
    storm.assert_books(bench, truth)
