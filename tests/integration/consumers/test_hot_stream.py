"""One stream with very many entries among many quiet ones: it must not depend on their number."""

import pytest

from consumers.kit.api.consumer import Mode
from tests.support.hot_stream import run_hot_stream


@pytest.mark.parametrize("mode", ["shared", "ordered"])
async def test_a_hot_stream_among_150_streams_is_read_in_full_batches(
    redis_url: str, mode: Mode
) -> None:
    run = await run_hot_stream(redis_url, mode, streams=150, workers=1, entries=3000)
    assert run.handled == 3000
    # In portions of a hundred streams, 20 entries of each at a time, it would take 300 reads.
    assert run.reads < 90
