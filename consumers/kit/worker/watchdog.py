"""A watchdog over handlers that do not end, in a thread: they must not hold their entries for ever.

A sync handler that hangs stops the event loop: once it is over its time limit no heartbeat goes
out, leases run out, and other workers take the work. An async one that catches its cancellation
lets heartbeats go on, so that its entries look as if they were in good hands. Python can end
neither, so after its time limit it is logged, with the line it hangs at; after another limit (and a
lease) the process ends, with status 1, for its supervisor to start a new one.
"""

import asyncio
import os
import sys
import threading
from types import FrameType, TracebackType

import structlog

from consumers.kit.stats import HandlerCall, Stats
from consumers.kit.stop import Stop

_log = structlog.get_logger()
_CHECK_S = 0.1
_CANCEL_S = 1.0  # what an async handler has, after its limit, to end once it is cancelled
FAILED = 1
_ASYNCIO = os.path.dirname(asyncio.__file__)


class _Unchanged:
    """For how many looks in a row the same object has been there. Looks are counted, not time:
    while the whole process is suspended, nothing hangs."""

    def __init__(self) -> None:
        self._seen: object = None
        self._looks = 0

    def for_s(self, now: object) -> float:
        """Look at it; None is nothing to wait for."""
        self._looks = self._looks + 1 if now is not None and now is self._seen else 0
        self._seen = now
        return self._looks * _CHECK_S


class Watchdog:
    """Enter it on the loop's thread, and run `tick` as a task of that loop."""

    def __init__(self, limit_s: float, patience_s: float, stats: Stats) -> None:
        self._limit_s = limit_s
        self._patience_s = patience_s
        self._stats = stats
        self.hangs = False  # a handler is beyond its limit
        self._tick = object()  # another one with each turn of the loop
        self.stalled_s = 0.0  # for how long the loop has had no turn
        self._over = threading.Event()
        self._watched = threading.get_ident()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> "Watchdog":
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

    async def tick(self, stop: Stop) -> None:
        """Show the thread that the loop is alive, until told to stop."""
        while not stop.is_set:
            self._tick = object()
            await stop.wait(_CHECK_S)

    def _watch(self) -> None:
        loop, call = _Unchanged(), _Unchanged()
        while not self._over.wait(_CHECK_S):
            # Each call of a handler is an object of its own, so the same entry that is tried again
            # does not count as one long call.
            self.stalled_s = loop.for_s(self._tick)
            stalled_s = max(self.stalled_s, call.for_s(self._stats.in_hand) - _CANCEL_S)
            if stalled_s <= self._limit_s:
                self.hangs = False
            elif not self.hangs:
                self._report("handler_hangs", stalled_s, then="waiting for it a little longer")
                self.hangs = True
            if stalled_s > self._limit_s + self._patience_s:
                self._report("worker_gives_up", stalled_s, then="ending: start it again")
                # Not sys.exit: that would wait for the very thread that hangs.
                os._exit(FAILED)

    def _report(self, event: str, stalled_s: float, then: str) -> None:
        call = self._stats.in_hand
        _log.error(
            event,
            stream=call.stream if call else "",
            entry_id=call.entry_id if call else "",
            at=self._line(call),
            for_s=round(stalled_s, 1),
            then=then,
        )

    def _line(self, call: HandlerCall | None) -> str:
        frame = _frame_of(getattr(call, "awaited", None)) or sys._current_frames().get(
            self._watched
        )
        return f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame else ""


def _frame_of(awaited: object) -> FrameType | None:
    """Where a coroutine waits: in the innermost one of those that await each other, but for those
    of asyncio. None where no coroutine is awaited, or it runs just now."""
    found = None
    while (inner := getattr(awaited, "cr_await", None)) is not None:
        frame: FrameType | None = getattr(awaited, "cr_frame", None)
        if frame is not None and not frame.f_code.co_filename.startswith(_ASYNCIO):
            found = frame
        awaited = inner
    return found
