"""Ten minutes of random faults of the exchange: a gap marks each loss, and covers no received
message.

`tests/integration/bridge/test_outages.py` runs a few seconds of it. If exchange or bridge cannot
keep up, the run cannot be judged. `CHAOS_SEED` repeats a run; `OUTAGES_S` and `OUTAGES_RATE` make
it longer or faster.
"""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.outage_run import run
from tests.support.redis_server import RedisServer, running_redis

SEED = int(os.environ.get("CHAOS_SEED", time.time_ns() % 1_000_000))
FOR_S = float(os.environ.get("OUTAGES_S", "600"))
RATE = int(os.environ.get("OUTAGES_RATE", "2000"))


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with running_redis() as running_server:
        yield running_server


@pytest.mark.timeout(600 + 20 * FOR_S)
async def test_random_faults_of_the_exchange_lose_nothing_without_a_gap(
    server: RedisServer, tmp_path: Path
) -> None:
    print(f"CHAOS_SEED={SEED} OUTAGES_S={FOR_S:g} OUTAGES_RATE={RATE}")
    verdict = await run(tmp_path, server, seed=SEED, for_s=FOR_S, rate=RATE)
    print(verdict.summary())
    assert verdict.flaws == []
    assert "Traceback" not in verdict.log
    assert verdict.faults > FOR_S / 2
    assert verdict.judge.from_history > 0


@pytest.mark.timeout(600 + 20 * FOR_S)
async def test_run_without_faults_has_no_gap(server: RedisServer, tmp_path: Path) -> None:
    verdict = await run(tmp_path, server, seed=SEED, for_s=FOR_S / 10, rate=RATE, with_faults=False)
    print(verdict.summary())
    assert verdict.flaws == []
    assert {cause for _, cause in verdict.judge.gaps} == {"start"}
