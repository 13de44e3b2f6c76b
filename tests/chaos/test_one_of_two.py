"""One of two bridges is killed, frozen, stopped or replaced; `tests/long` has most of it in
one run.
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
from tests.support.versions import side_by_side

# only the pair's markets: no other market takes part of the rate
MARKETS = ("SOL_USDC", "SOL_USDC_PERP")
pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with running_redis() as running_server:
        yield running_server


async def test_each_message_is_stored_once_and_the_first_bridge_publishes_content_streams(
    server: RedisServer, tmp_path: Path
) -> None:
    async with pair(tmp_path, server, markets=MARKETS) as both:
        before = both.stream_status("b", "bookTicker.SOL_USDC")["published"]
        await both.goes_on(300)
        by_second = both.stream_status("b", "bookTicker.SOL_USDC")["published"] - before
        await both.finish()

    assert verdict(server, both.exchange, both.begun_us) == []
    assert gaps(server) == []
    assert by_second == 0


@pytest.mark.parametrize("name", ["a", "b"])
async def test_bridge_killed_and_restarted_leaves_no_gap(
    name: str, server: RedisServer, tmp_path: Path
) -> None:
    async with pair(tmp_path, server, markets=MARKETS) as both:
        await both.goes_on()
        await both.kill(name)
        await both.goes_on(300)
        await both.start(name)
        await both.know_each_other()
        await both.goes_on(300)
        await both.finish()

    assert verdict(server, both.exchange, both.begun_us) == []
    assert gaps(server) == []


@pytest.mark.parametrize("name", ["a", "b"])
async def test_bridge_frozen_for_a_while_is_replaced_by_the_other(
    name: str, server: RedisServer, tmp_path: Path
) -> None:
    async with pair(tmp_path, server, markets=MARKETS) as both:
        other = "b" if name == "a" else "a"
        both.freeze(name)
        await eventually_async(
            lambda: both.rank(other) == (0, []), "the other bridge has rank 0", LIMIT_S
        )
        await both.goes_on(300)
        both.thaw(name)
        await eventually_async(lambda: both.rank("b") == (1, ["a"]), "b has rank 1 again", LIMIT_S)
        await both.goes_on(100)
        await both.finish()

    assert verdict(server, both.exchange, both.begun_us) == []
    assert gaps(server) == []


async def test_bridge_stopped_hands_over_and_takes_back(
    server: RedisServer, tmp_path: Path
) -> None:
    async with pair(tmp_path, server, markets=MARKETS) as both:
        assert await both.bridges["a"].stop() == 0
        await eventually_async(lambda: both.rank("b") == (0, []), "b has rank 0", LIMIT_S)
        await both.goes_on()
        await both.start("a")
        await both.know_each_other()
        await both.goes_on(300)
        await both.finish()

    assert verdict(server, both.exchange, both.begun_us) == []
    assert gaps(server) == []


async def test_snapshots_of_the_second_bridge_are_not_written_twice(
    server: RedisServer, tmp_path: Path
) -> None:
    async with pair(tmp_path, server, markets=MARKETS) as both:
        await both.goes_on()
        await both.finish()
    with server.client() as client:
        at = [
            fields["update_id"]
            for _, fields in entries(client, "depth.SOL_USDC")
            if fields["type"] == "depth_snapshot"
        ]

    assert len(at) == len(set(at))


async def test_update_of_one_bridge_after_the_other_leaves_no_gap(
    server: RedisServer, tmp_path: Path
) -> None:
    def reported(name: str) -> tuple[str, list[object]]:
        page = json.loads(run_bridge(tmp_path, server.url, "status", "--json").stdout)
        [bridge] = [each for each in page["bridges"] if each["instance"] == name]
        return bridge["state"], bridge["open_outages"]

    async with pair(tmp_path, server, markets=MARKETS) as both:
        await both.goes_on()
        for name in ("a", "b"):
            assert await both.bridges[name].stop() == 0
            await both.goes_on(100)
            await both.start(name)
            await eventually_async(lambda: reported(name) == ("up", []), f"{name} is up", LIMIT_S)  # noqa: B023
        await both.goes_on(300)
        await both.finish()

    assert verdict(server, both.exchange, both.begun_us) == []
    assert gaps(server) == []


@pytest.mark.parametrize("earlier", ["a", "b"])  # the first or the second by rank
async def test_two_versions_side_by_side_write_nothing_twice(
    server: RedisServer, tmp_path: Path, earlier: str
) -> None:
    assert await side_by_side(server, tmp_path, earlier=earlier) == []
