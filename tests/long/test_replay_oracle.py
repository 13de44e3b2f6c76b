"""The recorded journals that tests/integration leaves out."""

from pathlib import Path

import pytest

from tests.oracle.cases import SUFFIX, find
from tests.oracle.compare import check, told
from tests.oracle.replaying import HERE

RECORDED = HERE / "tests" / "oracle" / "recorded"
CASES = [case for at, case in enumerate(find([RECORDED], [])) if at % 3]


@pytest.mark.parametrize("packed", CASES, ids=[path.name.removesuffix(SUFFIX) for path in CASES])
def test_replay_of_a_recorded_journal_gives_the_recorded_entries(packed: Path) -> None:
    different = [verdict for verdict in check(packed, HERE) if not verdict.is_same]

    assert not different, "\n".join(line for each in different for line in told(packed, each, 5))
