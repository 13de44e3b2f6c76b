"""Ctrl-C and SIGTERM: the first signal requests a stop, the second ends the process at once."""

import asyncio
import os
import signal
from types import FrameType

from consumers.kit.stop import Stop

INTERRUPTED = 130


def stop_on_signals(stop: Stop) -> None:
    """Install the signal handlers. Call it on the event loop."""
    loop = asyncio.get_running_loop()
    is_requested = False

    def request_stop(_number: int, _frame: FrameType | None) -> None:
        nonlocal is_requested
        if is_requested:
            os._exit(INTERRUPTED)
        is_requested = True
        loop.call_soon_threadsafe(stop.set)

    # Not the event loop's own handlers: a sync handler that hangs would keep them from running.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, request_stop)
