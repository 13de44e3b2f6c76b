"""Half a minute of an exchange that does all it can to mislead (`make chaos` has ten minutes,
`tests/integration` a few seconds): nothing is missing unsaid, and nothing is said to be missing
that is not.
"""

from pathlib import Path

import pytest

from tests.support.outage_run import run
from tests.support.redis_server import running_redis

RATE = 1000
LIMIT_S = 400


@pytest.mark.timeout(LIMIT_S)
async def test_whatever_the_exchange_does_nothing_is_missing_unsaid(tmp_path: Path) -> None:
    with running_redis() as server:
        verdict = await run(tmp_path, server, seed=1, for_s=30, rate=RATE)
    print(verdict.summary())
    assert verdict.flaws == []
    assert "Traceback" not in verdict.log
    assert verdict.faults > 15
    assert verdict.judge.from_history > 0
