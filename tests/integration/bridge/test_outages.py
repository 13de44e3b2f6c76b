"""A few seconds of random faults of the exchange: a gap marks each loss and covers no received
message.

`tests/long` runs half a minute, `make chaos` ten minutes.
"""

from pathlib import Path

import pytest

from tests.support.outage_run import run
from tests.support.redis_server import running_redis


@pytest.mark.timeout(180)
async def test_random_faults_leave_nothing_missing_without_a_gap(tmp_path: Path) -> None:
    with running_redis() as server:
        verdict = await run(tmp_path, server, seed=1, for_s=6, rate=500)
    print(verdict.summary())
    assert verdict.flaws == []
    assert "Traceback" not in verdict.log
    assert verdict.faults > 3


@pytest.mark.long
@pytest.mark.timeout(180)
async def test_replaced_and_duplicated_connections_make_no_gap(tmp_path: Path) -> None:
    with running_redis() as server:
        verdict = await run(
            tmp_path,
            server,
            seed=2,
            for_s=6,
            rate=200,
            with_faults=False,
            connections_per_stream=2,
            max_connection_age_s=2,
        )
    print(verdict.summary())
    assert verdict.flaws == []
    assert {cause for _, cause in verdict.judge.gaps} == {"start"}
    assert verdict.log.count("feed_replaced") >= 4
