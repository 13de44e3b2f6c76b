"""A watchdog thread for handlers that do not end, which must not hold their entries for ever.

A sync handler that hangs blocks the event loop: beyond its time limit no heartbeat is sent, leases
expire, and other workers take over. An async handler that suppresses its cancellation lets
heartbeats continue, so that its entries stay with this worker. Python can end neither. So after its
time limit the call is logged, with the line at which it hangs; after a further time, the longer of
time limit and lease, the process ends with status 1, for its supervisor to restart it.
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
_CANCEL_S = 1.0  # time for an async handler to end after its cancellation at the limit
FAILED = 1
_ASYNCIO = os.path.dirname(asyncio.__file__)


class _Unchanged:
    """Measures for how long an object has stayed the same. It counts checks instead of time, so
    that a suspended process does not count as hanging."""

    def __init__(self) -> None:
        self._seen: object = None
        self._checks = 0

    def for_s(self, now: object) -> float:
        """Check the object, every _CHECK_S. Returns for how long it has been the same, s; 0 for
        None."""
        self._checks = self._checks + 1 if now is not None and now is self._seen else 0
        self._seen = now
        return self._checks * _CHECK_S


class Watchdog:
    """Enter it on the event loop's thread, and run `tick` as a task of that loop."""

    def __init__(self, limit_s: float, grace_s: float, stats: Stats) -> None:
        self._limit_s = limit_s
        self._grace_s = grace_s
        self._stats = stats
        self.hangs = False  # whether a handler is beyond its time limit
        self._tick = object()  # replaced regularly while the event loop runs
        self.stalled_s = 0.0  # for how long the event loop has been blocked
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
        """Show the thread that the event loop runs, until `stop`."""
        while not stop.is_set:
            self._tick = object()
            await stop.wait(_CHECK_S)

    def _watch(self) -> None:
        loop, call = _Unchanged(), _Unchanged()
        while not self._over.wait(_CHECK_S):
            # Each call has an object of its own, so retries of the same entry do not count as one
            # long call.
            self.stalled_s = loop.for_s(self._tick)
            stalled_s = max(self.stalled_s, call.for_s(self._stats.in_hand) - _CANCEL_S)
            if stalled_s <= self._limit_s:
                self.hangs = False
            elif not self.hangs:
                self._report("handler_hangs", stalled_s, then="waiting for it a little longer")
                self.hangs = True
            if stalled_s > self._limit_s + self._grace_s:
                self._report("worker_gives_up", stalled_s, then="ending: start it again")
                # Not sys.exit: it would wait for the thread that hangs.
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
    """The frame in which a coroutine waits: of the innermost coroutine outside asyncio. None if
    none is awaited, or if it is running."""
    innermost = None
    while (inner := getattr(awaited, "cr_await", None)) is not None:
        frame: FrameType | None = getattr(awaited, "cr_frame", None)
        if frame is not None and not frame.f_code.co_filename.startswith(_ASYNCIO):
            innermost = frame
        awaited = inner
    return innermost
