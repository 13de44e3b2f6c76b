"""The number of reads of one busy stream does not grow with the number of quiet streams."""

import pytest

from consumers.kit.api.consumer import Mode
from tests.support.hot_stream import run_hot_stream


@pytest.mark.parametrize("mode", ["shared", "ordered"])
async def test_a_hot_stream_among_150_streams_is_read_in_full_batches(
    redis_url: str, mode: Mode
) -> None:
    run = await run_hot_stream(redis_url, mode, streams=150, workers=1, entries=3000)
    assert run.handled == 3000
    # Reads of 100 streams with 20 entries of each would need 300 reads.
    assert run.reads < 90
