"""Bridges that share the streams: each stream is received once, and a stopped member is
reported.
"""

from pathlib import Path

import pytest

from tests.support.eventually import eventually_async
from tests.support.fleet import fleet_of, shares
from tests.support.pair import LIMIT_S
from tests.support.redis_server import running_redis


@pytest.mark.timeout(180)
async def test_each_stream_has_one_receiver_and_streams_of_a_stopped_member_are_reported(
    tmp_path: Path,
) -> None:
    with running_redis() as server:
        async with fleet_of(("a", "b"), tmp_path, server) as fleet:
            await fleet.goes_on()
            assert await fleet.bridges["b"].stop() == 0
            await eventually_async(
                lambda: fleet.status()[0] == 1, "status reports the stopped member", LIMIT_S
            )
            _, status = fleet.status()

    theirs = shares(("a", "b"))["b"]
    assert status["verdict"] == (
        f"{len(theirs)} streams, such as {min(theirs)}, are received by no bridge: for member b"
    )
