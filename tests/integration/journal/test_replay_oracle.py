"""Replaying recorded journals gives the recorded entries, with the same IDs.

`python -m tests.oracle --help` explains how to record and compare journals; tests/long and
tests/chaos test two thirds of the journals.
"""

from pathlib import Path

from tests.support.recorded_journals import differences, in_thirds


@in_thirds(0)
def test_replay_of_a_recorded_journal_gives_the_recorded_entries(packed: Path) -> None:
    assert not differences(packed)
