"""The keys a viewer understands: q leaves. Restores the terminal however the block ends."""

import asyncio
import contextlib
import os
import sys
import termios
import tty
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def leaving_by_q(leave: Callable[[], None]) -> Iterator[None]:
    """Call `leave` when q is pressed. Does nothing where stdin is no terminal of this job."""
    if not sys.stdin.isatty() or os.tcgetpgrp(sys.stdin.fileno()) != os.getpgrp():
        yield
        return
    keys = sys.stdin.fileno()
    before = termios.tcgetattr(keys)
    loop = asyncio.get_running_loop()

    def read() -> None:
        if os.read(keys, 64).lower().startswith(b"q"):
            leave()

    tty.setcbreak(keys)  # Ctrl-C stays a signal
    loop.add_reader(keys, read)
    try:
        yield
    finally:
        loop.remove_reader(keys)
        termios.tcsetattr(keys, termios.TCSADRAIN, before)
