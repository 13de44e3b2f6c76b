"""When a command that goes on for ever is to stop: a signal, or a time."""

import asyncio
import signal


def stopping(for_s: float | None = None) -> tuple[asyncio.Event, list[int]]:
    """Set by the first SIGINT or SIGTERM, or when the time is over; and the signals that came."""
    stop = asyncio.Event()
    signals: list[int] = []
    loop = asyncio.get_running_loop()

    def heed(number: int) -> None:
        signals.append(number)
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, heed, number)
    if for_s is not None:
        loop.call_later(for_s, stop.set)
    return stop, signals
