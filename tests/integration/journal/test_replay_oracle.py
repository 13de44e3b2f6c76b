"""Recorded journals give the same entries as when they were recorded, IDs included.

`python -m tests.oracle --help` explains how journals are recorded and compared by hand; tests/long
and tests/chaos have two thirds of them.
"""

from pathlib import Path

from tests.support.recorded_journals import differences, in_thirds


@in_thirds(0)
def test_replay_of_a_recorded_journal_gives_the_recorded_entries(packed: Path) -> None:
    assert not differences(packed)
