"""Recorded journals give the very entries that they gave when they were recorded, IDs included.

`python -m tests.oracle --help` says how journals are recorded and compared by hand.
"""

from pathlib import Path

import pytest

from tests.oracle.cases import SUFFIX, find
from tests.oracle.compare import check, told
from tests.oracle.replaying import HERE

RECORDED = HERE / "tests" / "oracle" / "recorded"
CASES = find([RECORDED], [])[::3]  # tests/long has the others


def test_the_recorded_cases_are_there() -> None:
    assert CASES


@pytest.mark.parametrize("packed", CASES, ids=[path.name.removesuffix(SUFFIX) for path in CASES])
def test_replay_of_a_recorded_journal_gives_the_recorded_entries(packed: Path) -> None:
    different = [verdict for verdict in check(packed, HERE) if not verdict.is_same]

    assert not different, "\n".join(line for each in different for line in told(packed, each, 5))
