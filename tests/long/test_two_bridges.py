"""Two bridges on the same streams, as real processes: whichever goes, nothing is lost or twice.
`tests/chaos/test_one_of_two.py` has each way by itself.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.bridge_run import entries
from tests.support.command import run_bridge
from tests.support.eventually import eventually_async
from tests.support.oracle import gaps, verdict
from tests.support.pair import LIMIT_S, pair
from tests.support.redis_server import RedisServer, running_redis

MARKETS = ("SOL_USDC", "SOL_USDC_PERP")  # those of the pair: nothing else takes of the rate
pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with running_redis() as running_server:
        yield running_server


async def test_an_update_of_one_after_the_other_as_the_operations_page_says_leaves_no_gap(
    server: RedisServer, tmp_path: Path
) -> None:
    def told(name: str) -> tuple[str, list[object]]:
        page = json.loads(run_bridge(tmp_path, server.url, "status", "--json").stdout)
        [bridge] = [each for each in page["bridges"] if each["instance"] == name]
        return bridge["state"], bridge["open_outages"]

    async with pair(tmp_path, server, markets=MARKETS) as both:
        await both.goes_on()
        for name in ("a", "b"):
            assert await both.bridges[name].stop() == 0
            await both.goes_on(100)
            await both.start(name)
            await both.know_each_other()
            assert told(name) == ("up", [])
        await both.goes_on(300)
        await both.finish()

    assert verdict(server, both.exchange, both.begun_us) == []
    assert gaps(server) == []


async def test_one_frozen_killed_or_stopped_leaves_no_gap_and_no_duplicate(
    server: RedisServer, tmp_path: Path
) -> None:
    async with pair(tmp_path, server, markets=MARKETS) as both:
        before = both.stream_status("b", "bookTicker.SOL_USDC")["published"]
        await both.goes_on()
        by_second = both.stream_status("b", "bookTicker.SOL_USDC")["published"] - before

        both.freeze("a")
        await eventually_async(lambda: both.rank("b") == (0, []), "b is first", LIMIT_S)
        await both.goes_on()
        both.thaw("a")
        await eventually_async(lambda: both.rank("b") == (1, ["a"]), "a is first", LIMIT_S)
        await both.know_each_other()

        await both.kill("b")
        await both.goes_on()
        await both.start("b")
        await both.know_each_other()

        assert await both.bridges["a"].stop() == 0
        await eventually_async(lambda: both.rank("b") == (0, []), "b is first", LIMIT_S)
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
