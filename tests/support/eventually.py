"""Wait for a fact, not for seconds."""

import asyncio
import time
from collections.abc import Awaitable, Callable

LIMIT_S = 20.0
STEP_S = 0.02


def eventually(fact: Callable[[], object], what: str, limit_s: float = LIMIT_S) -> None:
    """Return as soon as `fact()` is true; fail, saying `what`, if it is not within the limit."""
    deadline_s = time.monotonic() + limit_s
    while not fact():
        if time.monotonic() > deadline_s:
            raise AssertionError(f"not within {limit_s:g} s: {what}")
        time.sleep(STEP_S)


async def eventually_async(
    fact: Callable[[], object | Awaitable[object]], what: str, limit_s: float = LIMIT_S
) -> None:
    """The same on a loop; the fact may be awaitable."""
    deadline_s = time.monotonic() + limit_s
    while True:
        result = fact()
        if isinstance(result, Awaitable):
            result = await result
        if result:
            return
        if time.monotonic() > deadline_s:
            raise AssertionError(f"not within {limit_s:g} s: {what}")
        await asyncio.sleep(STEP_S)
