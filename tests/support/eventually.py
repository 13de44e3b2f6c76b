"""Wait until a condition is true, instead of for a fixed time."""

import asyncio
import time
from collections.abc import Awaitable, Callable

LIMIT_S = 40.0  # only a failing test takes so long
STEP_S = 0.02
REST = 3  # the pause between polls is at least this multiple of a poll's duration


def eventually(fact: Callable[[], object], what: str, limit_s: float = LIMIT_S) -> None:
    """Return as soon as `fact()` is true; fail with `what` if it is still false after `limit_s`."""
    deadline_s = time.monotonic() + limit_s
    while True:
        polled_s = time.monotonic()
        if fact():
            return
        time.sleep(_pause_s(polled_s, deadline_s, what, limit_s))


async def eventually_async(
    fact: Callable[[], object | Awaitable[object]], what: str, limit_s: float = LIMIT_S
) -> None:
    """The same in an event loop; the result of `fact` may be awaitable."""
    deadline_s = time.monotonic() + limit_s
    while True:
        polled_s = time.monotonic()
        result = fact()
        if isinstance(result, Awaitable):
            result = await result
        if result:
            return
        await asyncio.sleep(_pause_s(polled_s, deadline_s, what, limit_s))


def _pause_s(polled_s: float, deadline_s: float, what: str, limit_s: float) -> float:
    now_s = time.monotonic()
    if now_s > deadline_s:
        raise AssertionError(f"not within {limit_s:g} s: {what}")
    return max(STEP_S, min(REST * (now_s - polled_s), 1.0))
