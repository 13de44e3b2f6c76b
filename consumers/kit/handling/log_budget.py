"""Limits log lines that may occur for every entry: the first few of a stream, then a count.

Without it, a handler that always fails would log a line per attempt and entry.
"""

import time
from dataclasses import dataclass

MOST = 5  # lines per stream and window
PER_S = 10.0  # length of the window, s


@dataclass(slots=True)
class _Window:
    began_s: float
    lines: int = 0
    left_out: int = 0


class LogBudget:
    """The budget of one log event."""

    def __init__(self) -> None:
        self._windows: dict[str, _Window] = {}

    def take(self, stream: str, now_s: float | None = None) -> dict[str, int] | None:
        """None if the line is to be left out; else extra fields for it: the number of lines left
        out since the last one, if any."""
        now_s = time.monotonic() if now_s is None else now_s
        window = self._windows.setdefault(stream, _Window(now_s))
        if now_s - window.began_s >= PER_S:
            window.began_s, window.lines = now_s, 0
        if window.lines >= MOST:
            window.left_out += 1
            return None
        window.lines += 1
        left_out, window.left_out = window.left_out, 0
        return {"left_out": left_out} if left_out else {}
