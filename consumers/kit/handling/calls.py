"""Calling a consumer's own code: what it returns is awaited, and has a limit of time."""

import asyncio
import inspect
from collections.abc import Awaitable
from typing import Any

from consumers.kit.handling.failure import TookTooLong
from consumers.kit.stats import InHand


async def within_limit(waiting: Awaitable[Any], limit_s: float, call: InHand) -> Any:
    """What it gives. Cancels it at its limit; one that goes on all the same is seen by the
    watchdog, which finds it in `call`. Raises TookTooLong, and what it raises."""
    call.awaited = waiting
    try:
        async with asyncio.timeout(limit_s) as limit:
            return await waiting
    except TimeoutError as error:
        if not limit.expired():
            raise  # raised by the consumer itself
        raise TookTooLong(f"not done within its time limit of {limit_s:g} s") from error
    finally:
        call.awaited = None


async def finished(returned: Any, limit_s: float, call: InHand) -> Any:
    """What a hook has returned; where that is still to be awaited, what it gives."""
    if inspect.isawaitable(returned):
        returned = await within_limit(returned, limit_s, call)
    check_returned(returned)
    return returned


def check_returned(returned: Any) -> None:
    """Raises TypeError for a generator, of which nothing has run: the call did nothing."""
    if inspect.isgenerator(returned) or inspect.isasyncgen(returned):
        raise TypeError("it gave a generator, of which nothing has run: return nothing")


def ends_more(error: BaseException) -> bool:
    """Whether this is to end the process. All else that a handler raises is its failure: libraries
    have errors of their own that are no `Exception` (a panic in Rust).
    """
    if isinstance(error, BaseExceptionGroup):
        return any(map(ends_more, error.exceptions))
    return isinstance(error, KeyboardInterrupt | SystemExit)


def is_consumers(error: BaseException) -> bool:
    """Whether this is a failure of the consumer, and not the end of this worker's task."""
    if ends_more(error):
        return False
    task = asyncio.current_task()
    if isinstance(error, GeneratorExit):
        return task is not None  # else this coroutine is closed, which no task is running
    # A cancellation may be of this task, or of something that the consumer awaits. Only in the
    # first case does the task itself count one.
    if not isinstance(error, asyncio.CancelledError):
        return True
    return task is not None and not task.cancelling()
