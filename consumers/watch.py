"""Watching over the event loop from outside of it: a sync handler that hangs stops everything else.

While it hangs, no beat goes out: leases run out, and others take the work. Nobody can cancel it, so
after its time limit it is told of, with the place where it hangs; after another limit (and a lease)
the process ends, with status 1, for its supervisor to start a new one.
"""

import os
import sys
import threading
from collections.abc import Callable
from types import TracebackType

import structlog

from consumers.link import Stop

_log = structlog.get_logger()
_LOOK_S = 0.1
FAILED = 1


class LoopWatch:
    """Enter it on the loop's thread; `ticking` is a task of that loop."""

    def __init__(
        self, limit_s: float, patience_s: float, in_hand: Callable[[], tuple[str, str] | None]
    ) -> None:
        self._limit_s = limit_s
        self._patience_s = patience_s
        self._in_hand = in_hand
        self._ticks = 0
        self._over = threading.Event()
        self._watched = threading.get_ident()
        self._thread = threading.Thread(target=self._watch, name="loop-watch", daemon=True)

    def __enter__(self) -> "LoopWatch":
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()

    async def ticking(self, stop: Stop) -> None:
        """As long as this goes on, the loop is alive."""
        while not stop.is_set:
            self._ticks += 1
            await stop.wait(_LOOK_S)

    def _watch(self) -> None:
        # Looks are counted, not time: while the whole process is stopped, nothing hangs.
        seen, looks, told = -1, 0, False
        while not self._over.wait(_LOOK_S):
            if self._ticks != seen:
                seen, looks, told = self._ticks, 0, False
                continue
            looks += 1
            stalled_s = looks * _LOOK_S
            if stalled_s > self._limit_s and not told:
                self._tell("handler_hangs", stalled_s, then="waiting for it a little longer")
                told = True
            if stalled_s > self._limit_s + self._patience_s:
                self._tell("worker_gives_up", stalled_s, then="ending: start it again")
                os._exit(FAILED)

    def _tell(self, event: str, stalled_s: float, then: str) -> None:
        stream, entry_id = self._in_hand() or ("", "")
        _log.error(
            event,
            stream=stream,
            entry_id=entry_id,
            at=self._place(),
            for_s=round(stalled_s, 1),
            then=then,
        )

    def _place(self) -> str:
        frame = sys._current_frames().get(self._watched)
        return f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame else ""
