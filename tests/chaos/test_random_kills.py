"""Redis and the bridge killed at random while messages arrive: no unmarked loss, no duplicate, and
every trade and book change of the journal is in Redis, also inside gaps.

A simple loop runs in parallel with the bridge; the table of both is in docs/guarantees.md.
`CHAOS_SEED` repeats a run, `CHAOS_KILLS` and `CHAOS_RATE` make it longer or faster. Each run prints
its seed.
"""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.chaos import JOURNAL, chaos, compare
from tests.support.oracle import gaps, not_published, verdict
from tests.support.proxy import running_proxy
from tests.support.redis_server import RedisServer, running_redis

KILLS = int(os.environ.get("CHAOS_KILLS", "20"))
LIVES_S = float(os.environ.get("CHAOS_LIVES_S", "3"))  # longest time between two faults
AWAY_S = float(os.environ.get("CHAOS_AWAY_S", "20"))


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with running_redis(appendonly=True) as running_server:
        yield running_server


@pytest.mark.timeout(600)
@pytest.mark.parametrize("what", [("Redis",), ("bridge",), ("Redis", "bridge")], ids=" or ".join)
async def test_random_kills_cause_no_unmarked_loss_and_no_duplicate(
    what: tuple[str, ...], server: RedisServer, tmp_path: Path
) -> None:
    async with chaos(tmp_path, server) as (run, exchange):
        for _ in range(KILLS):
            await run.a_moment(LIVES_S)
            await (run.kill_redis() if run.chance.choice(what) == "Redis" else run.kill_bridge())
        await run.finish()

    title = f"{' or '.join(what)} killed {KILLS} times"
    ours, theirs = compare(server, exchange, run.begun_us, title)
    assert verdict(server, exchange, run.begun_us) == []
    assert not_published(server, tmp_path / JOURNAL) == []
    assert (ours.lost, ours.duplicated, ours.disordered) == (0, 0, 0)
    if "bridge" not in what:  # the bridge received all the time: no gap is allowed
        assert gaps(server) == []
    assert theirs.lost + theirs.duplicated > 0, "the loop lost nothing: the faults had no effect"


@pytest.mark.timeout(600)
async def test_a_redis_that_is_emptied_in_the_middle_is_filled_again(
    server: RedisServer, tmp_path: Path
) -> None:
    async with chaos(tmp_path, server) as (run, exchange):
        for _ in range(3):
            await run.a_moment(2.0)
            await run.empty_redis()
        await run.finish()

    ours, theirs = compare(server, exchange, run.begun_us, "FLUSHALL 3 times")
    assert verdict(server, exchange, run.begun_us) == []
    assert not_published(server, tmp_path / JOURNAL) == []
    assert (ours.lost, ours.duplicated, ours.disordered) == (0, 0, 0)
    assert theirs.lost > 0


@pytest.mark.timeout(600)
@pytest.mark.parametrize("how", ["frozen", "out of memory"])
async def test_redis_that_refuses_writes_for_a_while_loses_nothing(
    how: str, server: RedisServer, tmp_path: Path
) -> None:
    async with chaos(tmp_path, server) as (run, exchange):
        with server.client() as client:
            if how == "frozen":
                server.pause()
            else:
                client.config_set("maxmemory", 1)
            ends_s = time.monotonic() + AWAY_S
            while time.monotonic() < ends_s:
                await run.a_moment()
            if how == "frozen":
                server.resume()
            else:
                client.config_set("maxmemory", 0)
        await run.finish()

    ours, theirs = compare(server, exchange, run.begun_us, f"Redis {how} for {AWAY_S:g} s")
    assert verdict(server, exchange, run.begun_us) == []
    assert not_published(server, tmp_path / JOURNAL) == []
    assert gaps(server) == []
    assert (ours.lost, ours.duplicated, ours.disordered) == (0, 0, 0)
    assert theirs.lost + theirs.duplicated > 0 or how == "frozen", (
        "the loop lost nothing: the fault had no effect"
    )


@pytest.mark.timeout(600)
async def test_replies_lost_repeatedly_cause_no_loss_and_no_duplicate(
    server: RedisServer, tmp_path: Path
) -> None:
    async with (
        running_proxy("127.0.0.1", server.port) as bridges,
        running_proxy("127.0.0.1", server.port) as loops,
        chaos(
            tmp_path,
            server,
            redis_url=f"redis://127.0.0.1:{bridges.port}/0",
            loop_url=f"redis://127.0.0.1:{loops.port}/0",
        ) as (run, exchange),
    ):
        for _ in range(KILLS):
            await run.a_moment()
            bridges.lose_reply()
            loops.lose_reply()
        await run.finish()
        assert min(bridges.replies_lost, loops.replies_lost) >= KILLS - 1

    ours, theirs = compare(server, exchange, run.begun_us, f"{KILLS} replies of Redis lost")
    assert verdict(server, exchange, run.begun_us) == []
    assert not_published(server, tmp_path / JOURNAL) == []
    assert gaps(server) == []
    assert (ours.lost, ours.duplicated, ours.disordered) == (0, 0, 0)
    # The loop got errors for messages that are stored; it does not send them again and so loses
    # none.
    assert theirs.made == ours.made
