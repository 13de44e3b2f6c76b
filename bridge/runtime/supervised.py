"""Restarts background work that the bridge can do without for a while.

An unexpected failure in it must neither end the bridge nor be hidden: it is logged, with the place
where it occurred, and the work is restarted after a delay that grows while it keeps failing.
"""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from traceback import walk_tb

import structlog

from bridge.runtime.backoff import Backoff

log = structlog.get_logger(__name__)

GOOD_S = 60.0  # after so long a run the backoff is reset
ROOT = Path(__file__).resolve().parents[2]


async def supervised(name: str, work: Callable[[], Awaitable[None]], backoff: Backoff) -> None:
    """Run the work until it returns or is cancelled; restart it after an exception."""
    loop = asyncio.get_running_loop()
    while True:
        began_s = loop.time()
        try:
            await work()
            return
        except Exception as error:  # noqa: BLE001 - any error: the rest of the bridge continues
            if loop.time() - began_s >= GOOD_S:
                backoff.reset()
            pause_s = backoff.next_s()
            _report(name, error, pause_s)
        await asyncio.sleep(pause_s)


def _report(name: str, error: Exception, pause_s: float) -> None:
    """Log the error's type and its last place in our own code. Its text is left out, since it may
    hold data of the account.
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
