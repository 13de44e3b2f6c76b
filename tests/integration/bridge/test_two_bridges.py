"""A second bridge of the same name, in a process; `tests/long` runs two on the same streams."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.bridge_run import running_bridge
from tests.support.eventually import eventually_async
from tests.support.oracle import verdict
from tests.support.pair import LIMIT_S, STREAMS, pair
from tests.support.redis_server import RedisServer, running_redis

pytestmark = pytest.mark.timeout(240)

# only the pair's markets: no other market takes part of the rate
MARKETS = ("SOL_USDC", "SOL_USDC_PERP")


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with running_redis() as running_server:
        yield running_server


async def test_second_bridge_of_the_same_name_reports_the_first_and_ends(
    server: RedisServer, tmp_path: Path
) -> None:
    async with pair(tmp_path, server, markets=MARKETS, names="a") as first:
        async with running_bridge(
            tmp_path / "again", first.exchange.ws_url, server.url, STREAMS, instance="a"
        ) as second:
            await eventually_async(
                lambda: second.process.poll() is not None, "the second bridge has ended", LIMIT_S
            )
            assert second.process.returncode == 1
            assert "another bridge is running under the name a (process " in second.log()
            assert "give this one another `instance`" in second.log()
        await first.goes_on()
        await first.finish()

    assert verdict(server, first.exchange, first.begun_us) == []
