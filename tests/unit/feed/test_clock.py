"""The estimate of the exchange's time."""

import asyncio
import time
from typing import cast

import pytest

from bridge.feed import clock as clock_module
from bridge.feed.clock import ClockSample, ExchangeClock
from bridge.feed.rest import Rest
from tests.support.eventually import eventually_async


def clock() -> ExchangeClock:
    return ExchangeClock(lambda: 1_000_000_000)


def test_clock_uses_the_most_precise_of_the_latest_answers() -> None:
    subject = clock()
    assert subject.now_us() == 1_000_000_000

    for offset_us, unsure_us in ((40_000, 90_000), (3_000, 5_000), (60_000, 80_000)):
        subject.learn(ClockSample(offset_us, unsure_us))

    assert subject.now_us() == 1_000_003_000
    assert subject.now_ms() == 1_000_003


def test_clock_that_was_set_is_followed_at_once() -> None:
    subject = clock()
    subject.learn(ClockSample(3_000, 5_000))
    assert subject.learned.is_set()
    subject.learned.clear()

    subject.learn(ClockSample(30_000_000, 90_000))

    assert subject.offset_us == 30_000_000
    assert subject.learned.is_set()


class RightRest:
    """The exchange's time endpoint, with this machine's time."""

    async def get(self, path: str, *, fresh: bool) -> bytes:
        return str(time.time_ns() // 1_000_000).encode()


@pytest.mark.parametrize("step_us", [3_600_000_000, -3_600_000_000, 5_000_000])
async def test_clock_requests_at_once_where_this_machines_clock_is_set(
    monkeypatch: pytest.MonkeyPatch, step_us: int
) -> None:
    monkeypatch.setattr(clock_module, "POLL_S", 0.01)
    monkeypatch.setattr(clock_module, "FIRST_EVERY_S", 3_600)
    off_us = 0
    subject = ExchangeClock(lambda: time.time_ns() // 1000 + off_us)
    asking = asyncio.create_task(subject.run(cast("Rest", RightRest())))
    await subject.learned.wait()

    off_us = step_us
    await eventually_async(
        lambda: abs((subject.offset_us or 0) + step_us) < 1_000_000, "the offset is updated"
    )

    asking.cancel()
