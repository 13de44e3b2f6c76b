"""Ctrl-C and SIGTERM: the first asks to stop, the second leaves at once."""

import asyncio
import os
import signal
from types import FrameType

from consumers.kit.stop import Stop

INTERRUPTED = 130


def stop_on_signals(stop: Stop) -> None:
    """Call it on the loop."""
    loop = asyncio.get_running_loop()
    asked = False

    def request_stop(_number: int, _frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            os._exit(INTERRUPTED)
        asked = True
        loop.call_soon_threadsafe(stop.set)

    # Not the loop's own handlers: a sync handler that hangs would keep those from running.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, request_stop)
