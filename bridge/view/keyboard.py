"""The keyboard of a viewer: keys by name. Restores the terminal when the block ends, however it
ends.
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

MOST_KEYS = 1024  # that wait to be handled
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
    """The queue of pressed keys, with `news` set at each. Empty where stdin is not the terminal of
    this job.
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
    """The keys in a terminal's input; unknown escape sequences are left out."""
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
    """The sequence after an escape, and the rest."""
    if text[:1] not in ("[", "O"):
        return "", text
    for at, char in enumerate(text[1:], 1):
        if char.isalpha() or char == "~":
            return text[: at + 1], text[at + 1 :]
    return text, ""
