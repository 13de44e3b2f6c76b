"""When a command that runs without end stops: at a signal, or after a time."""

import asyncio
import signal


def stopping(for_s: float | None = None) -> tuple[asyncio.Event, list[int]]:
    """An event set by the first SIGINT or SIGTERM, or after `for_s`; and the received signals."""
    stop = asyncio.Event()
    signals: list[int] = []
    loop = asyncio.get_running_loop()

    def on_signal(number: int) -> None:
        signals.append(number)
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal, number)
    if for_s is not None:
        loop.call_later(for_s, stop.set)
    return stop, signals
