"""A third of the recorded journals: see tests/integration/journal/test_replay_oracle.py."""

from pathlib import Path

from tests.support.recorded_journals import differences, in_thirds


@in_thirds(2)
def test_replay_of_a_recorded_journal_gives_the_recorded_entries(packed: Path) -> None:
    assert not differences(packed)
