"""Two bridges on the same streams: freezing, killing or stopping one loses and duplicates nothing.

`tests/chaos/test_one_of_two.py` tests each fault alone.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.bridge_run import entries
from tests.support.eventually import eventually_async
from tests.support.oracle import gaps, verdict
from tests.support.pair import LIMIT_S, pair
from tests.support.redis_server import RedisServer, running_redis

# only the pair's markets: no other market takes part of the rate
MARKETS = ("SOL_USDC", "SOL_USDC_PERP")
pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with running_redis() as running_server:
        yield running_server


async def test_bridge_frozen_killed_or_stopped_leaves_no_gap_and_no_duplicate(
    server: RedisServer, tmp_path: Path
) -> None:
    async with pair(tmp_path, server, markets=MARKETS) as both:
        before = both.stream_status("b", "bookTicker.SOL_USDC")["published"]
        await both.goes_on()
        by_second = both.stream_status("b", "bookTicker.SOL_USDC")["published"] - before

        both.freeze("a")
        await eventually_async(lambda: both.rank("b") == (0, []), "b has rank 0", LIMIT_S)
        await both.goes_on()
        both.thaw("a")
        await eventually_async(lambda: both.rank("b") == (1, ["a"]), "a has rank 0", LIMIT_S)
        await both.know_each_other()

        await both.kill("b")
        await both.goes_on()
        await both.start("b")
        await both.know_each_other()

        assert await both.bridges["a"].stop() == 0
        await eventually_async(lambda: both.rank("b") == (0, []), "b has rank 0", LIMIT_S)
        await both.goes_on()
        await both.finish()

    assert verdict(server, both.exchange, both.begun_us) == []
    assert gaps(server) == []
    assert by_second == 0
    with server.client() as client:
        books = [
            fields["update_id"]
            for _, fields in entries(client, "depth.SOL_USDC")
            if fields["type"] == "depth_snapshot"
        ]
    assert len(books) == len(set(books)) > 0
