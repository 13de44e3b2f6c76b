"""The rate of one busy stream among 100, 101 and 500 streams."""

import pytest
import redis

from consumers.kit.api.consumer import Mode
from tests.support.hot_stream import run_hot_stream

ENTRIES = 10_000


@pytest.mark.parametrize("workers", [1, 5])
@pytest.mark.parametrize("mode", ["shared", "ordered"])
async def test_rate_of_a_hot_stream_falls_slowly_with_the_number_of_streams(
    redis_url: str, mode: Mode, workers: int
) -> None:
    took_s = {}
    for streams in (100, 101, 500):
        with redis.Redis.from_url(redis_url) as client:
            client.flushall()
        run = await run_hot_stream(redis_url, mode, streams, workers, ENTRIES)
        assert run.handled == ENTRIES
        took_s[streams] = run.took_s
    # With waits for quiet portions in turn it took 70 times as long with 101, and 170 with 500.
    assert took_s[101] < 5 * took_s[100]
    assert took_s[500] < 10 * took_s[100]
