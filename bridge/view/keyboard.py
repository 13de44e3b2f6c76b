"""The keyboard of a viewer: keys by name, one after the other. Restores the terminal however the
block ends.
"""

import asyncio
import contextlib
import os
import sys
import termios
import tty
from collections import deque
from collections.abc import Iterator

from bridge.view.browse import Key

MOST_KEYS = 1024  # that were pressed and not looked at
_ESCAPE = "\x1b"
_SEQUENCES = {
    "[A": Key.UP, "OA": Key.UP, "[B": Key.DOWN, "OB": Key.DOWN,
    "[5~": Key.PAGE_UP, "[6~": Key.PAGE_DOWN,
    "[H": Key.HOME, "OH": Key.HOME, "[1~": Key.HOME,
    "[F": Key.END, "OF": Key.END, "[4~": Key.END,
    "[D": Key.ESCAPE, "OD": Key.ESCAPE, "[C": Key.ENTER, "OC": Key.ENTER,
}  # fmt: skip
_SINGLE = {"\r": Key.ENTER, "\n": Key.ENTER, "\x7f": Key.BACKSPACE, "\b": Key.BACKSPACE}


@contextlib.contextmanager
def pressed_keys(news: asyncio.Event) -> Iterator[deque[str]]:
    """Keys as they are pressed, with `news` set at each. None where stdin is no terminal of this
    job.
    """
    keys: deque[str] = deque(maxlen=MOST_KEYS)
    if not sys.stdin.isatty() or os.tcgetpgrp(sys.stdin.fileno()) != os.getpgrp():
        yield keys
        return
    source = sys.stdin.fileno()
    before = termios.tcgetattr(source)
    loop = asyncio.get_running_loop()

    def read() -> None:
        keys.extend(keys_in(os.read(source, 1024).decode(errors="ignore")))
        news.set()

    tty.setcbreak(source)  # Ctrl-C stays a signal
    loop.add_reader(source, read)
    try:
        yield keys
    finally:
        loop.remove_reader(source)
        termios.tcsetattr(source, termios.TCSADRAIN, before)


def keys_in(text: str) -> Iterator[str]:
    """What was pressed, from what a terminal sends; sequences without a meaning are left out."""
    while text:
        if text[0] != _ESCAPE:
            yield _SINGLE.get(text[0], text[0])
            text = text[1:]
            continue
        sequence, text = _cut(text[1:])
        if not sequence:
            yield Key.ESCAPE
        elif sequence in _SEQUENCES:
            yield _SEQUENCES[sequence]


def _cut(text: str) -> tuple[str, str]:
    """The sequence behind an escape, and what follows it."""
    if text[:1] not in ("[", "O"):
        return "", text
    for at, sign in enumerate(text[1:], 1):
        if sign.isalpha() or sign == "~":
            return text[: at + 1], text[at + 1 :]
    return text, ""
