"""Eight workers of a group over 50 streams in a short storm. STORM_S, STORM_SEED."""

import os
import time

import pytest

from tests.support import storm
from tests.support.consumer_worker import Bench

SECONDS = float(os.environ.get("STORM_S", "20"))
SEED = int(os.environ.get("STORM_SEED", time.time_ns() % 1_000_000))

pytestmark = pytest.mark.timeout(SECONDS + 2 * storm.CAUGHT_UP_WITHIN_S)


def test_shared_every_entry_is_handled_and_its_results_count_once(bench: Bench) -> None:
    truth = storm.through_a_storm(bench, "Tally", "tally", SECONDS, SEED)
    storm.assert_everything_was_handled_and_counted_once(bench, truth)


def test_ordered_candles_and_books_are_exact_and_owners_never_two(bench: Bench) -> None:
    truth = storm.through_a_storm(bench, "Exact", "exact", SECONDS, SEED)
    storm.assert_order_and_owners(bench, truth)
    storm.assert_candles(bench, truth)
    storm.assert_books(bench, truth)
