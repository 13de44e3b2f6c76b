"""Keeps work going that others can do without for a while.

A failure there that was not foreseen must not end the whole, nor be hidden: it is logged, with the
place where it happened, and the work is begun again, later and later while it keeps failing.
"""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from traceback import walk_tb

import structlog

from bridge.runtime.backoff import Backoff

log = structlog.get_logger(__name__)

GOOD_S = 60.0  # work that went on for so long was well: the next failure is a first one
ROOT = Path(__file__).resolve().parents[2]


async def supervised(name: str, work: Callable[[], Awaitable[None]], backoff: Backoff) -> None:
    """Do this work until it ends by itself or is cancelled."""
    loop = asyncio.get_running_loop()
    while True:
        began_s = loop.time()
        try:
            await work()
            return
        except Exception as error:  # noqa: BLE001 - whatever it is: the rest of the bridge goes on
            if loop.time() - began_s >= GOOD_S:
                backoff.reset()
            pause_s = backoff.next_s()
            _report(name, error, pause_s)
        await asyncio.sleep(pause_s)


def _report(name: str, error: Exception, pause_s: float) -> None:
    """What it is, and the last place in our own code. Its text may hold what came from an account,
    and is left out.
    """
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    ours = [
        f"{path.relative_to(ROOT)}:{line}"
        for frame, line in walk_tb(error.__traceback__)
        if (path := Path(frame.f_code.co_filename)).is_relative_to(ROOT / "bridge")
    ]
    log.error(
        "task_failed",
        task=name,
        error=type(error).__name__,
        place=ours[-1] if ours else "",
        again_s=round(pause_s, 2),
    )
