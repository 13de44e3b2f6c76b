"""Every fault of the exchange in `tests/support/each_fault.py`, in turn."""

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.each_fault import (
    CONNECTIONS,
    FRAMES,
    HIT,
    NOTHING,
    QUIET,
    REST,
    SILENT,
    TICKER,
    all_speak,
    assert_connections_recover_and_say_so,
    assert_frames_are_recovered_or_marked,
    assert_rest_faults_only_delay_recovery,
    causes,
    is_calm,
    says,
    speaking_stage,
    stored,
)
from tests.support.orders import order
from tests.support.outage_run import NAMES, Stage

LIMIT_S = 300


@pytest.fixture
async def one(tmp_path: Path) -> AsyncIterator[Stage]:
    async with speaking_stage(tmp_path) as running:
        yield running


@pytest.mark.timeout(LIMIT_S)
async def test_each_frame_fault_is_recovered_or_marked_and_affects_no_other_stream(
    one: Stage,
) -> None:
    await assert_frames_are_recovered_or_marked(one, FRAMES)


@pytest.mark.timeout(LIMIT_S)
async def test_each_connection_fault_recovers_and_is_reported(one: Stage) -> None:
    await assert_connections_recover_and_say_so(one, CONNECTIONS)


@pytest.mark.timeout(LIMIT_S)
async def test_each_rest_fault_only_delays_recovery(one: Stage) -> None:
    await assert_rest_faults_only_delay_recovery(one, REST)


@pytest.mark.timeout(LIMIT_S)
async def test_subscription_that_ends_without_notice_is_detected_and_reported(one: Stage) -> None:
    public = next(
        each["number"] for each in one.exchange.connections() if TICKER in each["streams"]
    )
    for commands in (
        # The connection stays open and answers pings, but sends nothing else.
        [{"fault": "stall", "connection": public, "pongs": True, "for_s": 8.0}],
        [{"fault": "forget", "stream": f"*.{HIT}"}],
        [{"fault": "ignore", "stream": TICKER, "count": 1}, {"fault": "close"}],
    ):
        await is_calm(one)
        before = {name: one.client.xlen(name) for name in NAMES}
        begun_s = time.monotonic()
        for command in commands:
            await order(one.exchange, **command)
        await says(one, before, SILENT)
        await one.is_whole()
        await all_speak(one)
        print(f"{commands[0]}: well again after {time.monotonic() - begun_s:.1f} s")
        for stream in (f"trade.{market}" for market in (HIT, *QUIET)):
            assert causes(stored(one, stream)) == NOTHING, commands
    verdict = await one.verdict()
    assert verdict.flaws == []
