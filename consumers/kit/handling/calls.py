"""Calls of a consumer's own code: awaitables are awaited within a time limit."""

import asyncio
import inspect
from collections.abc import Awaitable
from typing import Any

from consumers.kit.handling.failure import TookTooLong
from consumers.kit.stats import InHand


async def within_limit(waiting: Awaitable[Any], limit_s: float, call: InHand) -> Any:
    """Await and return the result. Cancels it after `limit_s`; if it ignores the cancellation, the
    watchdog reports it by `call.awaited`. Raises TookTooLong, and the awaitable's exception."""
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
    """The result of a hook, awaited if necessary. Raises as `within_limit` and `check_returned`."""
    if inspect.isawaitable(returned):
        returned = await within_limit(returned, limit_s, call)
    check_returned(returned)
    return returned


def check_returned(returned: Any) -> None:
    """Raise TypeError for a generator: its body has not run, so the call did nothing."""
    if inspect.isgenerator(returned) or inspect.isasyncgen(returned):
        raise TypeError("it gave a generator, of which nothing has run: return nothing")


def ends_more(error: BaseException) -> bool:
    """Whether this exception must end the process. Any other one is a failure of the handler, since
    some libraries raise errors that are no `Exception` (a panic in Rust).
    """
    if isinstance(error, BaseExceptionGroup):
        return any(map(ends_more, error.exceptions))
    return isinstance(error, KeyboardInterrupt | SystemExit)


def is_consumers(error: BaseException) -> bool:
    """Whether this is a failure of the consumer, not a cancellation of this worker's task."""
    if ends_more(error):
        return False
    task = asyncio.current_task()
    if isinstance(error, GeneratorExit):
        return task is not None  # without a task, this coroutine itself is being closed
    # The cancellation may be of this task, or of something that the consumer awaits. Only in the
    # first case is `task.cancelling()` above zero.
    if not isinstance(error, asyncio.CancelledError):
        return True
    return task is not None and not task.cancelling()
