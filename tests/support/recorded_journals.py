"""The recorded journals of `tests/oracle`, a third of them for each kind of tests."""

from pathlib import Path

import pytest

from tests.oracle.cases import SUFFIX, find
from tests.oracle.compare import check, verdict_lines
from tests.oracle.replaying import HERE

_SHOWN = 5  # differences shown of a replay


def in_thirds(number: int) -> pytest.MarkDecorator:
    """Parametrize a test with each recorded case of this third (0 to 2) as `packed`."""
    cases = find([HERE / "tests" / "oracle" / "recorded"], [])[number::3]
    assert cases
    names = [path.name.removesuffix(SUFFIX) for path in cases]
    return pytest.mark.parametrize("packed", cases, ids=names)


def differences(packed: Path) -> str:
    """The differences between a case's replay and its recorded entries; empty if there are none."""
    different = [verdict for verdict in check(packed, HERE) if not verdict.is_same]
    return "\n".join(line for each in different for line in verdict_lines(packed, each, _SHOWN))
