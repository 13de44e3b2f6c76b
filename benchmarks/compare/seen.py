"""Records of a reader's program: when it saw its messages, and which.

Uses the standard library only, since it runs in the peers' environment.
"""

import json
import os
import resource
import sys
import time
from pathlib import Path

WORK_S = 0.001  # of a message, where readers are killed: so that a kill hits a busy reader


class Seen:
    """`note` each message as it is handled. The clock runs from the first to the one after `count`;
    `log` (a path, or "") gets each ID, to determine which were handled.
    """

    def __init__(self, count: int, log: str) -> None:
        self._count = count
        self._log = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT) if log else None
        self._seen = 0
        self._begun = (0.0, 0.0)

    def note(self, entry: str) -> None:
        """Count a handled message. Prints the figures after the last one counted."""
        if self._log is not None:
            time.sleep(WORK_S)
            os.write(self._log, f"{entry}\n".encode())
        if not self._seen:
            self._begun = (time.monotonic(), time.process_time())
        self._seen += 1
        if self._seen == self._count + 1:
            took = (time.monotonic() - self._begun[0], time.process_time() - self._begun[1])
            figures = {"seconds": took[0], "cpu_s": took[1], "rss_mb": _rss_mb()}
            print(json.dumps(figures), flush=True)
            if self._log is None:
                os._exit(0)


def _rss_mb() -> float:
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().partition("VmRSS:")[2].split()[0]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)
