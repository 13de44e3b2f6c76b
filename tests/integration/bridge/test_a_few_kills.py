"""A short run of the chaos tests for the everyday tests; `make chaos` runs the long ones."""

from pathlib import Path

import pytest

from tests.support.chaos import JOURNAL, chaos, compare
from tests.support.oracle import not_published, verdict
from tests.support.redis_server import running_redis


@pytest.mark.timeout(240)
async def test_a_few_kills_of_redis_and_bridge_lose_nothing_unmarked_and_duplicate_nothing(
    tmp_path: Path,
) -> None:
    with running_redis(appendonly=True) as server:
        async with chaos(tmp_path, server, rate=300) as (run, exchange):
            for kill in (run.kill_redis, run.kill_bridge, run.kill_redis):
                await run.a_moment()
                await kill()
            await run.empty_redis()
            await run.finish()

        ours, theirs = compare(server, exchange, run.begun_us, "a few kills")
        assert verdict(server, exchange, run.begun_us) == []
        assert not_published(server, tmp_path / JOURNAL) == []
        assert (ours.lost, ours.duplicated, ours.disordered) == (0, 0, 0)
        assert theirs.lost > 0
