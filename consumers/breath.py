"""Leaving the loop to others between the calls of sync handlers, which never yield by themselves.

The beats over which a worker holds what it has need some twenty turns of the loop each, and replies
in between.
"""

import asyncio

BREATHE_EVERY_S = 0.05
_TURNS = 10
_PART = 20  # of the time that a long call has taken
_LONGEST_S = 0.05


async def breathe(since_s: float) -> None:
    """Some turns; where nobody had one for so long that replies must be waited for, some time."""
    if since_s > 2 * BREATHE_EVERY_S:
        await asyncio.sleep(min(_LONGEST_S, since_s / _PART))
    for _ in range(_TURNS):
        await asyncio.sleep(0)
