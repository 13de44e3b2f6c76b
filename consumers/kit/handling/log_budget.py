"""Log lines that may come with each entry: the first few of a stream, then a count.

A handler that fails at every entry would else write a line for each attempt at each of them.
"""

import time
from dataclasses import dataclass

MOST = 5  # lines of a stream
PER_S = 10.0


@dataclass(slots=True)
class _Window:
    began_s: float
    lines: int = 0
    left_out: int = 0


class LogBudget:
    """Of one log event."""

    def __init__(self) -> None:
        self._windows: dict[str, _Window] = {}

    def take(self, stream: str, now_s: float | None = None) -> dict[str, int] | None:
        """None where a line is left out; else what it is to say besides: how many were, since the
        last one."""
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
