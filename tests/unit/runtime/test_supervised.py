"""Tasks that fail with an unexpected exception are logged and restarted."""

import asyncio
import random

import pytest
from structlog.testing import capture_logs

from bridge.runtime.backoff import Backoff
from bridge.runtime.markets import read_markets
from bridge.runtime.supervised import supervised


def quick() -> Backoff:
    return Backoff(0.001, 0.01, random.Random(1))


async def test_supervised_work_that_fails_is_logged_without_its_text_and_restarted() -> None:
    begun = 0

    async def work() -> None:
        nonlocal begun
        begun += 1
        if begun == 1:
            read_markets(b'{"balance":"my secret"')  # raises a ValueError
        if begun == 2:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(fails())

    async def fails() -> None:
        raise RuntimeError("my secret")

    with capture_logs() as logged:
        await supervised("a helper", work, quick())

    assert begun == 3
    assert [(each["task"], each["error"]) for each in logged] == [
        ("a helper", "JSONDecodeError"),
        ("a helper", "RuntimeError"),
    ]
    assert logged[0]["place"].startswith("bridge/contract/json_text.py:")
    assert "secret" not in str(logged)


async def test_supervised_work_that_keeps_failing_is_restarted_with_growing_delays() -> None:
    async def work() -> None:
        if len(logged) < 6:
            raise RuntimeError

    with capture_logs() as logged:
        await supervised("a helper", work, Backoff(0.01, 0.08, random.Random(1)))

    pauses = [each["again_s"] for each in logged]
    assert pauses[0] <= 0.01 < 0.04 <= pauses[-1] <= 0.08


async def test_supervised_work_ends_when_it_is_cancelled() -> None:
    async def work() -> None:
        await asyncio.sleep(3600)

    task = asyncio.create_task(supervised("a helper", work, quick()))
    await asyncio.sleep(0)
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
