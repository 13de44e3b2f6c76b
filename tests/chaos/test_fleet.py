"""A fleet that changes: a new member takes its share without a gap, a member keeps streams until
another one receives them, also over its own restart, and a stopped member is reported.
"""

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.eventually import eventually_async
from tests.support.fleet import RATE, STREAMS, fleet_of, shares
from tests.support.oracle import gaps, verdict
from tests.support.pair import LIMIT_S
from tests.support.redis_server import RedisServer, running_redis

HANDOVER_S = 3.0
THREE, FOUR = ("a", "b", "c"), ("a", "b", "c", "d")

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with running_redis() as running_server:
        yield running_server


async def test_new_member_takes_its_share_without_a_gap_and_a_stopped_one_is_reported(
    server: RedisServer, tmp_path: Path
) -> None:
    new = shares(FOUR)["d"]
    assert new, "with these names the new member has no stream"
    async with fleet_of(THREE, tmp_path, server) as fleet:
        begun_us = time.time_ns() // 1000
        await fleet.goes_on()
        for name in THREE:
            fleet.reload(name, FOUR)
        await eventually_async(
            lambda: fleet.kept() == len(new),
            "the other members keep the new member's streams",
            LIMIT_S,
        )
        assert fleet.subscribed() == Counter(STREAMS)
        await fleet.start("d", FOUR)
        await fleet.is_whole(FOUR)
        await fleet.goes_on()
        without_a_gap = gaps(server)

        fleet.bridges["d"].process.kill()
        fleet.bridges["d"].process.wait()
        await eventually_async(
            lambda: fleet.status()[0] == 1, "status reports the stopped member", LIMIT_S
        )
        _, status = fleet.status()
        await fleet.start("d", FOUR)
        await fleet.is_whole(FOUR)
        await fleet.goes_on()
        await fleet.finish()

    assert without_a_gap == []
    assert f"{len(new)} streams, such as {min(new)}, are received by no bridge" in status["verdict"]
    assert "for member d" in status["verdict"]
    assert verdict(server, fleet.exchange, begun_us) == []
    assert {line.split()[0] for line in gaps(server)} <= new


async def test_member_keeps_streams_across_its_restart_until_their_member_receives_them(
    server: RedisServer, tmp_path: Path
) -> None:
    def in_streams(names: set[str]) -> list[str]:
        return [each for each in gaps(server) if each.split()[0] in names]

    theirs = shares(("a", "b"))["b"]
    async with fleet_of(("a",), tmp_path, server) as fleet:
        begun_us = time.time_ns() // 1000
        await fleet.goes_on()
        assert await fleet.bridges["a"].stop() == 0
        await fleet.start("a", ("a", "b"))
        await eventually_async(lambda: fleet.kept() == len(theirs), "the streams are kept", LIMIT_S)
        await eventually_async(
            # missed trades are fetched afterwards
            lambda: len(in_streams(theirs)) == sum(not n.startswith("trade.") for n in theirs),
            "the gaps of the restart are written",
            LIMIT_S,
        )
        of_the_restart = in_streams(theirs)
        await fleet.start("b", ("a", "b"))
        await fleet.is_whole(("a", "b"))
        await fleet.goes_on()
        await fleet.finish()

    assert "streams_handed_over" in fleet.bridges["a"].log()
    assert verdict(server, fleet.exchange, begun_us) == []
    assert in_streams(theirs) == of_the_restart


async def test_streams_are_given_up_only_after_redis_returns_and_no_member_takes_them(
    server: RedisServer, tmp_path: Path
) -> None:
    theirs = shares(("a", "b"))["b"]
    async with fleet_of(("a",), tmp_path, server) as fleet:
        await fleet.goes_on()
        assert await fleet.bridges["a"].stop() == 0
        await fleet.start("a", ("a", "b"), handover_s=HANDOVER_S)
        log = fleet.bridges["a"].log
        await eventually_async(lambda: "streams_kept" in log(), "the streams are kept", LIMIT_S)
        server.kill()
        await eventually_async(
            lambda: "redis_unavailable" in log(), "Redis is unavailable", LIMIT_S
        )
        await fleet.is_sent(int(4 * HANDOVER_S * RATE))
        assert "streams_not_taken_over" not in log()
        assert all(fleet.subscribed()[name] for name in theirs)
        server.start()
        await eventually_async(
            lambda: "streams_not_taken_over" in log(), "the streams are given up", LIMIT_S
        )
        await eventually_async(
            lambda: not any(fleet.subscribed()[name] for name in theirs),
            "the streams are unsubscribed",
            LIMIT_S,
        )


async def test_member_removed_as_the_operations_page_says_leaves_no_gap(
    server: RedisServer, tmp_path: Path
) -> None:
    async with fleet_of(("a", "b"), tmp_path, server) as fleet:
        begun_us = time.time_ns() // 1000
        await fleet.goes_on()
        theirs = shares(("a", "b"))["b"]
        fleet.reload("a", ("a",))
        await eventually_async(
            lambda: all(fleet.subscribed()[name] == 2 for name in theirs),
            "a subscribes to the streams",
            LIMIT_S,
        )
        await fleet.goes_on()
        await eventually_async(
            lambda: not fleet.bridges["a"].status()["open_outages"], "no outage is open", LIMIT_S
        )
        assert await fleet.bridges.pop("b").stop() == 0
        await fleet.is_whole(("a",))
        await fleet.goes_on()
        await fleet.finish()

    assert verdict(server, fleet.exchange, begun_us) == []
    assert gaps(server) == []


async def test_two_bridges_of_one_member_replace_each_other(
    server: RedisServer, tmp_path: Path
) -> None:
    async with fleet_of(("a", "b"), tmp_path, server) as fleet:
        begun_us = time.time_ns() // 1000
        await fleet.start("b", ("a", "b"), instance="b2")
        theirs = shares(("a", "b"))["b"]
        await eventually_async(
            lambda: all(fleet.subscribed()[name] == 2 for name in theirs), "b2 receives", LIMIT_S
        )
        await fleet.goes_on()
        await eventually_async(
            lambda: not fleet.bridges["b2"].status()["open_outages"], "no outage is open", LIMIT_S
        )
        fleet.bridges["b"].process.kill()
        fleet.bridges.pop("b").process.wait()
        await fleet.goes_on()
        await eventually_async(
            lambda: fleet.status()[1]["streams"][min(theirs)]["received_by"] == ["b2"],
            "b is no longer listed as a receiver",
            LIMIT_S,
        )
        assert fleet.status()[0] == 0
        await fleet.finish()

    assert verdict(server, fleet.exchange, begun_us) == []
    assert gaps(server) == []
