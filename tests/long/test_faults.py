"""A few faults of the exchange of each kind; `tests/chaos` runs all of them."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.each_fault import (
    assert_connections_recover_and_say_so,
    assert_frames_are_recovered_or_marked,
    assert_rest_faults_only_delay_recovery,
    speaking_stage,
)
from tests.support.outage_run import Stage

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
async def one(tmp_path: Path) -> AsyncIterator[Stage]:
    async with speaking_stage(tmp_path) as running:
        yield running


async def test_faulty_frames_are_recovered_or_marked_and_affect_no_other_stream(one: Stage) -> None:
    await assert_frames_are_recovered_or_marked(
        one, ("dropped", "duplicated", "late", "out of order", "garbage")
    )


async def test_faulty_connections_recover_and_the_cause_is_reported(one: Stage) -> None:
    await assert_connections_recover_and_say_so(one, ("reset", "an error frame"))


async def test_faulty_rest_answers_only_delay_recovery(one: Stage) -> None:
    await assert_rest_faults_only_delay_recovery(one, ("HTTP 503", "200, and truncated"))
